//! Node: a machine that runs pods. The kubelet registers it with its status, so a create keeps the status.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, ErrorType, FieldError, Path, ip, names, object};
use tiphys_types::jiff::Timestamp;

use super::resource_list;
use crate::fields::selectable;
use crate::strategy::{Column, Ctx, Strategy, Subresource, copy_field, keep_all_but_status, nothing_on_update};
use crate::table::{AGE, NAME, age, column, or_none, wide};
use crate::tree::{array, array_mut, at, is_true, present, text};

pub(crate) static STRATEGY: Strategy = Strategy::new(false)
    .defaults(defaults)
    .on_update(on_update)
    .subresources(&[Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: nothing_on_update }])
    .checks(check, check_update)
    .selectable(select::NAMES, select::of)
    .table(COLUMNS, cells);

mod select {
    super::selectable!("metadata.name" = "", "spec.unschedulable" = "false");
}

fn defaults(o: &mut Value) {
    if let Some(spec) = present(o, "spec") {
        // The old field names the first of the new.
        let (one, all) = (text(spec, "podCIDR").to_owned(), array(spec, "podCIDRs").to_vec());
        match all.first().and_then(Value::as_str) {
            None if !one.is_empty() => spec["podCIDRs"] = json!([one]),
            Some(first) if one.is_empty() => spec["podCIDR"] = json!(first),
            Some(first) if first != one => spec["podCIDRs"] = json!([one]),
            _ => {}
        }
    }
    let Some(status) = present(o, "status") else { return };
    if at(status, "allocatable").is_none()
        && let Some(capacity) = at(status, "capacity").cloned()
    {
        status["allocatable"] = capacity;
    }
    for list in ["capacity", "allocatable"] {
        resource_list::round(status.get_mut(list));
    }
    let _ = array_mut(status, "conditions");
}

fn on_update(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    copy_field(new, old, "status");
}

fn check(o: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    // Upstream looks for taints in the metadata, where they once were.
    let metadata = Path::new("metadata");
    let (taints, mut seen) = (metadata.child("taints"), BTreeSet::new());
    for (i, taint) in array(o, "spec.taints").iter().enumerate() {
        let path = taints.index(i);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        errors.invalid_all(&path.child("key"), key, names::qualified_name(key));
        let bad_value = names::label_value(value);
        if !bad_value.is_empty() {
            errors.invalid(&path.child("value"), value, bad_value.join(";"));
        }
        check_effect(effect, &path.child("effect"), errors);
        if !seen.insert((key, effect)) {
            let detail = "taints must be unique by key and effect pair";
            errors.push(FieldError::new(ErrorType::Duplicate, &path, taint.clone(), detail));
        }
    }
    let cidrs = array(o, "spec.podCIDRs");
    for (i, cidr) in cidrs.iter().filter_map(Value::as_str).enumerate() {
        ip::validate_cidr(errors, &spec.child("podCIDRs").index(i), cidr);
    }
    let family = |cidr: &Value| cidr.as_str().unwrap_or("").contains(':');
    if cidrs.len() > 2 || (cidrs.len() == 2 && family(&cidrs[0]) == family(&cidrs[1])) {
        errors.invalid(&spec.child("podCIDRs"), cidrs.to_vec(), "may specify no more than one CIDR for each IP family");
    }
}

pub(crate) fn check_effect(effect: &str, path: &Path<'_>, errors: &mut ErrorList) {
    match effect {
        "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
        "" => errors.required(path, ""),
        other => errors.not_supported(path, other, &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    }
}

/// Of a node's spec, only the configured fields may change; what the cluster set once (`podCIDR`, `providerID`) stays.
fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    if !array(old, "spec.podCIDRs").is_empty() && array(new, "spec.podCIDRs") != array(old, "spec.podCIDRs") {
        errors.forbidden(&spec.child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
    }
    let (before, after) = (text(old, "spec.providerID"), text(new, "spec.providerID"));
    if !before.is_empty() && before != after {
        errors.forbidden(&spec.child("providerID"), "node updates may not change providerID except from \"\" to valid");
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    column("Status"),
    column("Roles"),
    AGE,
    column("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let ready = array(o, "status.conditions").iter().rfind(|c| text(c, "type") == "Ready");
    let mut status = match ready {
        Some(c) if text(c, "status") == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if is_true(o, "spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let found = array(o, "status.addresses").iter().find(|a| text(a, "type") == kind);
        found.map_or("<none>", |a| text(a, "address"))
    };
    let info = |field: &str| match at(o, "status.nodeInfo").map_or("", |i| text(i, field)) {
        "" => "<unknown>".to_owned(),
        known => known.to_owned(),
    };
    let mut kernel = info("kernelVersion");
    let architecture = text(o, "status.nodeInfo.architecture");
    if !architecture.is_empty() {
        kernel = format!("{kernel} ({architecture})");
    }
    vec![
        object::name(o).into(),
        status.into(),
        or_none(roles(o)).into(),
        age(o, now),
        text(o, "status.nodeInfo.kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        info("osImage").into(),
        kernel.into(),
        info("containerRuntimeVersion").into(),
    ]
}

fn roles(o: &Value) -> String {
    let role = |(key, value): (&str, &str)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) if !role.is_empty() => Some(role.to_owned()),
        _ if key == "kubernetes.io/role" && !value.is_empty() => Some(value.to_owned()),
        _ => None,
    };
    let all: BTreeSet<String> = object::labels(o).filter_map(role).collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}
