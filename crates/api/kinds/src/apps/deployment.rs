//! Deployment: pods of one template, changed step by step. It owns a ReplicaSet for each template it has had.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, object};
use tiphys_types::jiff::Timestamp;

use crate::core::pod;
use crate::strategy::{Column, Ctx, Generation, Strategy, Subresource, keep_all_but_status};
use crate::table::{AGE, NAME, age, column, containers, selector, wide};
use crate::tree::{at, child, int, set_absent, set_default, text};
use crate::workloads::{self, SPEC};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    // Annotations count as part of what is wanted: rollout tools write them.
    .generation(Generation::When(|new, old| new.get("spec") != old.get("spec") || annotations(new) != annotations(old)))
    .status("{}")
    .defaults(defaults)
    .subresources(&[Subresource { name: "status", prepare_update: prepare_status, validate_update: check_status }])
    .checks(check, check_update)
    .warnings_by(workloads::warnings)
    .table(COLUMNS, cells);

fn annotations(o: &Value) -> Option<&Value> {
    at(o, "metadata.annotations")
}

fn defaults(o: &mut Value) {
    let spec = child(o, "spec");
    set_absent(spec, "replicas", 1);
    let strategy = child(spec, "strategy");
    set_default(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        set_absent(rolling, "maxUnavailable", "25%");
        set_absent(rolling, "maxSurge", "25%");
    }
    set_absent(spec, "revisionHistoryLimit", 10);
    set_absent(spec, "progressDeadlineSeconds", 600);
    pod::defaults::template_of(o);
}

/// Labels of a Deployment do not change through its status.
fn prepare_status(new: &mut Value, old: &Value, ctx: &Ctx<'_>) {
    keep_all_but_status(new, old, ctx);
    let labels = at(old, "metadata.labels").cloned();
    let meta = object::meta_mut(new);
    match labels {
        Some(labels) => meta.insert("labels".into(), labels),
        None => meta.remove("labels"),
    };
}

fn check(o: &Value, errors: &mut ErrorList) {
    workloads::counts(o, &["replicas"], errors);
    workloads::selector_and_template(o, "deployment", errors);
    workloads::always_restarts(workloads::template_of(o), &SPEC.child("template"), errors);
    check_strategy(o, errors);
    workloads::counts(o, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], errors);
    let (deadline, ready) = (at(o, "spec.progressDeadlineSeconds").and_then(Value::as_i64), int(o, "spec.minReadySeconds"));
    if let Some(deadline) = deadline.filter(|d| *d <= ready) {
        errors.invalid(&SPEC.child("progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds");
    }
}

fn check_strategy(o: &Value, errors: &mut ErrorList) {
    let path = SPEC.child("strategy");
    let rolling_path = path.child("rollingUpdate");
    let rolling = at(o, "spec.strategy.rollingUpdate");
    match (text(o, "spec.strategy.type"), rolling) {
        ("Recreate", Some(_)) => {
            errors.forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => errors.required(&rolling_path, "this should be defaulted and never be nil"),
        ("RollingUpdate", Some(rolling)) => check_rolling(rolling, &rolling_path, errors),
        (other, _) => errors.not_supported(&path, json!({"type": other}), &["Recreate", "RollingUpdate"]),
    }
}

fn check_rolling(rolling: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    workloads::count_or_percent(unavailable, &path.child("maxUnavailable"), errors);
    workloads::count_or_percent(surge, &path.child("maxSurge"), errors);
    if workloads::is_zero(unavailable) && workloads::is_zero(surge) {
        let shown = unavailable.cloned().unwrap_or_default();
        errors.invalid(&path.child("maxUnavailable"), shown, "may not be 0 when `maxSurge` is 0");
    }
    workloads::at_most_all(unavailable, &path.child("maxUnavailable"), errors);
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    crate::meta::immutable(at(new, "spec.selector"), at(old, "spec.selector"), &SPEC.child("selector"), errors);
}

fn check_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    workloads::status_counts(new, &["updatedReplicas", "readyReplicas", "availableReplicas"], errors);
    workloads::collision_count(new, old, errors);
}

const COLUMNS: &[Column] =
    &[NAME, column("Ready"), column("Up-to-date"), column("Available"), AGE, wide("Containers"), wide("Images"), wide("Selector")];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(at(o, "spec.template.spec"));
    vec![
        object::name(o).into(),
        format!("{}/{}", int(o, "status.readyReplicas"), int(o, "spec.replicas")).into(),
        json!(int(o, "status.updatedReplicas")),
        json!(int(o, "status.availableReplicas")),
        age(o, now),
        names,
        images,
        selector(at(o, "spec.selector")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::tests::ctx;

    fn deployment() -> Value {
        json!({"metadata": {"name": "d", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    }

    #[test]
    fn defaults_and_validation() {
        let mut d = deployment();
        STRATEGY.default(&mut d);
        assert_eq!(d["spec"]["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}));
        assert!(STRATEGY.validate_create(&d).is_empty(), "{}", STRATEGY.validate_create(&d).message());
        d["spec"]["template"]["metadata"]["labels"]["a"] = json!("x");
        assert_eq!(
            STRATEGY.validate_create(&d).message(),
            "spec.template.metadata.labels: Invalid value: {\"a\":\"x\"}: `selector` does not match template `labels`"
        );
    }

    #[test]
    fn annotations_move_the_generation() {
        let mut old = deployment();
        STRATEGY.prepare_create(&mut old, &ctx());
        let mut new = old.clone();
        new["metadata"]["annotations"] = json!({"x": "y"});
        STRATEGY.prepare_update(&mut new, &old, &ctx());
        assert_eq!(new["metadata"]["generation"], 2);
    }
}
