//! What the tables of `kubectl get` share: columns, ages, and small ways of printing.

use serde_json::{Value, json};
use tiphys_meta::{duration, object, time};
use tiphys_types::jiff::Timestamp;

use crate::strategy::Column;
use crate::tree::{array, at, text};

pub const fn column(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", description: "", priority: 0 }
}

pub const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", description: "", priority: 1 }
}

pub const fn integer(name: &'static str) -> Column {
    Column { name, kind: "integer", format: "", description: "", priority: 0 }
}

pub const fn boolean(name: &'static str) -> Column {
    Column { name, kind: "boolean", format: "", description: "", priority: 0 }
}

pub const NAME: Column = Column { name: "Name", kind: "string", format: "name", description: "Name of the object.", priority: 0 };
pub const AGE: Column = Column { name: "Age", kind: "string", format: "", description: "Time since the object was created.", priority: 0 };

const CREATED: Column = Column { name: "Created At", kind: "date", format: "", description: "When the object was created.", priority: 0 };

/// What kinds without columns of their own show.
pub(crate) const NAME_CREATED: &[Column] = &[NAME, CREATED];

pub(crate) fn name_created(o: &Value, _: Timestamp) -> Vec<Value> {
    let created = time::parse(text(o, "metadata.creationTimestamp")).map(time::format);
    vec![object::name(o).into(), created.unwrap_or_default().into()]
}

pub(crate) const NAME_AGE: &[Column] = &[NAME, AGE];

pub(crate) fn name_age(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), age(o, now)]
}

/// Time since creation.
pub fn age(o: &Value, now: Timestamp) -> Value {
    since(at(o, "metadata.creationTimestamp"), now).into()
}

/// Time since a timestamp, or `<unknown>`.
pub fn since(time_text: Option<&Value>, now: Timestamp) -> String {
    match time_text.and_then(Value::as_str).and_then(|t| time::seconds_since(t, now)) {
        Some(seconds) => duration::human(seconds),
        None => "<unknown>".into(),
    }
}

pub fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".into() } else { text }
}

/// Names and images of a pod spec's containers.
pub fn containers(spec: Option<&Value>) -> [Value; 2] {
    let join = |field: &str| -> String {
        let all = spec.map(|s| array(s, "containers")).unwrap_or_default();
        all.iter().map(|c| text(c, field)).collect::<Vec<_>>().join(",")
    };
    [json!(join("name")), json!(join("image"))]
}

/// A typed label selector as upstream prints it in tables.
pub fn selector(selector: Option<&Value>) -> String {
    match selector {
        None | Some(Value::Null) => "<none>".into(),
        Some(selector) => match tiphys_types::selector::from_value(selector) {
            Ok(parsed) => or_none(parsed.to_string()),
            Err(_) => "<error>".into(),
        },
    }
}

/// A plain map of labels as `a=b,c=d`.
pub fn labels(map: Option<&Value>) -> String {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    or_none(pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect::<Vec<_>>().join(","))
}
