//! `flowcontrol.apiserver.k8s.io`: who waits for whom at the API server.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::resources::Entry;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, at, child, int, present, set_absent, set_nonzero, text};
use crate::workloads::SPEC;

const PRECEDENCE_MAX: i64 = 10_000;

const SHARED: Strategy = Strategy::new(false).spec_generation().status("{}");

static SCHEMA: Strategy = SHARED.defaults(schema_defaults).checks(check_schema, |_, _, _| {}).table(SCHEMA_COLUMNS, schema_cells);
static LEVEL: Strategy = SHARED.defaults(level_defaults).checks(check_level, |_, _, _| {}).table(LEVEL_COLUMNS, level_cells);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("flowschemas", &SCHEMA), Entry::new("prioritylevelconfigurations", &LEVEL)];

fn schema_defaults(o: &mut Value) {
    set_nonzero(child(o, "spec"), "matchingPrecedence", 1000);
}

fn level_defaults(o: &mut Value) {
    let spec = child(o, "spec");
    if let Some(exempt) = present(spec, "exempt") {
        set_absent(exempt, "nominalConcurrencyShares", 0);
        set_absent(exempt, "lendablePercent", 0);
    }
    let Some(limited) = present(spec, "limited") else { return };
    set_absent(limited, "nominalConcurrencyShares", 30);
    set_absent(limited, "lendablePercent", 0);
    if let Some(queuing) = present(limited, "limitResponse").and_then(|r| present(r, "queuing")) {
        for (field, default) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
            set_nonzero(queuing, field, default);
        }
    }
}

fn check_schema(o: &Value, errors: &mut ErrorList) {
    let (path, precedence) = (SPEC.child("matchingPrecedence"), int(o, "spec.matchingPrecedence"));
    if precedence <= 0 {
        errors.invalid(&path, precedence, "must be a positive value");
    }
    if precedence > PRECEDENCE_MAX {
        errors.invalid(&path, precedence, format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && object::name(o) != "exempt" {
        errors.invalid(&path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    let level = SPEC.child("priorityLevelConfiguration.name");
    match text(o, "spec.priorityLevelConfiguration.name") {
        "" => errors.required(&level, "must reference a priority level"),
        name => errors.invalid_all(&level, name, names::dns1123_subdomain(name)),
    }
}

fn check_level(o: &Value, errors: &mut ErrorList) {
    let (kind, path) = (text(o, "spec.type"), SPEC.child("type"));
    if (object::name(o) == "exempt") != (kind == "Exempt") {
        errors.invalid(&path, kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match (kind, at(o, "spec.limited")) {
        ("Exempt", Some(_)) => errors.forbidden(&SPEC.child("limited"), "must be nil if the type is not Limited"),
        ("Exempt", None) => {}
        ("Limited", limited) => {
            if at(o, "spec.exempt").is_some() {
                errors.forbidden(&SPEC.child("exempt"), "must be nil if the type is Limited");
            }
            match limited {
                None => errors.required(&SPEC.child("limited"), "must not be empty when type is Limited"),
                Some(limited) => check_limited(limited, &SPEC.child("limited"), errors),
            }
        }
        ("", _) => errors.required(&path, ""),
        (other, _) => errors.not_supported(&path, other, &["Exempt", "Limited"]),
    }
}

fn check_limited(limited: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let shares = int(limited, "nominalConcurrencyShares");
    if shares < 0 {
        errors.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    let (response, queuing) = (path.child("limitResponse"), at(limited, "limitResponse.queuing"));
    match text(limited, "limitResponse.type") {
        "Reject" if queuing.is_some() => {
            errors.forbidden(&response.child("queuing"), "must be nil if limited.limitResponse.type is not Limited");
        }
        "Queue" if queuing.is_none() => {
            errors.required(&response.child("queuing"), "must not be empty if limited.limitResponse.type is Limited");
        }
        "Reject" | "Queue" => {}
        "" => errors.required(&response.child("type"), ""),
        other => errors.not_supported(&response.child("type"), other, &["Queue", "Reject"]),
    }
    let lendable = int(limited, "lendablePercent");
    if !(0..=100).contains(&lendable) {
        errors.invalid(&path.child("lendablePercent"), lendable, "must be between 0 and 100, inclusive");
    }
    let borrowing = int(limited, "borrowingLimitPercent");
    if borrowing < 0 {
        errors.invalid(&path.child("borrowingLimitPercent"), borrowing, "if specified, must be a non-negative integer");
    }
}

const SCHEMA_COLUMNS: &[Column] =
    &[NAME, column("PriorityLevel"), column("MatchingPrecedence"), column("DistinguisherMethod"), AGE, column("MissingPL")];

fn schema_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let method = text(o, "spec.distinguisherMethod.type");
    let dangling = array(o, "status.conditions").iter().find(|c| text(c, "type") == "Dangling");
    vec![
        object::name(o).into(),
        text(o, "spec.priorityLevelConfiguration.name").into(),
        json!(int(o, "spec.matchingPrecedence")),
        if method.is_empty() { "<none>" } else { method }.into(),
        age(o, now),
        dangling.map_or("?", |c| text(c, "status")).into(),
    ]
}

const LEVEL_COLUMNS: &[Column] =
    &[NAME, column("Type"), column("NominalConcurrencyShares"), column("Queues"), column("HandSize"), column("QueueLengthLimit"), AGE];

fn level_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let shares = at(o, "spec.limited.nominalConcurrencyShares").or_else(|| at(o, "spec.exempt.nominalConcurrencyShares"));
    let queuing = |field: &str| at(o, "spec.limited.limitResponse.queuing").and_then(|q| at(q, field)).cloned().unwrap_or(json!("<none>"));
    vec![
        object::name(o).into(),
        text(o, "spec.type").into(),
        shares.cloned().unwrap_or(json!("<none>")),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        age(o, now),
    ]
}
