//! `apiextensions.k8s.io`: CustomResourceDefinition. [`schema`]: whether schemas are structural and say what makes sense; [`parts`]: columns,
//! subresources, selectable fields.
//!
//! Deliberately absent: warnings about unknown formats.

mod parts;
mod schema;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tiphys_cel::crd_rules;
use tiphys_meta::{ErrorList, Path, names, object};

use crate::resources::Entry;
use crate::strategy::{Strategy, Subresource, keep_all_but_status, nothing_on_update};
use crate::tree::{array, at, child, is_true, present, said, set_absent, set_default, text};
use crate::workloads::SPEC;

static CRD: Strategy = Strategy::new(false)
    .spec_generation()
    .status(r#"{"acceptedNames":{"kind":"","plural":""},"conditions":null,"storedVersions":null}"#)
    .unconditional_update(false)
    .defaults(defaults)
    .on_create(|o, _| stored_versions(o))
    .on_update(|o, _, _| remember_storage_version(o))
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

/// Objects may be stored in every version that ever was the storage version.
fn remember_storage_version(o: &mut Value) {
    let storage = array(o, "spec.versions").iter().find(|v| is_true(v, "storage")).map(|v| v["name"].clone());
    let Some(storage) = storage.filter(|s| !array(o, "status.storedVersions").contains(s)) else { return };
    let stored = &mut child(o, "status")["storedVersions"];
    match stored.as_array_mut() {
        Some(list) => list.push(storage),
        None => *stored = json!([storage]),
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

/// The rules in CEL of all versions. A schema that was there before may cost what it did.
fn check_rules(o: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let (versions, list) = (array(o, "spec.versions"), SPEC.child("versions"));
    let of = |v: &Value| at(v, "schema.openAPIV3Schema").cloned();
    let before: Vec<Option<Value>> = old.map(|old| array(old, "spec.versions").iter().map(of).collect()).unwrap_or_default();
    let shared = versions.iter().all(|v| of(v) == versions.first().and_then(of));
    for (i, version) in versions.iter().enumerate().filter(|(i, _)| *i == 0 || !shared) {
        let Some(schema) = of(version) else { continue };
        let of_version = list.index(i);
        let path = if shared { SPEC.child("validation.openAPIV3Schema") } else { of_version.child("schema.openAPIV3Schema") };
        let unchanged = before.iter().flatten().any(|b| *b == schema);
        let wrong = schema::wrong(&schema, &path);
        errors.append(crd_rules::check(&schema, &path, unchanged, wrong.as_deref()));
    }
}

/// Only a name under `k8s.io` that is new, or whose approval changed, has to be approved (KEP-2337).
fn check_approval(o: &Value, errors: &mut ErrorList) {
    const APPROVED: &str = "api-approved.kubernetes.io";
    let group = text(o, "spec.group");
    let protected = ["k8s.io", "kubernetes.io"].iter().any(|d| group == *d || group.strip_suffix(d).is_some_and(|g| g.ends_with('.')));
    let approval = approval(o);
    let metadata = Path::new("metadata");
    let annotations = metadata.child("annotations");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let must = format!("protected groups must have approval annotation \"{APPROVED}\"");
    match () {
        () if !protected => {}
        () if approval.is_empty() => errors.required(&annotations.key(APPROVED), format!("{must}, {see}")),
        () if approval.starts_with("unapproved") || is_address(approval) => {}
        () => {
            let why = format!("{must} with either a URL or a reason starting with \"unapproved\", {see}");
            errors.invalid(&annotations.key(APPROVED), approval, why);
        }
    }
}

fn approval(o: &Value) -> &str {
    object::annotations(o).find(|(name, _)| *name == "api-approved.kubernetes.io").map_or("", |(_, text)| text)
}

fn is_address(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.split('/').next().unwrap_or("").is_empty())
}

fn check_preserve(o: &Value, errors: &mut ErrorList) {
    if at(o, "spec.preserveUnknownFields") == Some(&Value::Bool(true)) {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&SPEC.child("preserveUnknownFields"), true, why);
    }
}

/// Upstream says this first.
fn check_name(o: &Value, errors: &mut ErrorList) {
    check_rules(o, None, errors);
    check_approval(o, errors);
    check_preserve(o, errors);
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

fn check_warning(warning: &str, deprecated: bool, path: &Path<'_>, errors: &mut ErrorList) {
    if !deprecated {
        errors.invalid(path, warning, "can only be set for deprecated versions");
    }
    if warning.is_empty() {
        errors.invalid(path, warning, "must not be an empty string");
    }
    if warning.len() > 256 {
        errors.invalid(path, warning, "must be <= 256 characters long");
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!("must only contain printable UTF-8 characters; non-printable character found at index {at}");
        errors.invalid(path, warning, why);
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
        if let Some(warning) = said(version, "deprecationWarning") {
            check_warning(warning, is_true(version, "deprecated"), &path.child("deprecationWarning"), errors);
        }
        match at(version, "schema.openAPIV3Schema") {
            None => errors.required(&path.child("schema.openAPIV3Schema"), ""),
            Some(_) if shared => {}
            Some(of) => {
                let path = path.child("schema.openAPIV3Schema");
                if has_status(version) {
                    schema::root_with_status(of, &path, errors);
                }
                schema::check(of, &path, errors);
            }
        }
    }
    parts::check(versions, errors);
    if let Some(schema) = versions.first().and_then(|v| at(v, "schema.openAPIV3Schema")).filter(|_| shared) {
        let path = SPEC.child("validation.openAPIV3Schema");
        if versions.iter().any(has_status) {
            schema::root_with_status(schema, &path, errors);
        }
        schema::check(schema, &path, errors);
    }
    let defaults = |v: &Value| at(v, "schema.openAPIV3Schema").is_some_and(schema::has_defaults);
    if is_true(o, "spec.preserveUnknownFields") && versions.iter().any(defaults) {
        errors.invalid(&SPEC.child("preserveUnknownFields"), true, "must be false in order to use defaults in the schema");
    }
    if seen.len() < versions.len() {
        errors.invalid(&list, json!(versions), "must contain unique version names");
    }
    let storage = versions.iter().filter(|v| is_true(v, "storage")).count();
    if storage != 1 {
        errors.invalid(&list, json!(versions), "must have exactly one version marked as storage version");
    }
    if let Some(first) = versions.first().map(|v| text(v, "name")).filter(|name| !name.is_empty()) {
        let messages = names::dns1035_label(first);
        if !messages.is_empty() {
            errors.invalid(&SPEC.child("version"), first, messages.join(","));
        }
    }
    check_stored(o, errors);
}

fn has_status(version: &Value) -> bool {
    at(version, "subresources.status").is_some()
}

/// Every version that ever was the storage version is still there, and the present one is among them.
fn check_stored(o: &Value, errors: &mut ErrorList) {
    let (versions, all) = (array(o, "spec.versions"), array(o, "status.storedVersions"));
    let stored = Path::new("status.storedVersions");
    if all.is_empty() {
        return errors.invalid(&stored, Value::Null, "must have at least one stored version");
    }
    let mut left: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
    for version in versions {
        let name = text(version, "name");
        let known = left.contains(&name);
        if is_true(version, "storage") && !known {
            errors.invalid(&stored, json!(all), format!("must have the storage version {name}"));
        }
        left.retain(|l| *l != name);
    }
    for (i, version) in all.iter().enumerate() {
        if !versions.iter().any(|v| v.get("name") == Some(version)) {
            let name = version.as_str().unwrap_or("");
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.invalid(&stored.index(i), name, why);
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
    check_rules(new, Some(old), errors);
    if approval(new) != approval(old) {
        check_approval(new, errors);
    }
    if at(old, "spec.preserveUnknownFields") != Some(&Value::Bool(true)) {
        check_preserve(new, errors);
    }
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
        o["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] = json!({"a": {"type": "string", "pattern": "+"}});
        assert_eq!(
            CRD.validate_create(&o).message(),
            "spec.validation.openAPIV3Schema.properties[a].pattern: Invalid value: \"+\": must be a valid regular expression, but isn't: \
             error parsing regexp: missing argument to repetition operator: `+`"
        );
    }
}
