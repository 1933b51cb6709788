//! Event: what happened to an object. Both groups (`v1`, `events.k8s.io`) share the storage; fields have two sets of names.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::fields::{self, Fields};
use crate::strategy::{Column, Strategy};
use crate::table::{NAME, column, since, wide};
use crate::tree::{at, int, text};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    .name(names::path_segment) // events.k8s.io is stricter upstream, and these share a store
    .create_on_update()
    .checks(|o, errors| check(o, "reportingComponent", errors), |_, _, _| {})
    .selectable(NAMES, selectable)
    .table(COLUMNS, cells);

pub(crate) const NAMES: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

pub(crate) fn selectable(o: &Value) -> Fields<'_> {
    let mut all = fields::read(o, &[("metadata.name", ""), ("metadata.namespace", ""), ("reason", ""), ("type", "")]);
    let involved = involved(o);
    let names = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];
    all.extend(names.into_iter().zip(&NAMES[2..9]).map(|(field, name)| (*name, text(involved, field).into())));
    let controller = first_text(o, CONTROLLER);
    all.push(("reportingComponent", controller.into()));
    let component = first_text(o, &["source.component", "deprecatedSource.component"]);
    all.push(("source", if component.is_empty() { controller } else { component }.into()));
    all
}

/// `involvedObject` of `v1`, `regarding` of `events.k8s.io`.
fn involved(o: &Value) -> &Value {
    o.get("involvedObject").or_else(|| o.get("regarding")).unwrap_or(&Value::Null)
}

fn first_text<'a>(o: &'a Value, paths: &[&str]) -> &'a str {
    paths.iter().map(|p| text(o, p)).find(|t| !t.is_empty()).unwrap_or("")
}

/// An event lives in the namespace of what it is about; of cluster objects, in `default` (new events: or `kube-system`). Events with an
/// `eventTime` are of the new kind and must say who reports what.
fn check(o: &Value, controller: &str, errors: &mut ErrorList) {
    let (about, own) = (text(involved(o), "namespace"), object::namespace(o));
    let new = at(o, "eventTime").is_some();
    let fits = match (about.is_empty(), new) {
        (true, true) => matches!(own, "default" | "kube-system"),
        (true, false) => matches!(own, "default" | ""),
        (false, true) => true,
        (false, false) => about == own,
    };
    if !fits {
        errors.invalid(&Path::new("involvedObject").child("namespace"), about, "does not match event.namespace");
    }
    if new {
        check_new(o, controller, errors);
    }
}

fn check_new(o: &Value, field: &str, errors: &mut ErrorList) {
    let (path, controller) = (Path::new(field), first_text(o, CONTROLLER));
    if controller.is_empty() {
        errors.required(&path, "");
    }
    errors.invalid_all(&path, controller, names::qualified_name(controller));
    for (field, limit) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let value = text(o, field);
        if value.is_empty() {
            errors.required(&Path::new(field), "");
        }
        if value.len() > limit {
            errors.invalid(&Path::new(field), "", format!("can have at most {limit} characters"));
        }
    }
    if first_text(o, &["message", "note"]).len() > NOTE_MAX {
        errors.invalid(&Path::new("message"), "", format!("can have at most {NOTE_MAX} characters"));
    }
}

/// The group's own API is stricter than the old one. It sees events as they are kept, which is under the names of the old one.
pub(crate) fn check_strict(o: &Value, errors: &mut ErrorList) {
    check(o, "reportingController", errors);
}

/// What only a create is held to.
pub(crate) fn check_strict_new(o: &Value, errors: &mut ErrorList) {
    check_series(o, errors);
    if at(o, "eventTime").is_none() {
        errors.required(&Path::new("eventTime"), "");
    }
    let kind = text(o, "type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid(&Path::new("type"), "", format!("has invalid value: {kind}"));
    }
    for (field, names) in RETIRED {
        if names.iter().any(|name| at(o, name).is_some_and(|v| *v != 0 && *v != json!({}))) {
            errors.invalid(&Path::new(field), "", "needs to be unset");
        }
    }
}

const CONTROLLER: &[&str] = &["reportingComponent", "reportingController"];

/// Fields of the old API, with what they are called in both.
const RETIRED: [(&str, [&str; 2]); 4] = [
    ("firstTimestamp", ["firstTimestamp", "deprecatedFirstTimestamp"]),
    ("lastTimestamp", ["lastTimestamp", "deprecatedLastTimestamp"]),
    ("count", ["count", "deprecatedCount"]),
    ("source", ["source", "deprecatedSource"]),
];

/// An event is told anew only by its series. Texts that are gone are shown as empty ones.
pub(crate) fn check_strict_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    if new.get("series") != old.get("series") {
        check_series(new, errors);
    }
    let first = |o: &Value, names: &[&str]| names.iter().find_map(|name| at(o, name)).cloned().unwrap_or_default();
    let mut same = |field: &str, names: &[&str]| {
        let (after, before) = (first(new, names), first(old, names));
        let shown = if after.is_null() && before.is_string() && field != "eventTime" { json!("") } else { after.clone() };
        if after != before {
            errors.invalid(&Path::new(field), shown, crate::meta::FIELD_IMMUTABLE);
        }
    };
    same("involvedObject", &["involvedObject", "regarding"]);
    same("message", &["message", "note"]);
    same("reportingController", CONTROLLER);
    for (field, names) in RETIRED {
        same(field, &names);
    }
    for field in ["reason", "type", "eventTime", "action", "related", "reportingInstance"] {
        same(field, &[field]);
    }
}

fn check_series(o: &Value, errors: &mut ErrorList) {
    let Some(series) = at(o, "series") else { return };
    if int(series, "count") < 2 {
        errors.invalid(&Path::new("series.count"), "", "should be at least 2");
    }
    if at(series, "lastObservedTime").is_none() {
        errors.required(&Path::new("series.lastObservedTime"), "");
    }
}

const NOTE_MAX: usize = 1024;

pub(crate) const COLUMNS: &[Column] = &[
    column("Last Seen"),
    column("Type"),
    column("Reason"),
    column("Object"),
    wide("Subobject"),
    wide("Source"),
    column("Message"),
    wide("First Seen"),
    wide("Count"),
    Column { priority: 1, ..NAME },
];

pub(crate) fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let first_of = |paths: &[&str]| paths.iter().find_map(|p| at(o, p));
    let first = since(first_of(&["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"]), now);
    let (last, count) = match at(o, "series") {
        Some(series) => (since(at(series, "lastObservedTime"), now), int(series, "count")),
        None => {
            let last = first_of(&["lastTimestamp", "deprecatedLastTimestamp"]);
            let count = int(o, "count").max(int(o, "deprecatedCount")).max(1);
            (last.map_or_else(|| first.clone(), |l| since(Some(l), now)), count)
        }
    };
    let about = involved(o);
    let kind = text(about, "kind").to_lowercase();
    let target = match text(about, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = first_text(o, &["source.component", "deprecatedSource.component", "reportingComponent", "reportingController"]);
    let host = first_text(o, &["source.host", "deprecatedSource.host", "reportingInstance"]);
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        last.into(),
        text(o, "type").into(),
        text(o, "reason").into(),
        target.into(),
        text(about, "fieldPath").into(),
        source.into(),
        first_text(o, &["message", "note"]).trim().into(),
        first.into(),
        json!(count),
        object::name(o).into(),
    ]
}
