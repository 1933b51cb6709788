//! What belongs to the maker of an object: what differs from an empty one, as `FieldsV1` prints it. The same comes of comparing the two, tracking the
//! difference and writing down the set (the test holds them together); but most objects are made and seldom changed, and half of that work is sets.

use serde_json::{Map, Value};

use super::schema::{List, Relation, Ty};
use super::walk::{Form, form};

type Fields = Map<String, Value>;

/// Fields of `metadata` that are nobody's.
const OF_NOBODY: [&str; 9] =
    ["name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields", "resourceVersion"];

/// `reset`: fields that the endpoint resets. None: the object is not so simple.
pub(super) fn fields(ty: Ty<'_>, empty: &Value, new: &Value, reset: &[&str]) -> Option<Fields> {
    let Form::Map(map) = form(ty.atom(), Some(new)) else { return None };
    let mut fields = Fields::new();
    for (name, value) in new.as_object()? {
        if matches!(name.as_str(), "apiVersion" | "kind") || reset.contains(&name.as_str()) {
            continue;
        }
        let ty = map.type_of(name).unwrap_or(Ty::Unknown);
        let metadata = name == "metadata";
        let (member, mut below) = gained(ty, empty.get(name), value)?;
        if metadata {
            below.retain(|key, below| !is_of_nobody(key, below));
        }
        put(&mut fields, ["f:", name].concat(), member && !metadata, below);
    }
    Some(fields)
}

fn is_of_nobody(key: &str, below: &Value) -> bool {
    let named = key.strip_prefix("f:").is_some_and(|name| OF_NOBODY.contains(&name));
    named && below.as_object().is_none_or(Map::is_empty)
}

/// Whether the place itself is gained, and what is below it.
fn gained(ty: Ty<'_>, old: Option<&Value>, new: &Value) -> Option<(bool, Fields)> {
    let Some(old) = old else { return Some((true, below(ty, new))) };
    if old == new {
        return Some((false, Fields::new()));
    }
    let (before, after) = (form(ty.atom(), Some(old)), form(ty.atom(), Some(new)));
    if !before.same_kind(&after) {
        return None;
    }
    match (after, new) {
        (Form::Map(map), Value::Object(fields)) if !map.atomic && !fields.is_empty() => {
            let mut found = Fields::new();
            for (name, value) in fields {
                let (member, below) = match old.get(name) {
                    None if !has_parts(value) => (true, Fields::new()),
                    old => gained(map.type_of(name).unwrap_or(Ty::Unknown), old, value)?,
                };
                put(&mut found, ["f:", name].concat(), member, below);
            }
            Some((false, found))
        }
        (Form::List(list), Value::Array(found)) if list.relation != Relation::Atomic && !found.is_empty() => {
            let none = old.as_array().is_none_or(Vec::is_empty);
            none.then(|| (false, items(&list, found)))
        }
        (Form::Nothing, _) => Some((false, Fields::new())),
        // Something was there that is not: nobody makes such an object.
        (Form::Map(map), _) if !(map.atomic || is_empty(old) && is_empty(new)) => None,
        (Form::List(list), _) if list.relation != Relation::Atomic && !(is_empty(old) && is_empty(new)) => None,
        // What differs as a whole.
        _ => Some((true, Fields::new())),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

/// Below anything else there is nothing, whatever its type.
fn has_parts(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

/// Everything in a value that was not there before.
fn below(ty: Ty<'_>, value: &Value) -> Fields {
    match (form(ty.atom(), Some(value)), value) {
        (Form::Map(map), Value::Object(fields)) if !map.atomic => {
            let mut found = Fields::new();
            for (name, value) in fields {
                let below = if has_parts(value) { below(map.type_of(name).unwrap_or(Ty::Unknown), value) } else { Fields::new() };
                put(&mut found, ["f:", name].concat(), true, below);
            }
            found
        }
        (Form::List(list), Value::Array(found)) if list.relation != Relation::Atomic => items(&list, found),
        _ => Fields::new(),
    }
}

fn items(list: &List<'_>, items: &[Value]) -> Fields {
    let mut found = Fields::new();
    for item in items {
        let Ok(element) = list.element_of(item) else { continue };
        let key = element.encode();
        // What is there twice counts as one thing, whose parts nobody looks at.
        let below = if found.contains_key(&key) { Fields::new() } else { below(list.element, item) };
        put(&mut found, key, true, below);
    }
    found
}

fn put(fields: &mut Fields, key: String, member: bool, mut below: Fields) {
    if !member && below.is_empty() {
        return;
    }
    if member && !below.is_empty() {
        below.insert(".".into(), Value::Object(Fields::new()));
    }
    fields.insert(key, Value::Object(below));
}
