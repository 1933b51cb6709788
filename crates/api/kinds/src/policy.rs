//! `policy`: PodDisruptionBudget, how many pods may be taken away at once.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::resources::Entry;
use crate::strategy::{Column, Strategy, Subresource, keep_all_but_status};
use crate::table::{AGE, NAME, age, column, integer};
use crate::tree::{at, int, one_of};
use crate::workloads::{self, SPEC};

static PDB: Strategy = Strategy::new(true)
    .name(names::path_segment)
    .spec_generation()
    .status(r#"{"currentHealthy":0,"desiredHealthy":0,"disruptionsAllowed":0,"expectedPods":0}"#)
    .unconditional_update(false)
    .subresources(&[Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: check_status }])
    .checks(check, |_, _, _| {})
    .table(COLUMNS, cells);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("poddisruptionbudgets", &PDB)];

fn check(o: &Value, errors: &mut ErrorList) {
    let both = ["minAvailable", "maxUnavailable"].map(|field| (field, at(o, "spec").and_then(|s| at(s, field))));
    if both.iter().all(|(_, value)| value.is_some()) {
        errors.invalid(&SPEC, o.get("spec").cloned().unwrap_or_default(), "minAvailable and maxUnavailable cannot be both set");
    }
    for (field, value) in both {
        workloads::count_or_percent(value, &SPEC.child(field), errors);
        workloads::at_most_all(value, &SPEC.child(field), errors);
    }
    crate::selectors::check(at(o, "spec.selector"), &SPEC.child("selector"), errors);
    let policy = "spec.unhealthyPodEvictionPolicy";
    one_of(at(o, policy), &["AlwaysAllow", "IfHealthyBudget"], &Path::new(policy), errors);
}

fn check_status(new: &Value, _: &Value, errors: &mut ErrorList) {
    let status = Path::new("status");
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        workloads::not_negative(new, &format!("status.{field}"), &status.child(field), errors);
    }
}

const COLUMNS: &[Column] = &[NAME, column("Min Available"), column("Max Unavailable"), integer("Allowed Disruptions"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let shown = |field: &str| match at(o, "spec").and_then(|s| at(s, field)) {
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
        None => "N/A".to_owned(),
    };
    vec![
        object::name(o).into(),
        shown("minAvailable").into(),
        shown("maxUnavailable").into(),
        json!(int(o, "status.disruptionsAllowed")),
        age(o, now),
    ]
}
