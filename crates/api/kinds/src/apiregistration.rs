//! `apiregistration.k8s.io`: APIService, a group and version that another server answers for.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::resources::Entry;
use crate::strategy::{BARE_STATUS, Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, at, int, is_true, present, set_absent, text};
use crate::workloads::SPEC;

static API_SERVICE: Strategy = Strategy::new(false)
    .name(names::path_segment)
    .status("{}")
    .status_alone(BARE_STATUS)
    .unconditional_update(false)
    .defaults(defaults)
    .checks(check, |_, _, _| {})
    .table(COLUMNS, cells);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("apiservices", &API_SERVICE)];

fn defaults(o: &mut Value) {
    if let Some(service) = present(o, "spec").and_then(|s| present(s, "service")) {
        set_absent(service, "port", 443);
    }
}

fn check(o: &Value, errors: &mut ErrorList) {
    let (group, version) = (text(o, "spec.group"), text(o, "spec.version"));
    let wanted = if group.is_empty() { format!("{version}.") } else { format!("{version}.{group}") };
    if object::name(o) != wanted {
        errors.invalid(
            &Path::new("metadata").child("name"),
            object::name(o),
            format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\""),
        );
    }
    let group_path = SPEC.child("group");
    if !group.is_empty() {
        errors.invalid_all(&group_path, group, names::dns1123_subdomain(group));
    } else if version != "v1" {
        errors.required(&group_path, "only v1 may have an empty group and it better be legacy kube");
    }
    let messages = names::dns1035_label(version);
    if !messages.is_empty() {
        errors.invalid(&SPEC.child("version"), version, messages.join(","));
    }
    for (field, high) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let value = int(o, &format!("spec.{field}"));
        if !(1..=high).contains(&value) {
            errors.invalid(&SPEC.child(field), value, format!("must be positive and less than {high}"));
        }
    }
    let insecure = is_true(o, "spec.insecureSkipTLSVerify");
    let bundle = !text(o, "spec.caBundle").is_empty();
    let Some(service) = at(o, "spec.service") else {
        if bundle {
            errors.invalid(
                &SPEC.child("caBundle"),
                format!("{} bytes", text(o, "spec.caBundle").len()),
                "local APIServices may not have a caBundle",
            );
        }
        if insecure {
            errors.invalid(&SPEC.child("insecureSkipTLSVerify"), true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    };
    for field in ["namespace", "name"] {
        if text(service, field).is_empty() {
            errors.required(&SPEC.child("service").child(field), "");
        }
    }
    let port = int(service, "port");
    if !(1..=65535).contains(&port) {
        errors.invalid(&SPEC.child("service.port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    if insecure && bundle {
        errors.invalid(&SPEC.child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present");
    }
}

const COLUMNS: &[Column] = &[NAME, column("Service"), column("Available"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let service = at(o, "spec.service").map(|s| format!("{}/{}", text(s, "namespace"), text(s, "name")));
    let available = array(o, "status.conditions").iter().find(|c| text(c, "type") == "Available");
    let available = match available {
        None => "Unknown".to_owned(),
        Some(c) if text(c, "status") == "True" => "True".to_owned(),
        Some(c) => format!("{} ({})", text(c, "status"), text(c, "reason")),
    };
    vec![object::name(o).into(), service.unwrap_or_else(|| "Local".into()).into(), available.into(), age(o, now)]
}
