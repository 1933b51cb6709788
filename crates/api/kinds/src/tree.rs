//! Small readers and writers of the tree. Paths are dotted names; lists have their own functions.

use serde_json::{Map, Value};
use tiphys_meta::{ErrorList, Path};

/// The value at a dotted path.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let (mut value, mut path) = (value, path);
    while let Some((step, rest)) = first_step(path) {
        (value, path) = (value.get(step)?, rest);
    }
    value.get(path).filter(|v| !v.is_null())
}

/// The first of several steps. Rules ask for a hundred places of an object; `str::split` takes longer to begin than this to end.
fn first_step(path: &str) -> Option<(&str, &str)> {
    let dot = path.bytes().position(|byte| byte == b'.')?;
    Some((&path[..dot], &path[dot + 1..]))
}

pub(crate) fn at_mut<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let (mut value, mut path) = (value, path);
    while let Some((step, rest)) = first_step(path) {
        (value, path) = (value.get_mut(step)?, rest);
    }
    value.get_mut(path).filter(|v| !v.is_null())
}

pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or("")
}

/// The text of a field behind a pointer: an empty one is said too.
pub(crate) fn said<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    at(value, path).and_then(Value::as_str)
}

pub(crate) fn int(value: &Value, path: &str) -> i64 {
    at(value, path).and_then(Value::as_i64).unwrap_or(0)
}

pub(crate) fn is_true(value: &Value, path: &str) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or(false)
}

pub(crate) fn array<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn array_mut<'a>(value: &'a mut Value, path: &str) -> &'a mut [Value] {
    at_mut(value, path).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

pub(crate) fn map_at<'a>(value: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    at(value, path).and_then(Value::as_object)
}

/// A field behind a pointer: where it is there, it is one of these (and not empty).
pub(crate) fn one_of(value: Option<&Value>, known: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(text) = value.and_then(Value::as_str).filter(|t| !known.contains(t)) {
        errors.not_supported(path, text, known);
    }
}

/// Sets a field that is absent, null, or the empty text (Go's zero value).
pub(crate) fn set_default(value: &mut Value, field: &str, default: impl Into<Value>) {
    let map = tiphys_meta::object::as_map(value);
    match map.get(field) {
        Some(Value::Null) | None => {}
        Some(Value::String(s)) if s.is_empty() => {}
        Some(_) => return,
    }
    map.insert(field.into(), default.into());
}

/// Sets a field that is absent (Go's nil pointer); an empty text is a value here.
pub(crate) fn set_absent(value: &mut Value, field: &str, default: impl Into<Value>) {
    let map = tiphys_meta::object::as_map(value);
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.into(), default.into());
    }
}

/// Sets a number that is absent or zero.
pub(crate) fn set_nonzero(value: &mut Value, field: &str, default: i64) {
    if int(value, field) == 0 {
        tiphys_meta::object::as_map(value).insert(field.into(), default.into());
    }
}

/// The child, if it is there and not null.
pub(crate) fn present<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    value.get_mut(field).filter(|v| !v.is_null())
}

/// The child as a map, made where it is missing.
pub(crate) fn child<'a>(value: &'a mut Value, field: &str) -> &'a mut Value {
    let child = tiphys_meta::object::as_map(value).entry(field).or_insert(Value::Null);
    if child.is_null() {
        *child = Value::Object(Map::new());
    }
    child
}

pub(crate) fn remove(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(field);
    }
}

/// Removes nulls and empty maps below, so that "absent" has one form.
pub(crate) fn prune_empty(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.values_mut().for_each(prune_empty);
        map.retain(|_, v| !v.is_null() && v.as_object().is_none_or(|m| !m.is_empty()));
    }
}
