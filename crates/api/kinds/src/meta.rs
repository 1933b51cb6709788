//! The rules of `metadata`, for every kind: upstream's `ValidateObjectMeta` and `ValidateObjectMetaUpdate`.

use std::borrow::Cow;

use serde_json::{Map, Value};
use tiphys_meta::field::{FieldError, go_quote};
use tiphys_meta::names::{self, NameRule};
use tiphys_meta::{ErrorList, Path, object};

pub const FIELD_IMMUTABLE: &str = "field is immutable";
const ANNOTATIONS_MAX: usize = 256 * 1024;
const MANAGER_MAX: usize = 128;
const SUBRESOURCE_MAX: usize = 256;

const METADATA: Path<'static> = Path::new("metadata");

pub(crate) const NAMESPACED_FIELDS: &[&str] = &["metadata.name", "metadata.namespace"];
pub(crate) const CLUSTER_FIELDS: &[&str] = &["metadata.name"];

pub(crate) fn namespaced_fields(o: &Value) -> Vec<(&'static str, Cow<'_, str>)> {
    vec![("metadata.name", object::name(o).into()), ("metadata.namespace", object::namespace(o).into())]
}

pub(crate) fn cluster_fields(o: &Value) -> Vec<(&'static str, Cow<'_, str>)> {
    vec![("metadata.name", object::name(o).into())]
}

pub fn validate(o: &Value, namespaced: bool, name_rule: NameRule, errors: &mut ErrorList) {
    let empty = Map::new();
    let meta = o.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let text = |field: &str| meta.get(field).and_then(Value::as_str).unwrap_or("");
    let generate_name = text("generateName");
    if !generate_name.is_empty() {
        errors.invalid_all(&METADATA.child("generateName"), generate_name, name_rule(generate_name, true));
    }
    let name = text("name");
    if name.is_empty() {
        errors.required(&METADATA.child("name"), "name or generateName is required");
    } else {
        errors.invalid_all(&METADATA.child("name"), name, name_rule(name, false));
    }
    let (namespace, path) = (text("namespace"), METADATA.child("namespace"));
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.required(&path, ""),
        (true, false) => errors.invalid_all(&path, namespace, names::dns1123_label(namespace)),
        (false, false) => errors.forbidden(&path, "not allowed on this type"),
        (false, true) => {}
    }
    if let Some(generation) = meta.get("generation").and_then(Value::as_i64).filter(|g| *g < 0) {
        errors.invalid(&METADATA.child("generation"), generation, "must be greater than or equal to 0");
    }
    labels(meta.get("labels"), &METADATA.child("labels"), errors);
    annotations(meta.get("annotations"), &METADATA.child("annotations"), errors);
    owner_references(meta.get("ownerReferences"), &METADATA.child("ownerReferences"), errors);
    finalizers(meta.get("finalizers"), &METADATA.child("finalizers"), errors);
    managed_fields(meta.get("managedFields"), &METADATA.child("managedFields"), errors);
}

pub fn validate_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let field = |o: &Value, f: &str| o.get("metadata").and_then(|m| m.get(f)).cloned().unwrap_or(Value::Null);
    if object::deletion_timestamp(old).is_some() {
        no_new_finalizers(&field(new, "finalizers"), &field(old, "finalizers"), errors);
    }
    if object::resource_version(new).is_empty() {
        errors.invalid(&METADATA.child("resourceVersion"), "", "must be specified for an update");
    }
    let generation = |o: &Value| field(o, "generation").as_i64().unwrap_or(0);
    if generation(new) < generation(old) {
        errors.invalid(&METADATA.child("generation"), generation(new), "must not be decremented");
    }
    for name in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let value = field(new, name);
        if value != field(old, name) {
            let shown = if value.is_null() && matches!(name, "name" | "namespace" | "uid") { Value::from("") } else { value };
            errors.invalid(&METADATA.child(name), shown, FIELD_IMMUTABLE);
        }
    }
}

fn no_new_finalizers(new: &Value, old: &Value, errors: &mut ErrorList) {
    let known = strings(old);
    let mut extra: Vec<&str> = strings(new).into_iter().filter(|f| !known.contains(f)).collect();
    if extra.is_empty() {
        return;
    }
    extra.sort_unstable();
    extra.dedup();
    let quoted: Vec<String> = extra.iter().map(|f| go_quote(f)).collect();
    let why =
        format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}", quoted.join(", "));
    errors.forbidden(&METADATA.child("finalizers"), why);
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

pub fn labels(labels: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        errors.invalid_all(path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or("");
        errors.invalid_all(path, value, names::label_value(value));
    }
}

pub fn annotations(annotations: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        errors.invalid_all(path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.as_str().unwrap_or("").len();
    }
    if size > ANNOTATIONS_MAX {
        errors.too_long(path, ANNOTATIONS_MAX);
    }
}

fn owner_references(references: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    let mut controller: Option<String> = None;
    let all = references.unwrap_or(&Value::Null);
    for reference in all.as_array().into_iter().flatten() {
        owner_reference(reference, path, errors);
        if reference.get("controller") != Some(&Value::Bool(true)) {
            continue;
        }
        let text = |f: &str| reference.get(f).and_then(Value::as_str).unwrap_or("");
        let this = format!("{}/{}", text("kind"), text("name"));
        match &controller {
            None => controller = Some(this),
            Some(first) => {
                let why =
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}");
                errors.invalid(path, all.clone(), why);
            }
        }
    }
}

fn owner_reference(reference: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let text = |f: &str| reference.get(f).and_then(Value::as_str).unwrap_or("");
    let api_version = text("apiVersion");
    if api_version.rsplit('/').next().unwrap_or("").is_empty() {
        errors.invalid(&path.child("apiVersion"), api_version, "version must not be empty");
    }
    for field in ["kind", "name", "uid"] {
        if text(field).is_empty() {
            errors.invalid(&path.child(field), "", "must not be empty");
        }
    }
    if api_version == "v1" && text("kind") == "Event" {
        errors.invalid(path, reference.clone(), "/v1, Kind=Event is disallowed from being an owner");
    }
}

fn finalizers(list: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    let list = list.unwrap_or(&Value::Null);
    let all = strings(list);
    for finalizer in &all {
        errors.invalid_all(path, finalizer, names::qualified_name(finalizer));
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        errors.invalid(path, list.clone(), "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// Of the names without a domain, only Kubernetes' own may stand among the finalizers of its kinds.
pub(crate) fn qualified_finalizers(o: &Value, errors: &mut ErrorList) {
    let list = METADATA.child("finalizers");
    let own = ["kubernetes", "orphan", "foregroundDeletion"];
    let all = o.get("metadata").and_then(|m| m.get("finalizers")).unwrap_or(&Value::Null);
    for (i, finalizer) in strings(all).into_iter().enumerate() {
        if !finalizer.contains('/') && !own.contains(&finalizer) {
            errors.invalid(&list.index(i), finalizer, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}

fn managed_fields(list: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    for (i, entry) in list.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let path = path.index(i);
        let text = |f: &str| entry.get(f).and_then(Value::as_str).unwrap_or("");
        if !matches!(text("operation"), "Apply" | "Update") {
            errors.invalid(&path.child("operation"), text("operation"), "must be `Apply` or `Update`");
        }
        if !matches!(text("fieldsType"), "" | "FieldsV1") {
            errors.invalid(&path.child("fieldsType"), text("fieldsType"), "must be `FieldsV1`");
        }
        field_manager(text("manager"), &path.child("manager"), errors);
        if text("subresource").len() > SUBRESOURCE_MAX {
            errors.too_long(&path.child("subresource"), SUBRESOURCE_MAX);
        }
    }
}

/// The rules of a field manager's name, also for `?fieldManager=`.
pub fn field_manager(manager: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if manager.len() > MANAGER_MAX {
        errors.too_long(path, MANAGER_MAX);
    }
    for (i, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        errors.invalid(path, manager, format!("invalid character U+{:04X} (at position {i})", c as u32));
    }
}

/// Conditions of the common form (`metav1.Condition`): each type once, with a status, a reason and a time.
pub(crate) fn conditions(conditions: &[Value], list: &Path<'_>, errors: &mut ErrorList) {
    const REASON_MAX: usize = 1024;
    const MESSAGE_MAX: usize = 32 * 1024;
    let text = |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    for (i, condition) in conditions.iter().enumerate() {
        let path = list.index(i);
        let (kind, status, reason) = (text(condition, "type"), text(condition, "status"), text(condition, "reason"));
        if conditions[..i].iter().any(|other| text(other, "type") == kind) {
            errors.duplicate(&path.child("type"), kind.as_str());
        }
        errors.invalid_all(&path.child("type"), &kind, names::qualified_name(&kind));
        if !matches!(status.as_str(), "True" | "False" | "Unknown") {
            errors.not_supported(&path.child("status"), status, &["False", "True", "Unknown"]);
        }
        let generation = condition.get("observedGeneration").and_then(Value::as_i64).unwrap_or(0);
        if generation < 0 {
            errors.invalid(&path.child("observedGeneration"), generation, "must be greater than or equal to zero");
        }
        if text(condition, "lastTransitionTime").is_empty() {
            errors.required(&path.child("lastTransitionTime"), "");
        }
        if reason.is_empty() {
            errors.required(&path.child("reason"), "");
        } else {
            errors.invalid_all(&path.child("reason"), &reason, names::condition_reason(&reason));
            if reason.len() > REASON_MAX {
                errors.too_long(&path.child("reason"), REASON_MAX);
            }
        }
        if text(condition, "message").len() > MESSAGE_MAX {
            errors.too_long(&path.child("message"), MESSAGE_MAX);
        }
    }
}

/// `field is immutable` where the values differ.
pub fn immutable(new: Option<&Value>, old: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    let (new, old) = (new.unwrap_or(&Value::Null), old.unwrap_or(&Value::Null));
    if new != old {
        errors.push(FieldError::invalid(path, new.clone(), FIELD_IMMUTABLE));
    }
}
