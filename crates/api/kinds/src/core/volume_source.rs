//! Checks of the volume sources that pods and PersistentVolumes name alike: most want a few fields set.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path};

use crate::tree::{array, at, int, is_true, map_at, text};

const PARTITION: &str = "must be between 0 and 255, inclusive";
const HOST_PORT: &str = "must be a host:port pair or multiple pairs separated by commas";

/// The fields a source cannot do without.
fn required(kind: &str) -> &'static [&'static str] {
    match kind {
        "gitRepo" => &["repository"],
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "portworxVolume" | "cinder" => &["volumeID"],
        "persistentVolumeClaim" => &["claimName"],
        "glusterfs" => &["endpoints", "path"],
        "flexVolume" => &["driver"],
        "azureFile" => &["secretName", "shareName"],
        "azureDisk" => &["diskName", "diskURI"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        "nfs" => &["server", "path"],
        "iscsi" => &["targetPortal", "iqn"],
        "image" => &["reference"],
        _ => &[],
    }
}

pub(crate) fn check(kind: &str, value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in required(kind).iter().filter(|f| text(value, f).is_empty()) {
        errors.required(&path.child(field), "");
    }
    match kind {
        "nfs" if !text(value, "path").starts_with('/') => {
            errors.invalid(&path.child("path"), text(value, "path"), "must be an absolute path");
        }
        "gcePersistentDisk" | "awsElasticBlockStore" if !(0..=255).contains(&int(value, "partition")) => {
            errors.invalid(&path.child("partition"), int(value, "partition"), PARTITION);
        }
        "rbd" | "cephfs" => {
            if array(value, "monitors").is_empty() {
                errors.required(&path.child("monitors"), "");
            }
            if kind == "rbd" && text(value, "image").is_empty() {
                errors.required(&path.child("image"), "");
            }
        }
        "iscsi" => iscsi(value, path, errors),
        "fc" => fibre(value, path, errors),
        "flexVolume" => flex_options(value, &path.child("options"), errors),
        "flocker" => flocker(value, path, errors),
        "quobyte" => quobyte(value, path, errors),
        _ => {}
    }
}

fn iscsi(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let name = text(value, "iqn");
    if !name.is_empty() && !["iqn", "eui", "naa"].iter().any(|start| name.starts_with(start)) {
        errors.invalid(&path.child("iqn"), name, "must be valid format starting with iqn, eui, or naa");
    }
    let lun = int(value, "lun");
    if !(0..=255).contains(&lun) {
        errors.invalid(&path.child("lun"), lun, PARTITION);
    }
    if (is_true(value, "chapAuthDiscovery") || is_true(value, "chapAuthSession")) && at(value, "secretRef").is_none() {
        errors.required(&path.child("secretRef"), "");
    }
}

fn fibre(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (targets, path_targets) = (array(value, "targetWWNs"), path.child("targetWWNs"));
    if targets.is_empty() {
        if array(value, "wwids").is_empty() {
            errors.required(&path_targets, "must specify either targetWWNs or wwids, but not both");
        }
        return;
    }
    if !array(value, "wwids").is_empty() {
        errors.invalid(&path_targets, targets.to_vec(), "targetWWNs and wwids can not be specified simultaneously");
    }
    match at(value, "lun").and_then(Value::as_i64) {
        None => errors.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
        Some(lun) if !(0..=255).contains(&lun) => errors.invalid(&path.child("lun"), lun, PARTITION),
        Some(_) => {}
    }
}

fn flex_options(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for key in map_at(value, "options").into_iter().flat_map(|m| m.keys()) {
        let owner = format!(".{}", key.split('/').next().unwrap_or("").to_lowercase());
        if key.contains('/') && (owner.ends_with(".kubernetes.io") || owner.ends_with(".k8s.io")) {
            errors.invalid(&path.key(key), key.as_str(), "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn flocker(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (name, uuid) = (text(value, "datasetName"), text(value, "datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => errors.required(path, "one of datasetName and datasetUUID is required"),
        (false, false) => errors.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously"),
        _ => {}
    }
    if name.contains('/') {
        errors.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}

fn quobyte(value: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let registry = text(value, "registry");
    if registry.is_empty() {
        errors.required(&path.child("registry"), HOST_PORT);
    } else {
        for _ in registry.split(',').filter(|pair| pair.matches(':').count() != 1) {
            errors.invalid(&path.child("registry"), registry, HOST_PORT);
        }
    }
    if text(value, "volume").is_empty() {
        errors.required(&path.child("volume"), "");
    }
}
