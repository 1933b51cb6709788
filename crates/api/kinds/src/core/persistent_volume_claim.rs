//! PersistentVolumeClaim: a request for storage. Once made, only the size may grow and the attributes class change.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, Quantity, names, object};
use tiphys_types::jiff::Timestamp;

use super::resource_list;
use crate::strategy::{Column, Ctx, Strategy};
use crate::table::{AGE, NAME, age, column, wide};
use crate::tree::{array, at, child, map_at, one_of, set_absent, set_default, text};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    .status(r#"{"phase":"Pending"}"#)
    .defaults(defaults)
    .on_create(|o, _| {
        let spec = child(o, "spec");
        drop_strange_source(spec);
        data_sources(spec);
    })
    .on_update(on_update)
    .checks(check, check_update)
    .warnings_by(warnings)
    .table(COLUMNS, cells);

pub(crate) const ACCESS_MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

pub(crate) fn defaults(o: &mut Value) {
    set_default(child(o, "status"), "phase", "Pending");
    spec_defaults(child(o, "spec"));
    if let Some(status) = crate::tree::present(o, "status") {
        resource_list::round(status.get_mut("capacity"));
        resource_list::round(status.get_mut("allocatedResources"));
    }
}

pub(crate) fn spec_defaults(spec: &mut Value) {
    set_absent(spec, "volumeMode", "Filesystem");
    resource_list::round_requirements(spec.get_mut("resources"));
}

fn on_update(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    let spec = child(new, "spec");
    if at(old, "spec.dataSource").is_none() && at(old, "spec.dataSourceRef").is_none() {
        drop_strange_source(spec);
    }
    data_sources(spec);
}

fn is_claim_or_snapshot(source: &Value) -> bool {
    matches!(
        (text(source, "apiGroup"), text(source, "kind")),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    )
}

/// The old field always passed over what it did not know, and still does (KEP-1495).
fn drop_strange_source(spec: &mut Value) {
    let strange = at(spec, "dataSource").is_some_and(|source| !is_claim_or_snapshot(source));
    if strange && at(spec, "dataSourceRef").is_none() {
        crate::tree::remove(spec, "dataSource");
    }
}

fn warnings(new: &Value, _: Option<&Value>) -> Vec<String> {
    const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    let mut all = Vec::new();
    if object::annotations(new).any(|(key, _)| key == CLASS) {
        all.push(format!("metadata.annotations[{CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"));
    }
    for list in ["requests", "limits"] {
        let amount = at(new, "spec.resources").and_then(|r| map_at(r, list)).and_then(|m| m.get("storage")).and_then(Value::as_str);
        if let Some(amount) = amount.filter(|a| a.ends_with('m')) {
            all.push(format!("spec.resources.{list}[storage]: fractional byte value \"{amount}\" is invalid, must be an integer"));
        }
    }
    all
}

/// `dataSource` and `dataSourceRef` (KEP-1495) say the same, unless the reference crosses namespaces or names what the old field cannot.
fn data_sources(spec: &mut Value) {
    let (old, new) = (at(spec, "dataSource").cloned(), at(spec, "dataSourceRef").cloned());
    match (old, new) {
        (Some(source), None) => spec["dataSourceRef"] = source,
        (None, Some(mut reference)) if text(&reference, "namespace").is_empty() => {
            crate::tree::remove(&mut reference, "namespace");
            spec["dataSource"] = reference;
        }
        _ => {}
    }
}

pub(crate) fn check(o: &Value, errors: &mut ErrorList) {
    check_spec(at(o, "spec").unwrap_or(&Value::Null), &Path::new("spec"), errors);
}

pub(crate) fn check_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let modes = array(spec, "accessModes");
    if modes.is_empty() {
        errors.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    if let Some(selector) = at(spec, "selector") {
        crate::selectors::check(Some(selector), &path.child("selector"), errors);
    }
    check_modes(modes, &path.child("accessModes"), errors);
    let requests = at(spec, "resources.requests");
    match requests.and_then(|r| r.get("storage")) {
        None => errors.required(&path.child("resources").key("storage"), ""),
        Some(_) => super::pod::resources::check_positive(requests, &path.child("resources"), errors),
    }
    if let Some(class) = at(spec, "storageClassName").and_then(Value::as_str).filter(|c| !c.is_empty()) {
        errors.invalid_all(&path.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    one_of(at(spec, "volumeMode"), &["Block", "Filesystem"], &path.child("volumeMode"), errors);
    check_sources(spec, path, errors);
}

fn check_sources(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["dataSource", "dataSourceRef"] {
        let Some(source) = at(spec, field) else { continue };
        let (path, group, kind) = (path.child(field), text(source, "apiGroup"), text(source, "kind"));
        for part in ["name", "kind"] {
            if text(source, part).is_empty() {
                errors.required(&path.child(part), "");
            }
        }
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            errors.invalid(&path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
        }
        if !group.is_empty() {
            errors.invalid_all(&path.child("apiGroup"), group, names::dns1123_subdomain(group));
        }
        let namespace = text(source, "namespace");
        if !namespace.is_empty() {
            errors.invalid_all(&path.child("namespace"), namespace, names::dns1123_label(namespace));
        }
    }
    let (Some(source), Some(reference)) = (at(spec, "dataSource"), at(spec, "dataSourceRef")) else { return };
    if !text(reference, "namespace").is_empty() {
        errors.invalid(path, json!({}), "may not be specified when dataSourceRef.namespace is specified");
    } else if ["apiGroup", "kind", "name"].iter().any(|f| text(source, f) != text(reference, f)) {
        errors.invalid(path, json!({}), "must match dataSourceRef");
    }
}

pub(crate) fn check_modes(modes: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    let names: Vec<&str> = ACCESS_MODES.iter().map(|(name, _)| *name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    for mode in modes.iter().filter_map(Value::as_str).filter(|m| !names.contains(m)) {
        errors.not_supported(path, mode, &sorted);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    let sized = text(old, "status.phase") == "Bound" && at(new, "spec.resources.requests").is_some();
    let frozen = |o: &Value, keep_volume: bool| {
        let mut spec = at(o, "spec").cloned().unwrap_or(json!({}));
        crate::tree::remove(&mut spec, "volumeAttributesClassName");
        if !keep_volume {
            crate::tree::remove(&mut spec, "volumeName");
        }
        // Only a bound claim can grow.
        if sized && let Some(requests) = crate::tree::at_mut(&mut spec, "resources.requests") {
            crate::tree::remove(requests, "storage");
        }
        crate::tree::prune_empty(&mut spec);
        spec
    };
    let bound = !text(old, "spec.volumeName").is_empty();
    let class_set_late = at(old, "spec.storageClassName").is_none() && at(new, "spec.storageClassName").is_some();
    let mut after = frozen(new, bound);
    if class_set_late {
        crate::tree::remove(&mut after, "storageClassName");
    }
    if after != frozen(old, bound) {
        errors
            .forbidden(&spec, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims");
    }
    crate::meta::immutable(at(new, "spec.volumeMode"), at(old, "spec.volumeMode"), &Path::new("volumeMode"), errors);
    let size = |o: &Value| {
        let text = map_at(o, "spec.resources.requests").and_then(|r| r.get("storage")).and_then(Value::as_str);
        text.and_then(|t| Quantity::parse(t).ok()).unwrap_or(Quantity::ZERO)
    };
    if size(new) < size(old) {
        let bound_at = map_at(new, "status.capacity").and_then(|c| c.get("storage")).and_then(Value::as_str);
        let capacity = bound_at.and_then(|t| Quantity::parse(t).ok()).unwrap_or(Quantity::ZERO);
        // KEP-1790: a failed expansion may be taken back, never below what is there.
        if size(new) <= capacity {
            errors.forbidden(&spec.child("resources.requests.storage"), "field can not be less than status.capacity");
        }
    }
}

/// `RWO,ROX`, each once, in order.
pub(crate) fn access_modes(modes: &[Value]) -> String {
    let has = |name: &str| modes.iter().any(|m| m == name);
    ACCESS_MODES.iter().filter(|(name, _)| has(name)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The storage class; the beta annotation decides where it is still used.
pub(crate) fn class(o: &Value) -> &str {
    let annotated = object::annotations(o).find(|(k, _)| *k == "volume.beta.kubernetes.io/storage-class").map(|(_, v)| v);
    annotated.unwrap_or_else(|| text(o, "spec.storageClassName"))
}

const COLUMNS: &[Column] = &[
    NAME,
    column("Status"),
    column("Volume"),
    column("Capacity"),
    column("Access Modes"),
    column("StorageClass"),
    column("VolumeAttributesClass"),
    AGE,
    wide("VolumeMode"),
];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let phase = if object::deletion_timestamp(o).is_some() { "Terminating" } else { text(o, "status.phase") };
    let volume = text(o, "spec.volumeName");
    let (mut capacity, mut modes) = ("", String::new());
    if !volume.is_empty() {
        modes = access_modes(array(o, "status.accessModes"));
        capacity = map_at(o, "status.capacity").and_then(|c| c.get("storage")).and_then(Value::as_str).unwrap_or("0");
    }
    let or_unset = |field: &str| at(o, field).and_then(Value::as_str).unwrap_or("<unset>");
    vec![
        object::name(o).into(),
        phase.into(),
        volume.into(),
        capacity.into(),
        modes.into(),
        class(o).into(),
        or_unset("spec.volumeAttributesClassName").into(),
        age(o, now),
        or_unset("spec.volumeMode").into(),
    ]
}
