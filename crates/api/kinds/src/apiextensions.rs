//! `apiextensions.k8s.io`: CustomResourceDefinition. Its schema is checked for being there and structural in the large; the engine that applies it
//! (schema crate) says what it cannot use.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};

use crate::resources::Entry;
use crate::strategy::{Strategy, Subresource, keep_all_but_status, nothing_on_update};
use crate::tree::{array, at, child, is_true, present, set_absent, set_default, text};
use crate::workloads::SPEC;

static CRD: Strategy = Strategy::new(false)
    .spec_generation()
    .status(r#"{"acceptedNames":{"kind":"","plural":""},"conditions":null,"storedVersions":null}"#)
    .unconditional_update(false)
    .defaults(defaults)
    .on_create(|o, _| stored_versions(o))
    .subresources(&[Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: nothing_on_update }])
    .checks(check, check_update)
    .check_created(check_name);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("customresourcedefinitions", &CRD)];

fn defaults(o: &mut Value) {
    let spec = child(o, "spec");
    let names = child(spec, "names");
    let kind = text(names, "kind").to_owned();
    if !kind.is_empty() {
        set_default(names, "singular", kind.to_lowercase());
        set_default(names, "listKind", format!("{kind}List"));
    }
    set_absent(spec, "conversion", json!({"strategy": "None"}));
    let service = present(spec, "conversion").and_then(|c| present(c, "webhook")).and_then(|w| present(w, "clientConfig"));
    if let Some(service) = service.and_then(|c| present(c, "service")) {
        set_absent(service, "port", 443);
    }
    if o.get("status").is_some_and(|s| !s.is_null()) {
        stored_versions(o);
    }
}

/// The versions that objects are stored in begin with the storage version.
fn stored_versions(o: &mut Value) {
    if !array(o, "status.storedVersions").is_empty() {
        return;
    }
    let storage = array(o, "spec.versions").iter().find(|v| is_true(v, "storage")).map(|v| text(v, "name").to_owned());
    if let Some(version) = storage {
        child(o, "status")["storedVersions"] = json!([version]);
    }
}

fn check(o: &Value, errors: &mut ErrorList) {
    check_group(text(o, "spec.group"), errors);
    let scope = text(o, "spec.scope");
    match scope {
        "Cluster" | "Namespaced" => {}
        "" => errors.required(&SPEC.child("scope"), ""),
        other => errors.not_supported(&SPEC.child("scope"), other, &["Cluster", "Namespaced"]),
    }
    check_versions(o, errors);
    check_names(at(o, "spec.names").unwrap_or(&Value::Null), &SPEC.child("names"), errors);
    check_conversion(o, errors);
}

/// Upstream says this first.
fn check_name(o: &Value, errors: &mut ErrorList) {
    let wanted = format!("{}.{}", text(o, "spec.names.plural"), text(o, "spec.group"));
    if object::name(o) != wanted {
        let rest = std::mem::take(errors);
        errors.invalid(&Path::new("metadata").child("name"), object::name(o), "must be spec.names.plural+\".\"+spec.group");
        errors.append(rest);
    }
}

fn check_group(group: &str, errors: &mut ErrorList) {
    let path = SPEC.child("group");
    if group.is_empty() {
        errors.required(&path, "");
        return;
    }
    let messages = names::dns1123_subdomain(group);
    if !messages.is_empty() {
        errors.invalid(&path, group, messages.join(","));
    } else if !group.contains('.') {
        errors.invalid(&path, group, "should be a domain with at least one dot");
    }
}

fn check_versions(o: &Value, errors: &mut ErrorList) {
    let (versions, list) = (array(o, "spec.versions"), SPEC.child("versions"));
    let mut seen = BTreeSet::new();
    // A schema that all versions share is one of the definition's own, inside upstream; the paths say so.
    let schema_of = |v: &Value| at(v, "schema.openAPIV3Schema").cloned();
    let shared = versions.iter().all(|v| schema_of(v).is_some() && schema_of(v) == versions.first().and_then(schema_of));
    for (i, version) in versions.iter().enumerate() {
        let (path, name) = (list.index(i), text(version, "name"));
        let messages = names::dns1035_label(name);
        if !messages.is_empty() {
            errors.invalid(&path.child("name"), name, messages.join(","));
        }
        seen.insert(name);
        match at(version, "schema.openAPIV3Schema") {
            None => errors.required(&path.child("schema.openAPIV3Schema"), ""),
            Some(_) if shared => {}
            Some(schema) => check_schema(schema, &path.child("schema.openAPIV3Schema"), errors),
        }
    }
    if let Some(schema) = versions.first().and_then(|v| at(v, "schema.openAPIV3Schema")).filter(|_| shared) {
        check_schema(schema, &SPEC.child("validation.openAPIV3Schema"), errors);
    }
    if seen.len() < versions.len() {
        errors.invalid(&list, json!(versions), "must contain unique version names");
    }
    let storage = versions.iter().filter(|v| is_true(v, "storage")).count();
    if storage != 1 {
        errors.invalid(&list, json!(versions), "must have exactly one version marked as storage version");
    }
    if let Some(first) = versions.first().map(|v| text(v, "name")) {
        let messages = names::dns1035_label(first);
        if !messages.is_empty() {
            errors.invalid(&SPEC.child("version"), first, messages.join(","));
        }
    }
    if array(o, "status.storedVersions").is_empty() {
        errors.invalid(&Path::new("status.storedVersions"), Value::Null, "must have at least one stored version");
    }
    let stored = Path::new("status.storedVersions");
    for (i, version) in array(o, "status.storedVersions").iter().enumerate() {
        if !versions.iter().any(|v| v.get("name") == Some(version)) {
            let name = version.as_str().unwrap_or("");
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.invalid(&stored.index(i), name, why);
        }
    }
}

/// The root says that objects are objects, and keeps `metadata` for the server.
fn check_schema(schema: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match text(schema, "type") {
        "object" => {}
        "" => errors.required(&path.child("type"), "must not be empty at the root"),
        other => errors.invalid(&path.child("type"), other, "must be object at the root"),
    }
    structural(schema, path, Level::Root, errors);
    vocabulary(schema, path, errors);
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
    junctors(schema, both && either_type(schema), both && array(schema, "allOf").first().is_some_and(either_type), path, errors);
    if kind.is_empty() && !both && !is_true(schema, "x-kubernetes-preserve-unknown-fields") {
        let why = match level {
            Level::Root => return, // said by `check_schema`
            Level::Field => "must not be empty for specified object fields",
            Level::Item => "must not be empty for specified array items",
        };
        errors.required(&path.child("type"), why);
    }
}

/// `anyOf` an integer or a string, which `x-kubernetes-int-or-string` may have beside it.
fn either_type(schema: &Value) -> bool {
    at(schema, "anyOf") == Some(&json!([{"type": "integer"}, {"type": "string"}]))
}

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
    let list = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    if let Some(list) = list.filter(|l| !LIST_TYPES.contains(l)) {
        errors.not_supported(&path.child("x-kubernetes-list-type"), list, &LIST_TYPES);
    }
    for (i, rule) in array(schema, "x-kubernetes-validations").iter().enumerate() {
        if text(rule, "rule").trim().is_empty() {
            let rules = path.child("x-kubernetes-validations");
            errors.required(&rules.index(i).child("rule"), "rule is not specified");
        }
    }
}

fn check_names(given: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    const NAMES: [&str; 4] = ["plural", "singular", "kind", "listKind"];
    for field in NAMES.into_iter().filter(|field| text(given, field).is_empty()) {
        errors.required(&path.child(field), "");
    }
    for field in NAMES {
        let value = text(given, field);
        if value.is_empty() {
            continue;
        }
        let lower = value.to_lowercase();
        let messages = names::dns1035_label(if matches!(field, "kind" | "listKind") { &lower } else { value });
        if !messages.is_empty() {
            let note = if matches!(field, "kind" | "listKind") { "may have mixed case, but should otherwise match: " } else { "" };
            errors.invalid(&path.child(field), value, format!("{note}{}", messages.join(",")));
        }
    }
    for field in ["shortNames", "categories"] {
        for (i, name) in array(given, field).iter().filter_map(Value::as_str).enumerate() {
            let messages = names::dns1035_label(name);
            if !messages.is_empty() {
                errors.invalid(&path.child(field).index(i), name, messages.join(","));
            }
        }
    }
    if !text(given, "kind").is_empty() && text(given, "kind") == text(given, "listKind") {
        errors.invalid(&path.child("listKind"), text(given, "listKind"), "kind and listKind may not be the same");
    }
}

fn check_conversion(o: &Value, errors: &mut ErrorList) {
    let path = SPEC.child("conversion");
    let webhook = at(o, "spec.conversion.webhook");
    match text(o, "spec.conversion.strategy") {
        "None" if webhook.is_some() => {
            errors.forbidden(&path.child("webhook"), "should not be set when strategy is not set to Webhook");
        }
        "None" => {}
        "Webhook" => match webhook {
            None => {
                errors.required(&path.child("webhookClientConfig"), "required when strategy is set to Webhook");
                errors.required(&path.child("conversionReviewVersions"), "");
            }
            Some(webhook) => {
                let config_path = path.child("webhookClientConfig");
                match at(webhook, "clientConfig") {
                    None => errors.required(&config_path, "required when strategy is set to Webhook"),
                    Some(config) => crate::admissionregistration::client_config(config, &config_path, errors),
                }
                if array(webhook, "conversionReviewVersions").is_empty() {
                    errors.required(&path.child("conversionReviewVersions"), "");
                }
            }
        },
        "" => errors.required(&path.child("strategy"), ""),
        other => errors.not_supported(&path.child("strategy"), other, &["None", "Webhook"]),
    }
}

/// Once established, what objects are called and where they live stays.
fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let established = array(old, "status.conditions").iter().any(|c| text(c, "type") == "Established" && text(c, "status") == "True");
    for field in ["group", "scope"] {
        if field == "group" || established {
            let path = format!("spec.{field}");
            crate::meta::immutable(at(new, &path), at(old, &path), &SPEC.child(field), errors);
        }
    }
    for field in ["plural", "kind"] {
        let path = format!("spec.names.{field}");
        if field == "plural" || established {
            crate::meta::immutable(at(new, &path), at(old, &path), &SPEC.child("names").child(field), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::tests::ctx;

    #[test]
    fn a_minimal_definition() {
        let mut o = json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
        CRD.default(&mut o);
        CRD.prepare_create(&mut o, &ctx());
        let errors = CRD.validate_create(&o);
        assert!(errors.is_empty(), "{}", errors.message());
        assert_eq!(o["spec"]["names"]["listKind"], "FooList");
        assert_eq!(o["status"]["storedVersions"], json!(["v1"]));
        o["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] = json!({"a": {}});
        assert_eq!(
            CRD.validate_create(&o).message(),
            "spec.validation.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields"
        );
    }
}
