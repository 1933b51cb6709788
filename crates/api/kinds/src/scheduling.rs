//! `scheduling.k8s.io`: PriorityClass, and the gangs of KEP-4671.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, object};
use tiphys_types::jiff::Timestamp;

use crate::resources::Entry;
use crate::strategy::{Column, Generation, Strategy};
use crate::table::{AGE, NAME, age, boolean, column, integer};
use crate::tree::{int, is_true, set_absent, text};

static PRIORITY_CLASS: Strategy = Strategy::new(false)
    // It starts at 1 and never moves: nothing that counts may change.
    .generation(Generation::When(|_, _| false))
    .defaults(|o| set_absent(o, "preemptionPolicy", "PreemptLowerPriority"))
    .check_created(check)
    .checks(|_, _| {}, check_update)
    .table(COLUMNS, cells);
static POD_GROUP: Strategy = Strategy::new(true).status("{}");
static WORKLOAD: Strategy = Strategy::new(true);

pub(crate) const RESOURCES: &[Entry] =
    &[Entry::new("podgroups", &POD_GROUP), Entry::new("priorityclasses", &PRIORITY_CLASS), Entry::new("workloads", &WORKLOAD)];

const HIGHEST_OF_USERS: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

fn check(o: &Value, errors: &mut ErrorList) {
    let (name, value) = (object::name(o), int(o, "value"));
    if name.starts_with("system-") {
        let known = SYSTEM.iter().find(|(known, _)| *known == name);
        let problem = match known {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, wanted)) if *wanted != value => Some(format!("value of {name} PriorityClass must be {wanted}")),
            Some(_) if is_true(o, "globalDefault") => Some(format!("globalDefault of {name} PriorityClass must be false")),
            Some(_) => None,
        };
        if let Some(problem) = problem {
            let why = format!("priority class names with 'system-' prefix are reserved for system use only. error: {problem}");
            errors.forbidden(&Path::new("metadata.name"), why);
        }
    } else if value > HIGHEST_OF_USERS {
        errors.forbidden(&Path::new("value"), format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}"));
    }
    match text(o, "preemptionPolicy") {
        "PreemptLowerPriority" | "Never" => {}
        "" => errors.required(&Path::new("preemptionPolicy"), ""),
        other => errors.not_supported(&Path::new("preemptionPolicy"), other, &["PreemptLowerPriority", "Never"]),
    }
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    if int(new, "value") != int(old, "value") {
        errors.forbidden(&Path::new("value"), "may not be changed in an update.");
    }
    crate::meta::immutable(new.get("preemptionPolicy"), old.get("preemptionPolicy"), &Path::new("preemptionPolicy"), errors);
}

const COLUMNS: &[Column] = &[NAME, integer("Value"), boolean("Global-Default"), AGE, column("PreemptionPolicy")];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        object::name(o).into(),
        json!(int(o, "value")),
        json!(is_true(o, "globalDefault")),
        age(o, now),
        text(o, "preemptionPolicy").into(),
    ]
}
