//! `storage.k8s.io`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, Quantity, names, object};
use tiphys_types::jiff::Timestamp;

use crate::meta::immutable;
use crate::resources::Entry;
use crate::strategy::{BARE_STATUS, Column, Strategy, bump_generation};
use crate::table::{AGE, NAME, age, boolean, column, integer};
use crate::tree::{array, at, child, is_true, map_at, one_of, remove, set_absent, text};
use crate::workloads::SPEC;

static CSI_DRIVER: Strategy = Strategy::new(false)
    .on_update(|new, old, _| {
        if new.get("spec") != old.get("spec") {
            bump_generation(new, old);
        }
    })
    .warnings_by(driver_warnings)
    .unconditional_update(false)
    .defaults(driver_defaults)
    .checks(check_driver, |new, old, errors| {
        immutable(at(new, "spec.attachRequired"), at(old, "spec.attachRequired"), &SPEC.child("attachedRequired"), errors);
        let modes = "spec.volumeLifecycleModes";
        immutable(at(new, modes), at(old, modes), &SPEC.child("volumeLifecycleModes"), errors);
    })
    .table(DRIVER_COLUMNS, driver_cells);
static CSI_NODE: Strategy = Strategy::new(false)
    .unconditional_update(false)
    .checks(check_csi_node, keep_csi_drivers)
    .table(&[NAME, integer("Drivers"), AGE], |o, now| vec![object::name(o).into(), json!(array(o, "spec.drivers").len()), age(o, now)]);
static CSI_CAPACITY: Strategy = Strategy::new(true).unconditional_update(false).checks(check_capacity, |new, old, errors| {
    for field in ["storageClassName", "nodeTopology"] {
        immutable(new.get(field), old.get(field), &Path::new(field), errors);
    }
});
static STORAGE_CLASS: Strategy = Strategy::new(false)
    .defaults(|o| {
        set_absent(o, "reclaimPolicy", "Delete");
        set_absent(o, "volumeBindingMode", "Immediate");
    })
    .checks(check_class, |new, old, errors| {
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            immutable(new.get(field), old.get(field), &Path::new(field), errors);
        }
    })
    .warnings_by(class_warnings)
    .table(CLASS_COLUMNS, class_cells);
static ATTACHMENT: Strategy = Strategy::new(false)
    .status(r#"{"attached":false}"#)
    .status_alone(BARE_STATUS)
    .unconditional_update(false)
    .checks(check_attachment, |new, old, errors| immutable(new.get("spec"), old.get("spec"), &SPEC, errors))
    .table(ATTACHMENT_COLUMNS, attachment_cells);
static ATTRIBUTES_CLASS: Strategy = Strategy::new(false)
    .checks(
        |o, errors| {
            let driver = text(o, "driverName");
            if driver.is_empty() {
                errors.required(&Path::new("driverName"), "");
            } else {
                let driver = driver.to_lowercase();
                errors.invalid_all(&Path::new("driverName"), driver.as_str(), names::qualified_name(&driver));
            }
            if map_at(o, "parameters").is_none_or(serde_json::Map::is_empty) {
                errors.required(&Path::new("parameters"), "must contain at least one key/value pair");
            }
        },
        |new, old, errors| {
            for field in ["driverName", "parameters"] {
                if new.get(field) != old.get(field) {
                    errors.forbidden(&Path::new(field), format!("updates to {field} are forbidden."));
                }
            }
        },
    )
    .table(&[NAME, column("DriverName"), AGE], |o, now| vec![object::name(o).into(), text(o, "driverName").into(), age(o, now)]);

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("csidrivers", &CSI_DRIVER),
    Entry::new("csinodes", &CSI_NODE),
    Entry::new("csistoragecapacities", &CSI_CAPACITY),
    Entry::new("storageclasses", &STORAGE_CLASS),
    Entry::new("volumeattachments", &ATTACHMENT),
    Entry::new("volumeattributesclasses", &ATTRIBUTES_CLASS),
];

/// Tokens go where logs may show them, unless the driver says that it reads them elsewhere.
fn driver_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    const WHY: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";
    let requests = |o: &Value| at(o, "spec.tokenRequests").cloned();
    let told = old.is_some_and(|old| requests(old) == requests(new));
    let warn = !told && !array(new, "spec.tokenRequests").is_empty() && at(new, "spec.serviceAccountTokenInSecrets").is_none();
    if warn { vec![WHY.to_owned()] } else { Vec::new() }
}

fn driver_defaults(o: &mut Value) {
    let spec = child(o, "spec");
    set_absent(spec, "attachRequired", true);
    for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        set_absent(spec, field, false);
    }
    set_absent(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if array(spec, "volumeLifecycleModes").is_empty() {
        spec["volumeLifecycleModes"] = json!(["Persistent"]);
    }
}

fn check_driver(o: &Value, errors: &mut ErrorList) {
    let name = object::name(o);
    if name.len() > 63 {
        errors.too_long(&Path::new("metadata.name"), 63);
    }
    one_of(at(o, "spec.fsGroupPolicy"), &["File", "None", "ReadWriteOnceWithFSType"], &SPEC.child("fsGroupPolicy"), errors);
    check_token_requests(array(o, "spec.tokenRequests"), &SPEC.child("tokenRequests"), errors);
    for mode in array(o, "spec.volumeLifecycleModes").iter().filter_map(Value::as_str) {
        if !matches!(mode, "Persistent" | "Ephemeral") {
            errors.not_supported(&SPEC.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
        }
    }
    if let Some(period) = at(o, "spec.nodeAllocatableUpdatePeriodSeconds").and_then(Value::as_i64).filter(|p| *p < 10) {
        errors.invalid(&SPEC.child("nodeAllocatableUpdatePeriodSeconds"), period, "must be greater than or equal to 10 seconds");
    }
}

fn check_token_requests(requests: &[Value], list: &Path<'_>, errors: &mut ErrorList) {
    for (i, request) in requests.iter().enumerate() {
        let (path, audience) = (list.index(i), text(request, "audience"));
        if requests[..i].iter().any(|r| text(r, "audience") == audience) {
            errors.duplicate(&path.child("audience"), audience);
            continue;
        }
        let Some(seconds) = at(request, "expirationSeconds").and_then(Value::as_i64) else { continue };
        if seconds < 600 {
            errors.invalid(&path.child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > 1 << 32 {
            errors.invalid(&path.child("expirationSeconds"), seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
}

const DRIVER_COLUMNS: &[Column] = &[
    NAME,
    boolean("AttachRequired"),
    boolean("PodInfoOnMount"),
    boolean("StorageCapacity"),
    column("TokenRequests"),
    boolean("RequiresRepublish"),
    column("Modes"),
    AGE,
];

fn driver_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let join = |list: &[Value], field: &str| {
        let text_of = |v: &Value| if field.is_empty() { v.as_str().unwrap_or("").to_owned() } else { text(v, field).to_owned() };
        list.iter().map(text_of).collect::<Vec<_>>().join(",")
    };
    let tokens = at(o, "spec.tokenRequests").map_or("<unset>".to_owned(), |_| join(array(o, "spec.tokenRequests"), "audience"));
    let modes = crate::table::or_none(join(array(o, "spec.volumeLifecycleModes"), ""));
    vec![
        object::name(o).into(),
        json!(at(o, "spec.attachRequired").and_then(Value::as_bool).unwrap_or(true)),
        json!(is_true(o, "spec.podInfoOnMount")),
        json!(is_true(o, "spec.storageCapacity")),
        tokens.into(),
        json!(is_true(o, "spec.requiresRepublish")),
        modes.into(),
        age(o, now),
    ]
}

fn class_warnings(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut all = Vec::new();
    for (i, topology) in array(new, "allowedTopologies").iter().enumerate() {
        for (j, expression) in array(topology, "matchLabelExpressions").iter().enumerate() {
            if let Some(why) = crate::core::pod::warnings::deprecated_node_label(text(expression, "key")) {
                all.push(format!("allowedTopologies[{i}].matchLabelExpressions[{j}].key: {why}"));
            }
        }
    }
    all
}

pub(crate) fn driver_name(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    if name.len() > 63 {
        errors.too_long(path, 63);
    }
    errors.invalid_all(path, name, names::dns1123_subdomain(&name.to_lowercase()));
}

fn check_csi_node(o: &Value, errors: &mut ErrorList) {
    let (drivers, list) = (array(o, "spec.drivers"), SPEC.child("drivers"));
    for (i, driver) in drivers.iter().enumerate() {
        let (path, name, id) = (list.index(i), text(driver, "name"), text(driver, "nodeID"));
        driver_name(name, &path.child("name"), errors);
        if id.is_empty() {
            errors.required(&path.child("nodeID"), "");
        }
        if id.len() > 256 {
            errors.invalid(&path.child("nodeID"), id, "must be 256 characters or less");
        }
        if let Some(count) = at(driver, "allocatable.count").and_then(Value::as_i64).filter(|c| *c < 0) {
            errors.invalid(&path.child("allocatable.count"), count, "must be greater than or equal to 0");
        }
        if drivers[..i].iter().any(|d| text(d, "name") == name) {
            errors.duplicate(&path.child("name"), name);
        }
        check_topology_keys(array(driver, "topologyKeys"), &path, errors);
    }
}

fn check_topology_keys(keys: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    for (i, key) in keys.iter().enumerate() {
        let text = key.as_str().unwrap_or("");
        if text.is_empty() {
            errors.required(path, "");
        }
        if keys[..i].contains(key) {
            errors.duplicate(path, text);
        }
        errors.invalid_all(path, text, names::qualified_name(text));
    }
}

/// Of a driver that stays, only what can be allocated may change (KEP-4876).
fn keep_csi_drivers(new: &Value, old: &Value, errors: &mut ErrorList) {
    let without = |driver: &Value| {
        let mut driver = driver.clone();
        remove(&mut driver, "allocatable");
        driver
    };
    for before in array(old, "spec.drivers") {
        for after in array(new, "spec.drivers").iter().filter(|d| text(d, "name") == text(before, "name")) {
            immutable(Some(&without(after)), Some(&without(before)), &SPEC.child("drivers"), errors);
        }
    }
}

fn check_capacity(o: &Value, errors: &mut ErrorList) {
    crate::selectors::check(at(o, "nodeTopology"), &Path::new("nodeTopology"), errors);
    let class = text(o, "storageClassName");
    errors.invalid_all(&Path::new("storageClassName"), class, names::dns1123_subdomain(class));
    let amount = text(o, "capacity");
    if Quantity::parse(amount).is_ok_and(|q| q.is_negative()) {
        errors.invalid(&Path::new("capacity"), amount, "must be greater than or equal to 0");
    }
}

fn check_class(o: &Value, errors: &mut ErrorList) {
    let (provisioner, path) = (text(o, "provisioner"), Path::new("provisioner"));
    if provisioner.is_empty() {
        errors.required(&path, "");
    } else {
        let lower = provisioner.to_lowercase();
        errors.invalid_all(&path, lower.as_str(), names::qualified_name(&lower));
    }
    if map_at(o, "parameters").is_some_and(|p| p.contains_key("")) {
        errors.invalid(&Path::new("parameters"), "", "field can not be empty.");
    }
    let policy = text(o, "reclaimPolicy");
    if !matches!(policy, "" | "Delete" | "Retain") {
        errors.not_supported(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    match text(o, "volumeBindingMode") {
        "Immediate" | "WaitForFirstConsumer" => {}
        "" if at(o, "volumeBindingMode").is_none() => errors.required(&Path::new("volumeBindingMode"), ""),
        other => errors.not_supported(&Path::new("volumeBindingMode"), other, &["Immediate", "WaitForFirstConsumer"]),
    }
    check_topologies(array(o, "allowedTopologies"), errors);
}

fn check_topologies(terms: &[Value], errors: &mut ErrorList) {
    let list = Path::new("allowedTopologies");
    // Upstream compares with as many empty terms as there are terms.
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = vec![BTreeMap::new(); terms.len()];
    for (i, term) in terms.iter().enumerate() {
        let term_path = list.index(i);
        let path = term_path.child("matchLabelExpressions");
        let mut keys: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (j, expression) in array(term, "matchLabelExpressions").iter().enumerate() {
            let (path, key) = (path.index(j), text(expression, "key"));
            let values = topology_values(expression, &path, errors);
            errors.invalid_all(&path.child("key"), key, names::qualified_name(key));
            if keys.insert(key, values).is_some() {
                errors.duplicate(&path.child("key"), key);
            }
        }
        seen.iter().filter(|s| **s == keys).for_each(|_| errors.duplicate(&path, ""));
        seen.push(keys);
    }
}

fn topology_values<'a>(expression: &'a Value, path: &Path<'_>, errors: &mut ErrorList) -> BTreeSet<&'a str> {
    let values = path.child("values");
    let mut seen = BTreeSet::new();
    if array(expression, "values").is_empty() {
        errors.required(&values, "");
    }
    for (i, value) in array(expression, "values").iter().filter_map(Value::as_str).enumerate() {
        if !seen.insert(value) {
            errors.duplicate(&values.index(i), value);
        }
    }
    seen
}

const CLASS_COLUMNS: &[Column] =
    &[NAME, column("Provisioner"), column("ReclaimPolicy"), column("VolumeBindingMode"), column("AllowVolumeExpansion"), AGE];

fn class_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let default = object::annotations(o).any(|(k, v)| {
        matches!(k, "storageclass.kubernetes.io/is-default-class" | "storageclass.beta.kubernetes.io/is-default-class") && v == "true"
    });
    let name = if default { format!("{} (default)", object::name(o)) } else { object::name(o).to_owned() };
    vec![
        name.into(),
        text(o, "provisioner").into(),
        text(o, "reclaimPolicy").into(),
        text(o, "volumeBindingMode").into(),
        json!(is_true(o, "allowVolumeExpansion")),
        age(o, now),
    ]
}

fn check_attachment(o: &Value, errors: &mut ErrorList) {
    driver_name(text(o, "spec.attacher"), &SPEC.child("attacher"), errors);
    let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (at(o, "spec.source.inlineVolumeSpec"), at(o, "spec.source.persistentVolumeName")) {
        (None, None) => errors.required(&SPEC.child("source"), why),
        (Some(_), Some(_)) => errors.forbidden(&SPEC.child("source"), why),
        (None, Some(name)) if name == "" => {
            errors.required(&SPEC.child("source.persistentVolumeName"), "must specify non empty persistentVolumeName");
        }
        _ => {}
    }
    let node = text(o, "spec.nodeName");
    errors.invalid_all(&SPEC.child("nodeName"), node, names::dns1123_subdomain(node));
    if let Some(name) = at(o, "spec.source.persistentVolumeName").and_then(Value::as_str) {
        errors.invalid_all(&SPEC.child("source.persistentVolumeName"), name, names::dns1123_subdomain(name));
    }
}

const ATTACHMENT_COLUMNS: &[Column] =
    &[NAME, Column { format: "name", ..column("Attacher") }, column("PV"), column("Node"), boolean("Attached"), AGE];

fn attachment_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        object::name(o).into(),
        text(o, "spec.attacher").into(),
        text(o, "spec.source.persistentVolumeName").into(),
        text(o, "spec.nodeName").into(),
        json!(is_true(o, "status.attached")),
        age(o, now),
    ]
}
