//! ConfigMap: configuration as keys and values. An immutable one can only be deleted.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{is_true, map_at};

pub(crate) static STRATEGY: Strategy = Strategy::new(true).checks(check, check_update).table(COLUMNS, cells);

/// What a ConfigMap or a Secret may hold.
pub(crate) const MAX_SIZE: usize = 1024 * 1024;

const COLUMNS: &[Column] = &[NAME, column("Data"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let size = |field| map_at(o, field).map_or(0, serde_json::Map::len);
    vec![object::name(o).into(), json!(size("data") + size("binaryData")), age(o, now)]
}

fn check(o: &Value, errors: &mut ErrorList) {
    let (data, binary) = (Path::new("data"), Path::new("binaryData"));
    let mut size = 0;
    let binary_keys: BTreeSet<&String> = map_at(o, "binaryData").into_iter().flat_map(|m| m.keys()).collect();
    for (key, value) in map_at(o, "data").into_iter().flatten() {
        errors.invalid_all(&data.key(key), key, names::config_map_key(key));
        if binary_keys.contains(key) {
            errors.invalid(&data.key(key), key.as_str(), "duplicate of key present in binaryData");
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (key, value) in map_at(o, "binaryData").into_iter().flatten() {
        errors.invalid_all(&binary.key(key), key, names::config_map_key(key));
        size += decoded_len(value);
    }
    if size > MAX_SIZE {
        errors.too_long(&Path::new(""), MAX_SIZE);
    }
}

/// The bytes that a base64 text stands for.
pub(crate) fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or("");
    text.trim_end_matches('=').len() * 3 / 4
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    immutable(new, old, &["data", "binaryData"], errors);
}

/// `immutable: true` stays, and keeps the data.
pub(crate) fn immutable(new: &Value, old: &Value, fields: &[&str], errors: &mut ErrorList) {
    if !is_true(old, "immutable") {
        return;
    }
    if !is_true(new, "immutable") {
        errors.forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set");
    }
    for field in fields {
        let empty = |v: Option<&Value>| v.cloned().filter(|v| v.as_object().is_some_and(|m| !m.is_empty()));
        if empty(new.get(*field)) != empty(old.get(*field)) {
            errors.forbidden(&Path::new(field), "field is immutable when `immutable` is set");
        }
    }
}
