//! Reads of the parts that all objects share, on the tree.

use serde_json::Value;

fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or("")
}

pub fn name(object: &Value) -> &str {
    meta(object, "name")
}

pub fn namespace(object: &Value) -> &str {
    meta(object, "namespace")
}

pub fn uid(object: &Value) -> &str {
    meta(object, "uid")
}

pub fn resource_version(object: &Value) -> &str {
    meta(object, "resourceVersion")
}

pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    object.get("metadata").and_then(|m| m.get("deletionTimestamp")).and_then(Value::as_str)
}

pub fn labels(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    string_map(object, "labels")
}

pub fn annotations(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    string_map(object, "annotations")
}

fn string_map<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let map = object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| v.as_str().map(|v| (k.as_str(), v)))
}

/// `metadata` as a map, made where it is missing.
pub fn meta_mut(object: &mut Value) -> &mut serde_json::Map<String, Value> {
    as_map(as_map(object).entry("metadata").or_insert(Value::Null))
}

/// The value as a map; anything else becomes an empty one.
pub fn as_map(value: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(serde_json::Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}
