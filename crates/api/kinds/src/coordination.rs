//! `coordination.k8s.io`: Lease (who leads, who lives) and LeaseCandidate.

use serde_json::Value;
use tiphys_meta::{ErrorList, names, object};
use tiphys_types::jiff::Timestamp;

use crate::fields::selectable;
use crate::resources::Entry;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{at, text};
use crate::workloads::SPEC;

const SHARED: Strategy = Strategy::new(true).create_on_update().unconditional_update(false);

static LEASE: Strategy = SHARED.checks(check, |_, _, _| {}).table(COLUMNS, cells);
static CANDIDATE: Strategy = SHARED
    .name(|name, _| names::config_map_key(name))
    .checks(check_candidate, |new, old, errors| {
        crate::meta::immutable(at(new, "spec.leaseName"), at(old, "spec.leaseName"), &SPEC.child("leaseName"), errors);
    })
    .selectable(select::NAMES, select::of)
    .table(CANDIDATE_COLUMNS, candidate_cells);

mod select {
    super::selectable!("metadata.name" = "", "metadata.namespace" = "", "spec.leaseName" = "");
}

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("leases", &LEASE), Entry::new("leasecandidates", &CANDIDATE)];

fn check(o: &Value, errors: &mut ErrorList) {
    let number = |field: &str| at(o, "spec").and_then(|s| at(s, field)).and_then(Value::as_i64);
    if let Some(seconds) = number("leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.invalid(&SPEC.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    if let Some(count) = number("leaseTransitions").filter(|c| *c < 0) {
        errors.invalid(&SPEC.child("leaseTransitions"), count, "must be greater than or equal to 0");
    }
    if !text(o, "spec.preferredHolder").is_empty() && text(o, "spec.strategy").is_empty() {
        errors.forbidden(&SPEC.child("preferredHolder"), "may only be specified if `strategy` is defined");
    }
}

fn check_candidate(o: &Value, errors: &mut ErrorList) {
    for field in ["leaseName", "binaryVersion", "strategy"] {
        if text(o, &format!("spec.{field}")).is_empty() {
            errors.required(&SPEC.child(field), "");
        }
    }
}

const COLUMNS: &[Column] = &[NAME, column("Holder"), AGE];
const CANDIDATE_COLUMNS: &[Column] = &[NAME, column("LeaseName"), column("BinaryVersion"), column("EmulationVersion"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), text(o, "spec.holderIdentity").into(), age(o, now)]
}

fn candidate_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = |field: &str| Value::from(text(o, &format!("spec.{field}")));
    vec![object::name(o).into(), spec("leaseName"), spec("binaryVersion"), spec("emulationVersion"), age(o, now)]
}
