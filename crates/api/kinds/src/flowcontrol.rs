//! `flowcontrol.apiserver.k8s.io`: who waits for whom at the API server.

use serde_json::{Value, json};
use tiphys_meta::object;
use tiphys_types::jiff::Timestamp;

use crate::resources::Entry;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, at, child, int, present, set_absent, set_nonzero, text};

const SHARED: Strategy = Strategy::new(false).spec_generation().status("{}");

static SCHEMA: Strategy = SHARED.defaults(schema_defaults).table(SCHEMA_COLUMNS, schema_cells);
static LEVEL: Strategy = SHARED.defaults(level_defaults).table(LEVEL_COLUMNS, level_cells);

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
