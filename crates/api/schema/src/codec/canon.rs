//! What Go prints: zero values, `omitempty`, and the canonical text of quantities, times, durations and bytes.

use serde_json::{Map, Value};
use tiphys_meta::{duration, quantity};

use super::budget::{self, Budget, Overdrawn};
use super::go;
use crate::facts::{Field, Shape, Type};

/// The tree of a zero value, as Go prints it.
pub(crate) fn zero(shape: &Shape) -> Value {
    use Shape::*;
    match shape {
        Str => Value::String(String::new()),
        Bool | OrBool(_) => Value::Bool(false),
        I32 | I64 | U32 | U64 | F64 | IntOrString => Value::from(0),
        Duration => Value::from("0s"),
        Quantity => Value::from("0"),
        Message(ty) => Value::Object(zero_struct(ty.get())),
        Bytes | Any | Time | MicroTime | Raw | FieldsV1 | Json | OrArray(_) | OrStrings(_) | List(_) | Map(_) | Items(_) => Value::Null,
    }
}

/// A null value in a map, as it comes back from storage: bytes and lists are empty there, not nil.
pub(crate) fn zero_in_map(shape: &Shape) -> Value {
    match shape {
        Shape::Bytes => Value::from(""),
        Shape::Items(_) => Value::Array(Vec::new()),
        shape => zero(shape),
    }
}

pub(crate) fn zero_struct(ty: &'static Type) -> Map<String, Value> {
    let mut map = Map::new();
    add_zeroes(ty, &mut map, |_| {});
    map
}

/// Adds what Go always prints and the input did not have, and counts the map.
pub(crate) fn finish(ty: &'static Type, map: &mut Map<String, Value>, budget: &Budget) -> Result<(), Overdrawn> {
    let mut nested = 0;
    add_zeroes(ty, map, |zero| nested += if zero.is_object() { budget::cost(zero) } else { 0 });
    budget.map(map.len(), nested)
}

fn add_zeroes(ty: &'static Type, map: &mut Map<String, Value>, mut see: impl FnMut(&Value)) {
    for field in ty.index().always() {
        if !map.contains_key(field.name) {
            let value = if field.pointer() { Value::Null } else { zero(field.shape) };
            see(&value);
            map.insert(field.name.to_owned(), value);
        }
    }
}

/// Stores the value of a field the way Go prints it: not at all, where it is empty and `omitempty`. What protobuf cannot tell from nothing, an empty
/// list or map, comes back from storage as null; no bytes at all do not.
pub(crate) fn put(map: &mut Map<String, Value>, field: &Field, value: Value) {
    // Null and absent are the same, also where a pointer leads to a time that is none (found by the fuzzer).
    if field.pointer() && !value.is_null() || !is_empty(field.shape, &value) {
        map.insert(field.name.to_owned(), value);
    } else if field.omit_empty() || field.omit_zero() {
        map.remove(field.name);
    } else if keeps_empty_list(field) || !matches!(field.shape, Shape::List(_) | Shape::Map(_) | Shape::Items(_)) {
        map.insert(field.name.to_owned(), value);
    } else {
        map.insert(field.name.to_owned(), Value::Null);
    }
}

/// The items of a list are made for the answer and never stored; they stay `[]`.
fn keeps_empty_list(field: &Field) -> bool {
    matches!(field.name, "items" | "rows" | "columnDefinitions")
}

/// `omitempty` in Go: false, zero, and what has no length; structs are never empty (`omitzero` asks only for times here).
fn is_empty(shape: &Shape, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b && *shape == Shape::Bool,
        Value::Number(n) => *shape != Shape::IntOrString && n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty() && matches!(shape, Shape::Str | Shape::Bytes),
        Value::Array(a) => a.is_empty() && matches!(shape, Shape::List(_) | Shape::Items(_)),
        Value::Object(o) => o.is_empty() && matches!(shape, Shape::Map(_)),
    }
}

/// `1000m` is `1`; the error is upstream's.
pub(crate) fn quantity(text: &str) -> Result<String, String> {
    quantity::canonical(text.trim()).map(|q| q.into_owned()).map_err(|e| e.to_string())
}

pub(crate) fn go_duration(text: &str) -> Result<String, String> {
    let nanos = duration::parse(text).ok_or_else(|| format!("time: invalid duration {}", go::quote(text)))?;
    Ok(duration::go_string(nanos))
}
