//! DaemonSet: one pod on each node that fits. `metadata.annotations[deprecated.daemonset.template.generation]` is upstream's
//! `spec.templateGeneration` in `apps/v1`; it counts changes of the template.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, object};
use tiphys_types::jiff::Timestamp;

use crate::core::pod;
use crate::strategy::{Column, Ctx, Strategy, Subresource, keep_all_but_status};
use crate::table::{AGE, NAME, age, column, containers, integer, labels, selector, wide};
use crate::tree::{at, child, int, set_absent, set_default, text};
use crate::workloads::{self, SPEC};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    .spec_generation()
    .status(r#"{"currentNumberScheduled":0,"desiredNumberScheduled":0,"numberMisscheduled":0,"numberReady":0}"#)
    .defaults(defaults)
    .on_create(|o, _| set_template_generation(o, 1))
    .on_update(on_update)
    .subresources(&[Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: check_status }])
    .checks(check, check_update)
    .warnings_by(workloads::template_warnings)
    .table(COLUMNS, cells);

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn defaults(o: &mut Value) {
    let spec = child(o, "spec");
    let strategy = child(spec, "updateStrategy");
    set_default(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        set_absent(rolling, "maxUnavailable", 1);
        set_absent(rolling, "maxSurge", 0);
    }
    set_absent(spec, "revisionHistoryLimit", 10);
    pod::defaults::template_of(o);
    note_template_generation(o);
}

/// Stands in every object of `apps/v1`, so whoever writes one manages it.
fn note_template_generation(o: &mut Value) {
    if object::annotations(o).all(|(k, _)| k != TEMPLATE_GENERATION) {
        set_template_generation(o, 0);
    }
}

fn template_generation(o: &Value) -> i64 {
    let annotation = object::annotations(o).find(|(k, _)| *k == TEMPLATE_GENERATION);
    annotation.and_then(|(_, v)| v.parse().ok()).unwrap_or(0)
}

fn set_template_generation(o: &mut Value, generation: i64) {
    let annotations = object::meta_mut(o).entry("annotations").or_insert(Value::Null);
    object::as_map(annotations).insert(TEMPLATE_GENERATION.into(), json!(generation.to_string()));
}

fn on_update(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    let changed = at(new, "spec.template") != at(old, "spec.template");
    set_template_generation(new, template_generation(old).max(1) + i64::from(changed));
}

fn check(o: &Value, errors: &mut ErrorList) {
    workloads::selector_and_template(o, "daemonset", errors);
    let template = workloads::template_of(o);
    workloads::always_restarts(template, &SPEC.child("template"), errors);
    workloads::counts(o, &["minReadySeconds", "revisionHistoryLimit"], errors);
    let path = SPEC.child("updateStrategy");
    let rolling = at(o, "spec.updateStrategy.rollingUpdate");
    match text(o, "spec.updateStrategy.type") {
        "OnDelete" => {}
        "RollingUpdate" => match rolling {
            None => errors.required(&path.child("rollingUpdate"), ""),
            Some(rolling) => check_rolling(rolling, &path.child("rollingUpdate"), errors),
        },
        other => errors.not_supported(&path, json!({"type": other}), &["RollingUpdate", "OnDelete"]),
    }
}

/// Either surge or unavailability, not both and not none.
fn check_rolling(rolling: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    for (value, field) in [(unavailable, "maxUnavailable"), (surge, "maxSurge")] {
        workloads::count_or_percent(value, &path.child(field), errors);
        workloads::at_most_all(value, &path.child(field), errors);
    }
    match (workloads::is_zero(unavailable), workloads::is_zero(surge)) {
        (false, false) => {
            errors.invalid(&path.child("maxSurge"), surge.cloned().unwrap_or_default(), "may not be set when maxUnavailable is non-zero");
        }
        (true, true) => errors.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    crate::meta::immutable(at(new, "spec.selector"), at(old, "spec.selector"), &SPEC.child("selector"), errors);
}

fn check_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let status = Path::new("status");
    for field in [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ] {
        workloads::not_negative(new, &format!("status.{field}"), &status.child(field), errors);
    }
    workloads::collision_count(new, old, errors);
}

const COLUMNS: &[Column] = &[
    NAME,
    integer("Desired"),
    integer("Current"),
    integer("Ready"),
    integer("Up-to-date"),
    integer("Available"),
    column("Node Selector"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let count = |field: &str| json!(at(o, "status").map_or(0, |s| int(s, field)));
    let [names, images] = containers(at(o, "spec.template.spec"));
    vec![
        object::name(o).into(),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        labels(at(o, "spec.template.spec.nodeSelector")).into(),
        age(o, now),
        names,
        images,
        selector(at(o, "spec.selector")).into(),
    ]
}
