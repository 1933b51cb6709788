//! PersistentVolume: storage in the cluster. The source of a volume never changes.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object, time};
use tiphys_types::jiff::Timestamp;

use super::persistent_volume_claim::{ACCESS_MODES, access_modes, class};
use super::resource_list;
use crate::strategy::{Column, Ctx, Strategy, Subresource, keep_all_but_status, nothing_on_update};
use crate::table::{AGE, NAME, age, column, wide};
use crate::tree::{array, array_mut, at, child, map_at, one_of, set_absent, set_default, text};

pub(crate) static STRATEGY: Strategy = Strategy::new(false)
    .status(r#"{"phase":"Pending"}"#)
    .defaults(defaults)
    .on_create(|o, ctx| o["status"]["lastPhaseTransitionTime"] = json!(time::format(ctx.now)))
    .subresources(&[Subresource { name: "status", prepare_update: prepare_status, validate_update: nothing_on_update }])
    .checks(check, check_update)
    .warnings_by(warnings)
    .table(COLUMNS, cells);

fn defaults(o: &mut Value) {
    set_default(child(o, "status"), "phase", "Pending");
    let spec = child(o, "spec");
    set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_absent(spec, "volumeMode", "Filesystem");
    if let Some(path) = crate::tree::present(spec, "hostPath") {
        set_absent(path, "type", "");
    }
    if let Some(iscsi) = crate::tree::present(spec, "iscsi") {
        set_default(iscsi, "iscsiInterface", "default");
    }
    resource_list::round(spec.get_mut("capacity"));
}

fn warnings(new: &Value, _: Option<&Value>) -> Vec<String> {
    let recycled = text(new, "spec.persistentVolumeReclaimPolicy") == "Recycle";
    let why = "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
    if recycled { vec![why.to_owned()] } else { Vec::new() }
}

fn prepare_status(new: &mut Value, old: &Value, ctx: &Ctx<'_>) {
    keep_all_but_status(new, old, ctx);
    let last = |o: &Value| at(o, "status.lastPhaseTransitionTime").cloned();
    let (before, given) = (last(old), last(new));
    let time = if text(old, "status.phase") == text(new, "status.phase") {
        given.or(before)
    } else if given.is_none() || given == before {
        Some(json!(time::format(ctx.now)))
    } else {
        given
    };
    if let Some(time) = time {
        child(new, "status")["lastPhaseTransitionTime"] = time;
    }
}

/// The fields of the spec that say where the volume is.
fn source(o: &Value) -> Vec<(&String, &Value)> {
    const OTHER: &[&str] = &[
        "capacity",
        "accessModes",
        "claimRef",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "mountOptions",
        "volumeMode",
        "nodeAffinity",
        "volumeAttributesClassName",
    ];
    map_at(o, "spec").into_iter().flatten().filter(|(k, _)| !OTHER.contains(&k.as_str())).collect()
}

fn check(o: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    let modes = array(o, "spec.accessModes");
    if modes.is_empty() {
        errors.required(&spec.child("accessModes"), "");
    }
    super::persistent_volume_claim::check_modes(modes, &spec.child("accessModes"), errors);
    let capacity = map_at(o, "spec.capacity");
    if capacity.is_none_or(serde_json::Map::is_empty) {
        errors.required(&spec.child("capacity"), "");
    }
    if capacity.is_none_or(|c| !c.contains_key("storage") || c.len() > 1) {
        let shown = capacity.cloned().map_or(json!({}), Value::Object);
        errors.not_supported(&spec.child("capacity"), shown, &["storage"]);
    }
    super::pod::resources::check_positive(at(o, "spec.capacity"), &spec.child("capacity"), errors);
    let policy = text(o, "spec.persistentVolumeReclaimPolicy");
    if !matches!(policy, "" | "Retain" | "Delete" | "Recycle") {
        errors.not_supported(&spec.child("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"]);
    }
    match source(o).len() {
        0 => errors.required(&spec, "must specify a volume type"),
        1 => {
            let (kind, value) = source(o)[0];
            super::volume_source::check(kind, value, &spec.child(kind), errors);
        }
        _ => source(o)[1..].iter().for_each(|(kind, _)| errors.forbidden(&spec.child(kind), "may not specify more than 1 volume type")),
    }
    let class = text(o, "spec.storageClassName");
    if !class.is_empty() {
        errors.invalid_all(&spec.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    one_of(at(o, "spec.volumeMode"), &["Block", "Filesystem"], &spec.child("volumeMode"), errors);
    match (at(o, "spec.nodeAffinity"), at(o, "spec.nodeAffinity.required")) {
        (_, Some(required)) => super::pod::scheduling::node_selector(required, &spec.child("nodeAffinity.required"), errors),
        (Some(_), None) => errors.required(&spec.child("nodeAffinity.required"), "must specify required node constraints"),
        (None, None) => {}
    }
    check_local(o, &spec, errors);
    let _ = ACCESS_MODES;
}

fn check_local(o: &Value, spec: &Path<'_>, errors: &mut ErrorList) {
    if let Some(csi) = at(o, "spec.csi") {
        let path = spec.child("csi");
        crate::storage::driver_name(text(csi, "driver"), &path.child("driver"), errors);
        if text(csi, "volumeHandle").is_empty() {
            errors.required(&path.child("volumeHandle"), "");
        }
    }
    if at(o, "spec.local").is_some() && at(o, "spec.nodeAffinity").is_none() {
        errors.required(&spec.child("nodeAffinity"), "Local volume requires node affinity");
    }
    for kind in ["local", "hostPath"] {
        let Some(volume) = at(o, "spec").and_then(|s| s.get(kind)).filter(|v| !v.is_null()) else { continue };
        let path = text(volume, "path");
        if path.is_empty() {
            errors.required(&spec.child(kind).child("path"), "");
        } else if path.split('/').any(|step| step == "..") {
            errors.invalid(&spec.child(kind).child("path"), path, "must not contain '..'");
        }
    }
}

fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    // The CSI driver may learn its secrets later.
    let fixed = |o: &Value| {
        let mut all: Vec<(String, Value)> = source(o).into_iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        for (kind, volume) in &mut all {
            if kind == "csi" {
                for secret in ["controllerExpandSecretRef", "nodeExpandSecretRef"] {
                    crate::tree::remove(volume, secret);
                }
            }
        }
        all
    };
    if fixed(new) != fixed(old) {
        errors.forbidden(&spec.child("persistentvolumesource"), "spec.persistentvolumesource is immutable after creation");
    }
    crate::meta::immutable(at(new, "spec.volumeMode"), at(old, "spec.volumeMode"), &Path::new("volumeMode"), errors);
    let affinity = |o: &Value| at(o, "spec.nodeAffinity").cloned();
    if let Some(before) = affinity(old)
        && affinity(new) != Some(with_new_labels(before, affinity(new).as_ref()))
    {
        let why = format!("{}, except for updating from beta label to GA", crate::meta::FIELD_IMMUTABLE);
        errors.invalid(&Path::new("nodeAffinity"), affinity(new).unwrap_or_default(), why);
    }
}

/// Node labels that left beta stand for the same.
fn with_new_labels(mut before: Value, after: Option<&Value>) -> Value {
    const RENAMED: [(&str, &str); 5] = [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ];
    let Some(after) = after else { return before };
    let terms = array(after, "required.nodeSelectorTerms");
    for (term, new) in array_mut(&mut before, "required.nodeSelectorTerms").iter_mut().zip(terms) {
        for (expression, new) in array_mut(term, "matchExpressions").iter_mut().zip(array(new, "matchExpressions")) {
            // A key without a newer name has the empty one, as in Go's map: it is refused for itself.
            let stable = RENAMED.iter().find(|(beta, _)| text(expression, "key") == *beta).map_or("", |(_, stable)| stable);
            if text(new, "key") == stable {
                match new.get("key") {
                    Some(key) => expression["key"] = key.clone(),
                    None => crate::tree::remove(expression, "key"),
                }
            }
        }
    }
    before
}

const COLUMNS: &[Column] = &[
    NAME,
    column("Capacity"),
    column("Access Modes"),
    column("Reclaim Policy"),
    column("Status"),
    column("Claim"),
    column("StorageClass"),
    column("VolumeAttributesClass"),
    column("Reason"),
    AGE,
    wide("VolumeMode"),
];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let claim = at(o, "spec.claimRef").map(|c| format!("{}/{}", text(c, "namespace"), text(c, "name"))).unwrap_or_default();
    let phase = if object::deletion_timestamp(o).is_some() { "Terminating" } else { text(o, "status.phase") };
    let or_unset = |field: &str| at(o, field).and_then(Value::as_str).unwrap_or("<unset>");
    let capacity = map_at(o, "spec.capacity").and_then(|c| c.get("storage")).and_then(Value::as_str).unwrap_or("0");
    vec![
        object::name(o).into(),
        capacity.into(),
        access_modes(array(o, "spec.accessModes")).into(),
        text(o, "spec.persistentVolumeReclaimPolicy").into(),
        phase.into(),
        claim.into(),
        class(o).into(),
        or_unset("spec.volumeAttributesClassName").into(),
        text(o, "status.reason").into(),
        age(o, now),
        or_unset("spec.volumeMode").into(),
    ]
}
