//! Small ways of reading and changing trees that plugins share.

use serde_json::{Map, Value};
use tiphys_meta::object;

pub(super) fn spec(object: &mut Value) -> &mut Map<String, Value> {
    object::as_map(object::as_map(object).entry("spec").or_insert(Value::Null))
}

pub(super) fn text<'a>(tree: &'a Value, field: &str) -> &'a str {
    tree.get(field).and_then(Value::as_str).unwrap_or("")
}

pub(super) fn list<'a>(tree: &'a Value, field: &str) -> &'a [Value] {
    tree.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The list of that name, made where it is missing.
pub(super) fn list_mut<'a>(map: &'a mut Map<String, Value>, field: &str) -> &'a mut Vec<Value> {
    let value = map.entry(field).or_insert(Value::Null);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("made an array above"),
    }
}

/// Init containers and containers of a pod's spec, each with the name of its list.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|field| list(spec, field).iter().map(move |c| (field, c)))
}

pub(super) fn is_mirror(pod: &Value) -> bool {
    object::annotations(pod).any(|(k, _)| k == "kubernetes.io/config.mirror")
}
