//! ReplicaSet: so many pods of one template, no more and no less.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, object};
use tiphys_types::jiff::Timestamp;

use crate::core::pod;
use crate::strategy::{Column, Strategy, Subresource, keep_all_but_status};
use crate::table::{AGE, NAME, age, containers, integer, selector, wide};
use crate::tree::{at, child, int, set_absent};
use crate::workloads::{self, SPEC};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    .spec_generation()
    .status(r#"{"replicas":0}"#)
    .defaults(defaults)
    .subresources(&[Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: check_status }])
    .checks(check, check_update)
    .warnings_by(workloads::warnings)
    .table(COLUMNS, cells);

fn defaults(o: &mut Value) {
    set_absent(child(o, "spec"), "replicas", 1);
    pod::defaults::template_of(o);
}

fn check(o: &Value, errors: &mut ErrorList) {
    workloads::counts(o, &["replicas", "minReadySeconds"], errors);
    workloads::selector_and_template(o, "deployment", errors);
    workloads::always_restarts(workloads::template_of(o), &SPEC.child("template"), errors);
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    crate::meta::immutable(at(new, "spec.selector"), at(old, "spec.selector"), &SPEC.child("selector"), errors);
}

fn check_status(new: &Value, _: &Value, errors: &mut ErrorList) {
    workloads::status_counts(new, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], errors);
}

const COLUMNS: &[Column] =
    &[NAME, integer("Desired"), integer("Current"), integer("Ready"), AGE, wide("Containers"), wide("Images"), wide("Selector")];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(at(o, "spec.template.spec"));
    vec![
        object::name(o).into(),
        json!(int(o, "spec.replicas")),
        json!(int(o, "status.replicas")),
        json!(int(o, "status.readyReplicas")),
        age(o, now),
        names,
        images,
        selector(at(o, "spec.selector")).into(),
    ]
}
