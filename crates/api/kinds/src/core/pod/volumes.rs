//! Checks of volumes and of how containers mount them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, Quantity, names};

use super::containers::{field_ref, is_privileged, resource_field_ref};
use crate::tree::{array, at, int, is_true, text};

const MODE_MAX: i64 = 0o777;
const MODE_MESSAGE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const DOWNWARD_FIELDS: &[&str] = &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// The volumes that containers may mount, by name: those with nothing wrong about them.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

pub(super) fn volumes<'a>(spec: &'a Value, path: &Path<'_>, errors: &mut ErrorList) -> Volumes<'a> {
    let mut valid = Volumes::new();
    for (i, volume) in array(spec, "volumes").iter().enumerate() {
        let (path, name) = (path.index(i), text(volume, "name"));
        let before = errors.len();
        source(volume, &path, errors);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_all(&path.child("name"), name, names::dns1123_label(name));
        }
        if valid.contains_key(name) {
            errors.duplicate(&path.child("name"), name);
        }
        if errors.len() == before {
            valid.insert(name, volume);
        }
    }
    valid
}

fn source(volume: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let kinds: Vec<&String> =
        volume.as_object().into_iter().flatten().filter(|(k, v)| *k != "name" && !v.is_null()).map(|(k, _)| k).collect();
    let Some(first) = kinds.first() else {
        errors.required(path, "must specify a volume type");
        return;
    };
    for extra in &kinds[1..] {
        errors.forbidden(&path.child(extra), "may not specify more than 1 volume type");
    }
    let (kind, path) = (first.as_str(), path.child(first));
    let value = &volume[kind];
    match kind {
        "emptyDir" => empty_dir(value, &path, errors),
        "hostPath" => host_path(value, &path, errors),
        "secret" => {
            if text(value, "secretName").is_empty() {
                errors.required(&path.child("secretName"), "");
            }
            files(value, &path, errors);
        }
        "configMap" => {
            if text(value, "name").is_empty() {
                errors.required(&path.child("name"), "");
            }
            files(value, &path, errors);
        }
        "downwardAPI" => {
            mode(value, "defaultMode", &path, errors);
            downward(value, &path, errors);
        }
        "projected" => projected(value, &path, errors),
        "ephemeral" => match at(value, "volumeClaimTemplate.spec") {
            Some(spec) => {
                let metadata = path.child("volumeClaimTemplate.metadata");
                crate::meta::labels(at(value, "volumeClaimTemplate.metadata.labels"), &metadata.child("labels"), errors);
                crate::meta::annotations(at(value, "volumeClaimTemplate.metadata.annotations"), &metadata.child("annotations"), errors);
                crate::core::persistent_volume_claim::check_spec(spec, &path.child("volumeClaimTemplate.spec"), errors);
            }
            None => errors.required(&path.child("volumeClaimTemplate"), ""),
        },
        "csi" => crate::storage::driver_name(text(value, "driver"), &path.child("driver"), errors),
        "image" => {
            let pull = text(value, "pullPolicy");
            if !matches!(pull, "" | "Always" | "IfNotPresent" | "Never") {
                errors.not_supported(&path.child("pullPolicy"), pull, &["Always", "IfNotPresent", "Never"]);
            }
            crate::core::volume_source::check(kind, value, &path, errors);
        }
        other => crate::core::volume_source::check(other, value, &path, errors),
    }
}

fn empty_dir(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let limit = text(value, "sizeLimit");
    if Quantity::parse(limit).is_ok_and(|q| q.is_negative()) {
        errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn host_path(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    const TYPES: &[&str] = &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let host = text(value, "path");
    if host.is_empty() {
        errors.required(&path.child("path"), "");
        return;
    }
    no_backsteps(host, &path.child("path"), errors);
    let kind = text(value, "type");
    if !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, TYPES);
    }
}

/// `defaultMode` and `items` of secrets and config maps.
fn files(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    mode(value, "defaultMode", path, errors);
    items(value, &path.child("items"), errors);
}

fn items(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for (i, item) in array(value, "items").iter().enumerate() {
        let path = path.index(i);
        if text(item, "key").is_empty() {
            errors.required(&path.child("key"), "");
        }
        if text(item, "path").is_empty() {
            errors.required(&path.child("path"), "");
        }
        file_path(text(item, "path"), &path.child("path"), errors);
        mode(item, "mode", &path, errors);
    }
}

fn mode(value: &Value, field: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(mode) = at(value, field).and_then(Value::as_i64).filter(|m| !(0..=MODE_MAX).contains(m)) {
        errors.invalid(&path.child(field), mode, MODE_MESSAGE);
    }
}

fn downward(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    // Upstream names the volume in these, not the item.
    for item in array(value, "items") {
        if text(item, "path").is_empty() {
            errors.required(&path.child("path"), "");
        }
        file_path(text(item, "path"), &path.child("path"), errors);
        match (at(item, "fieldRef"), at(item, "resourceFieldRef")) {
            (Some(field), resource) => {
                field_ref(field, DOWNWARD_FIELDS, &path.child("fieldRef"), errors);
                if resource.is_some() {
                    errors.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
                }
            }
            (None, Some(resource)) => resource_field_ref(resource, true, &path.child("resourceFieldRef"), errors),
            (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
        }
        mode(item, "mode", path, errors);
    }
}

fn projected(value: &Value, volume_path: &Path<'_>, errors: &mut ErrorList) {
    let path = volume_path;
    mode(value, "defaultMode", path, errors);
    let list = path.child("sources");
    let mut paths: BTreeSet<String> = BTreeSet::new();
    for (i, source) in array(value, "sources").iter().enumerate() {
        let path = list.index(i);
        let kinds: Vec<&String> = source.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
        let Some(kind) = kinds.first() else { continue };
        if kinds.len() > 1 {
            errors.forbidden(&path, "may not specify more than 1 volume type per source");
        }
        let (part, path) = (&source[kind.as_str()], path.child(kind));
        match kind.as_str() {
            "secret" | "configMap" => {
                if text(part, "name").is_empty() {
                    errors.required(&path.child("name"), "");
                }
                items(part, &path.child("items"), errors);
            }
            "downwardAPI" => downward(part, &path, errors),
            "serviceAccountToken" => token(part, volume_path, &path, errors),
            _ => {}
        }
        // That two tokens have one path is only warned of.
        let bundle = (*kind == "clusterTrustBundle").then(|| text(part, "path"));
        let own = array(part, "items").iter().map(|item| text(item, "path")).filter(|p| !p.is_empty()).chain(bundle);
        for file in own {
            if !paths.insert(file.to_owned()) {
                let shown = match text(part, "name") {
                    "" => file,
                    name => name,
                };
                errors.invalid(volume_path, shown, "conflicting duplicate paths");
            }
        }
    }
}

/// Upstream names the volume, not the source, in what it says about the path.
fn token(part: &Value, volume_path: &Path<'_>, path: &Path<'_>, errors: &mut ErrorList) {
    let seconds = int(part, "expirationSeconds");
    if seconds < 600 {
        errors.invalid(&path.child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        errors.invalid(&path.child("expirationSeconds"), seconds, "may not specify a duration larger than 2^32 seconds");
    }
    let file = text(part, "path");
    if file.is_empty() {
        errors.required(&volume_path.child("path"), "");
    } else {
        file_path(file, &volume_path.child("path"), errors);
    }
}

/// Relative, and never upwards.
pub(super) fn local_path(value: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    no_backsteps(value, path, errors);
}

/// The same for files in a volume, whose names beginning with `..` are the writer's own.
fn file_path(value: &str, path: &Path<'_>, errors: &mut ErrorList) {
    local_path(value, path, errors);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.invalid(path, value, "must not start with '..'");
    }
}

fn no_backsteps(value: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if value.split('/').any(|step| step == "..") {
        errors.invalid(path, value, "must not contain '..'");
    }
}

/// `volumeMounts` and `volumeDevices` of one container.
pub(super) fn mounts(container: &Value, volumes: &Volumes<'_>, path: &Path<'_>, errors: &mut ErrorList) {
    let devices = array(container, "volumeDevices");
    let mounts = array(container, "volumeMounts");
    let list = path.child("volumeMounts");
    let mut points = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let (path, name, point) = (list.index(i), text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if !volumes.contains_key(name) {
            errors.not_found(&path.child("name"), name);
        }
        if point.is_empty() {
            errors.required(&path.child("mountPath"), "");
        }
        if !points.insert(point) {
            errors.invalid(&path.child("mountPath"), point, "must be unique");
        }
        if devices.iter().any(|d| text(d, "name") == name) {
            errors.invalid(&path.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|d| text(d, "devicePath") == point) {
            errors.invalid(&path.child("mountPath"), point, "must not already exist as a path in volumeDevices");
        }
        // Upstream names the list, not the mount, in these.
        sub_paths(mount, &list, &path, errors);
        propagation(mount, container, &list, errors);
    }
    check_devices(devices, mounts, volumes, &path.child("volumeDevices"), errors);
}

fn sub_paths(mount: &Value, list: &Path<'_>, path: &Path<'_>, errors: &mut ErrorList) {
    let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    if !sub.is_empty() {
        local_path(sub, &list.child("subPath"), errors);
    }
    if !expression.is_empty() {
        if !sub.is_empty() {
            errors.invalid(&path.child("subPathExpr"), expression, "subPathExpr and subPath are mutually exclusive");
        }
        local_path(expression, &list.child("subPathExpr"), errors);
    }
}

fn propagation(mount: &Value, container: &Value, list: &Path<'_>, errors: &mut ErrorList) {
    let mode = text(mount, "mountPropagation");
    let path = list.child("mountPropagation");
    match mode {
        "None" | "HostToContainer" => {}
        "" if at(mount, "mountPropagation").is_none() => {}
        "Bidirectional" if is_privileged(container) => {}
        "Bidirectional" => errors.forbidden(&path, "Bidirectional mount propagation is available only to privileged containers"),
        other => errors.not_supported(&path, other, &["Bidirectional", "HostToContainer", "None"]),
    }
    let path = list.child("recursiveReadOnly");
    match text(mount, "recursiveReadOnly") {
        "" | "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !is_true(mount, "readOnly") {
                errors.forbidden(&path, "may only be specified when readOnly is true");
            }
            if !matches!(mode, "" | "None") {
                errors.forbidden(&path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        other => errors.not_supported(&path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn check_devices(devices: &[Value], mounts: &[Value], volumes: &Volumes<'_>, list: &Path<'_>, errors: &mut ErrorList) {
    for (i, device) in devices.iter().enumerate() {
        let (path, name, point) = (list.index(i), text(device, "name"), text(device, "devicePath"));
        let earlier = &devices[..i];
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if earlier.iter().any(|d| text(d, "name") == name) {
            errors.invalid(&path.child("name"), name, "must be unique");
        }
        match volumes.get(name) {
            None => errors.not_found(&path.child("name"), name),
            Some(v) if at(v, "persistentVolumeClaim").is_none() && at(v, "ephemeral").is_none() => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&path.child("name"), name, why);
            }
            Some(_) => {}
        }
        if point.is_empty() {
            errors.required(&path.child("devicePath"), "");
        }
        if earlier.iter().any(|d| text(d, "devicePath") == point) {
            errors.invalid(&path.child("devicePath"), point, "must be unique");
        }
        if point.split('/').any(|step| step == "..") {
            errors.invalid(&path.child("devicePath"), point, "can not contain backsteps ('..')");
        }
        if mounts.iter().any(|m| text(m, "name") == name) {
            errors.invalid(&path.child("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|m| text(m, "mountPath") == point) {
            errors.invalid(&path.child("devicePath"), point, "must not already exist as a path in volumeMounts");
        }
    }
}
