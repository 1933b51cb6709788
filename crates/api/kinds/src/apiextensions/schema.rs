//! Whether a schema is structural (KEP-1151), within the vocabulary that Kubernetes has of OpenAPI, and right in what it says of lists, maps and defaults.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path};
use tiphys_schema::{re2, structural as engine};

use crate::tree::{array, at, is_true, text};

/// Everything but the rules in CEL.
pub(super) fn check(schema: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if is_true(schema, "nullable") {
        errors.forbidden(&path.child("nullable"), "nullable cannot be true at the root");
    }
    shape(schema, path, errors);
    vocabulary(schema, path, errors);
}

/// Where something is wrong; None where it is the shape, so that no rule can be looked at.
pub(super) fn wrong(schema: &Value, path: &Path<'_>) -> Option<Vec<String>> {
    let mut errors = ErrorList::new();
    shape(schema, path, &mut errors);
    if !errors.is_empty() {
        return None;
    }
    vocabulary(schema, path, &mut errors);
    Some(errors.into_iter().map(|e| e.field).collect())
}

/// The root says that objects are objects, and keeps `metadata` for the server. Defaults are looked at in a sound schema only.
fn shape(schema: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let before = errors.len();
    match text(schema, "type") {
        "object" => {}
        "" if is_true(schema, "x-kubernetes-int-or-string") || is_true(schema, "x-kubernetes-preserve-unknown-fields") => {}
        "" => errors.required(&path.child("type"), "must not be empty at the root"),
        other => errors.invalid(&path.child("type"), other, "must be object at the root"),
    }
    if at(schema, "additionalProperties").is_some_and(|a| a != &Value::Bool(false)) {
        errors.forbidden(&path.child("additionalProperties"), "must not be used at the root");
    }
    structural(schema, path, Level::Root, errors);
    if errors.len() == before {
        defaults(schema, path, errors);
    }
}

/// With a status of its own, the schema of which is taken out of the root's, the root says little more.
pub(super) fn root_with_status(schema: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    const ALLOWED: [(&str, &str); 22] = [
        ("description", "Description"),
        ("type", "Type"),
        ("format", "Format"),
        ("title", "Title"),
        ("maximum", "Maximum"),
        ("exclusiveMaximum", "ExclusiveMaximum"),
        ("minimum", "Minimum"),
        ("exclusiveMinimum", "ExclusiveMinimum"),
        ("maxLength", "MaxLength"),
        ("minLength", "MinLength"),
        ("pattern", "Pattern"),
        ("maxItems", "MaxItems"),
        ("minItems", "MinItems"),
        ("uniqueItems", "UniqueItems"),
        ("multipleOf", "MultipleOf"),
        ("required", "Required"),
        ("items", "Items"),
        ("properties", "Properties"),
        ("externalDocs", "ExternalDocs"),
        ("example", "Example"),
        ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
        ("x-kubernetes-validations", "XValidations"),
    ];
    let kind = text(schema, "type");
    if !kind.is_empty() && kind != "object" {
        let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return errors.invalid(&path.child("type"), kind, why);
    }
    let said = |v: &Value| !v.is_null() && *v != Value::Bool(false) && *v != "";
    let other = |name: &String| ALLOWED.iter().all(|(allowed, _)| allowed != name);
    if schema.as_object().is_some_and(|fields| fields.iter().any(|(name, v)| other(name) && said(v))) {
        let names: Vec<&str> = ALLOWED.iter().map(|(_, name)| *name).collect();
        let why = format!("only [{}] fields are allowed at the root of the schema if the status subresource is enabled", names.join(" "));
        errors.invalid(path, schema.clone(), why);
    }
}

pub(super) fn has_defaults(schema: &Value) -> bool {
    schema.get("default").is_some_and(|d| !d.is_null())
        || schema.get("properties").and_then(Value::as_object).is_some_and(|p| p.values().any(has_defaults))
        || ["items", "additionalProperties", "not"].iter().any(|f| schema.get(*f).is_some_and(has_defaults))
        || ["allOf", "anyOf", "oneOf"].iter().any(|f| array(schema, f).iter().any(has_defaults))
}

/// Defaults are valid, and nothing in them would be pruned.
fn defaults(schema: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(default) = schema.get("default").filter(|d| !d.is_null()) {
        let place = path.child("default");
        let mut pruned = default.clone();
        engine::prune(Some(schema), &mut pruned);
        if &pruned != default {
            errors.invalid(&place, default.clone(), "must not have unknown fields");
        } else {
            let place = place.to_string();
            for mut error in engine::validate_at(schema, default, None, &place) {
                // The words are those about an object: the default is one here.
                if let Some(rest) = error.detail.strip_prefix(&place) {
                    error.detail = rest.trim_start_matches('.').to_owned();
                }
                errors.push(error);
            }
        }
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let properties = path.child("properties");
        defaults(property, &properties.key(name), errors);
    }
    for field in ["items", "additionalProperties"] {
        if let Some(part) = schema.get(field).filter(|p| p.is_object()) {
            defaults(part, &path.child(field), errors);
        }
    }
}

/// Where a schema stands, for the words of its errors.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Field,
    Item,
}

/// Structural rules (KEP-1151): types everywhere, unless integers-or-strings or unknown fields are asked for.
fn structural(schema: &Value, path: &Path<'_>, level: Level, errors: &mut ErrorList) {
    let kind = text(schema, "type");
    if kind == "array" && at(schema, "items").is_none() {
        errors.required(&path.child("items"), "must be specified");
    }
    if let Some(items) = at(schema, "items").filter(|i| i.is_object()) {
        structural(items, &path.child("items"), Level::Item, errors);
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let properties = path.child("properties");
        structural(property, &properties.key(name), Level::Field, errors);
    }
    if let Some(more) = at(schema, "additionalProperties").filter(|a| a.is_object()) {
        structural(more, &path.child("additionalProperties"), Level::Field, errors);
    }
    let both = is_true(schema, "x-kubernetes-int-or-string");
    if is_true(schema, "x-kubernetes-embedded-resource") {
        embedded(schema, kind, path, errors);
    }
    junctors(schema, both && either_type(schema), both && array(schema, "allOf").first().is_some_and(either_type), path, errors);
    if kind.is_empty() && !both && !is_true(schema, "x-kubernetes-preserve-unknown-fields") {
        let why = match level {
            Level::Root => return, // said by `shape`
            Level::Field => "must not be empty for specified object fields",
            Level::Item => "must not be empty for specified array items",
        };
        errors.required(&path.child("type"), why);
    }
}

fn embedded(schema: &Value, kind: &str, path: &Path<'_>, errors: &mut ErrorList) {
    match kind {
        "object" => {}
        "" => errors.required(&path.child("type"), "must be object if x-kubernetes-embedded-resource is true"),
        other => errors.invalid(&path.child("type"), other, "must be object if x-kubernetes-embedded-resource is true"),
    }
    if at(schema, "additionalProperties").is_some_and(|a| a != &Value::Bool(false)) {
        errors.forbidden(&path.child("additionalProperties"), "must not be used if x-kubernetes-embedded-resource is set");
    }
    let empty = schema.get("properties").and_then(Value::as_object).is_none_or(serde_json::Map::is_empty);
    if empty && !is_true(schema, "x-kubernetes-preserve-unknown-fields") {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.required(&path.child("properties"), why);
    }
}

/// `anyOf` an integer or a string, which `x-kubernetes-int-or-string` may have beside it.
fn either_type(schema: &Value) -> bool {
    at(schema, "anyOf") == Some(&json!([{"type": "integer"}, {"type": "string"}]))
}

/// What restricts values, here and within `anyOf` and the like.
fn junctors(schema: &Value, skip_any: bool, skip_first_all: bool, path: &Path<'_>, errors: &mut ErrorList) {
    for list in ["anyOf", "allOf", "oneOf"] {
        if list == "anyOf" && skip_any {
            continue;
        }
        for (i, part) in array(schema, list).iter().enumerate() {
            let list_path = path.child(list);
            nested(part, list == "allOf" && i == 0 && skip_first_all, &list_path.index(i), errors);
        }
    }
    if let Some(part) = at(schema, "not") {
        nested(part, false, &path.child("not"), errors);
    }
    let pattern = text(schema, "pattern");
    if !pattern.is_empty()
        && let Err(why) = re2::compile(pattern)
    {
        errors.invalid(&path.child("pattern"), pattern, format!("must be a valid regular expression, but isn't: {why}"));
    }
}

/// Inside `anyOf` and the like a schema may restrict values, never shape them.
fn nested(schema: &Value, skip_any: bool, path: &Path<'_>, errors: &mut ErrorList) {
    junctors(schema, skip_any, false, path, errors);
    if let Some(items) = at(schema, "items").filter(|i| i.is_object()) {
        nested(items, false, &path.child("items"), errors);
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let properties = path.child("properties");
        nested(property, false, &properties.key(name), errors);
    }
    for (field, must_be) in [
        ("type", "empty"),
        ("additionalProperties", "undefined"),
        ("default", "undefined"),
        ("title", "empty"),
        ("description", "empty"),
        ("nullable", "false"),
        ("x-kubernetes-preserve-unknown-fields", "false"),
        ("x-kubernetes-embedded-resource", "false"),
        ("x-kubernetes-int-or-string", "false"),
        ("x-kubernetes-list-map-keys", "empty"),
        ("x-kubernetes-list-type", "undefined"),
        ("x-kubernetes-map-type", "undefined"),
    ] {
        if schema.get(field).is_some_and(|v| !v.is_null() && v != false && v != "") {
            errors.forbidden(&path.child(field), format!("must be {must_be} to be structural"));
        }
    }
    if schema.get("properties").and_then(|p| p.get("metadata")).is_some() {
        errors.forbidden(&path.child("properties").key("metadata"), "must not be specified in a nested context");
    }
}

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const LIST_TYPES: [&str; 3] = ["atomic", "set", "map"];

/// What OpenAPI as Kubernetes has it leaves out, at every schema of the tree.
fn vocabulary(schema: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if is_true(schema, "uniqueItems") {
        errors.forbidden(&path.child("uniqueItems"), "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
    }
    if at(schema, "properties").is_some() && at(schema, "additionalProperties").is_some_and(|a| a != &Value::Bool(false)) {
        errors.forbidden(&path.child("additionalProperties"), "additionalProperties and properties are mutual exclusive");
    }
    for field in ["$ref", "definitions", "dependencies", "patternProperties", "deprecated", "discriminator"] {
        if schema.get(field).is_some_and(|v| !v.is_null()) {
            errors.forbidden(&path.child(field), format!("{field} is not supported"));
        }
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let properties = path.child("properties");
        vocabulary(property, &properties.key(name), errors);
    }
    for field in ["items", "additionalProperties", "not"] {
        if let Some(part) = schema.get(field).filter(|p| p.is_object()) {
            vocabulary(part, &path.child(field), errors);
        }
    }
    for field in ["allOf", "oneOf", "anyOf"] {
        for (i, part) in array(schema, field).iter().enumerate() {
            let list = path.child(field);
            vocabulary(part, &list.index(i), errors);
        }
    }
    let kind = text(schema, "type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &TYPES);
    }
    if at(schema, "x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        errors.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), false, "must be true or undefined");
    }
    list_type(schema, kind, path, errors);
    map_type(schema, kind, path, errors);
    for (i, rule) in array(schema, "x-kubernetes-validations").iter().enumerate() {
        if text(rule, "rule").trim().is_empty() {
            let rules = path.child("x-kubernetes-validations");
            errors.required(&rules.index(i).child("rule"), "rule is not specified");
        }
    }
}

fn map_type(schema: &Value, kind: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(map) = schema.get("x-kubernetes-map-type").and_then(Value::as_str) else { return };
    match kind {
        "object" => {}
        "" => errors.required(&path.child("type"), "must be object if x-kubernetes-map-type is specified"),
        other => errors.invalid(&path.child("type"), other, "must be object if x-kubernetes-map-type is specified"),
    }
    if !matches!(map, "atomic" | "granular") {
        errors.not_supported(&path.child("x-kubernetes-map-type"), map, &["atomic", "granular"]);
    }
}

fn list_type(schema: &Value, kind: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let list = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    let place = path.child("x-kubernetes-list-type");
    if list.is_some() {
        match kind {
            "array" => {}
            "" => errors.required(&path.child("type"), "must be array if x-kubernetes-list-type is specified"),
            other => errors.invalid(&path.child("type"), other, "must be array if x-kubernetes-list-type is specified"),
        }
    }
    if let Some(list) = list.filter(|l| !LIST_TYPES.contains(l)) {
        errors.not_supported(&place, list, &LIST_TYPES);
    }
    let keys = array(schema, "x-kubernetes-list-map-keys");
    if !keys.is_empty() && list != Some("map") {
        match list {
            None => errors.required(&place, "must be map if x-kubernetes-list-map-keys is non-empty"),
            Some(list) => errors.invalid(&place, list, "must be map if x-kubernetes-list-map-keys is non-empty"),
        }
    }
    if list == Some("map") {
        map_keys(schema, keys, path, errors);
    }
    let items = at(schema, "items").filter(|i| i.is_object());
    if let (Some(list @ ("map" | "set")), Some(items)) = (list, items)
        && is_true(items, "nullable")
    {
        errors.forbidden(&path.child("items").child("nullable"), format!("cannot be nullable when x-kubernetes-list-type is {list}"));
    }
}

/// What makes the items of a list a map: keys that every item has, and that are plain values.
fn map_keys(schema: &Value, keys: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    let keys_path = path.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        errors.required(&keys_path, "must not be empty if x-kubernetes-list-type is map");
    }
    let items_path = path.child("items");
    let Some(items) = at(schema, "items").filter(|i| i.is_object()) else {
        errors.required(&items_path, "must have a schema if x-kubernetes-list-type is map");
        return;
    };
    if text(items, "type") != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.invalid(&items_path.child("type"), text(items, "type"), why);
    }
    let required = array(items, "required");
    let mut seen: Vec<&Value> = Vec::new();
    for key in keys {
        if seen.contains(&key) {
            errors.invalid(&keys_path, keys.to_vec(), "must not contain duplicate entries");
        }
        seen.push(key);
        let name = key.as_str().unwrap_or("");
        let Some(property) = items.get("properties").and_then(|p| p.get(name)) else {
            errors.invalid(&keys_path, keys.to_vec(), "entries must all be names of item properties");
            continue;
        };
        let properties = items_path.child("properties");
        let place = properties.key(name);
        if matches!(text(property, "type"), "array" | "object") {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid(&place.child("type"), text(items, "type"), why);
        }
        if !required.contains(key) && property.get("default").is_none_or(Value::is_null) {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&place.child("default"), why);
        }
        if is_true(property, "nullable") {
            errors.forbidden(&place.child("nullable"), "this property is in x-kubernetes-list-map-keys, so it cannot be nullable");
        }
    }
}
