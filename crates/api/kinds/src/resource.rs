//! `resource.k8s.io`: dynamic resource allocation.

mod claim;
mod claim_status;
mod common;
mod slice;

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, object, time};
use tiphys_types::jiff::Timestamp;

use crate::resources::Entry;
use crate::strategy::{Column, Strategy, Subresource};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, array_mut, at, present, set_default, set_nonzero, text};
use crate::workloads::SPEC;

static DEVICE_CLASS: Strategy = Strategy::new(false)
    .spec_generation()
    .checks(|o, e| claim::check_class(at(o, "spec").unwrap_or(&Value::Null), &SPEC, e), |_, _, _| {})
    .table(crate::table::NAME_AGE, crate::table::name_age);
const CLAIM_STATUS: &[Subresource] =
    &[Subresource { name: "status", prepare_update: claim_status::prepare, validate_update: claim_status::check }];
static TAINT_RULE: Strategy = Strategy::new(false).spec_generation().status("{}").stamps(rule_time);
static CLAIM: Strategy = Strategy::new(true)
    .status("{}")
    .defaults(|o| claim_defaults(o.get_mut("spec")))
    .status_alone(CLAIM_STATUS)
    // What cannot change need not be looked at again.
    .check_created(|o, e| claim::check(at(o, "spec"), &SPEC, e))
    .checks(|_, _| {}, fixed_spec)
    .table(CLAIM_COLUMNS, claim_cells);
static TEMPLATE: Strategy = Strategy::new(true)
    .defaults(|o| claim_defaults(o.get_mut("spec").and_then(|s| s.get_mut("spec"))))
    .checks(check_template, fixed_spec)
    .table(crate::table::NAME_AGE, crate::table::name_age);
static SLICE: Strategy = Strategy::new(false)
    .spec_generation()
    .stamps(slice_times)
    .on_create(|o, _| slice::drop_disabled(o))
    .on_update(|new, _, _| slice::drop_disabled(new))
    .check_created(|o, errors| slice::check(o, None, errors))
    .checks(|_, _| {}, |new, old, errors| slice::check(new, Some(old), errors))
    .selectable(&["metadata.name", "spec.nodeName", "spec.driver"], |o| {
        crate::fields::read(o, &[("metadata.name", ""), ("spec.nodeName", ""), ("spec.driver", "")])
    })
    .table(SLICE_COLUMNS, slice_cells);
static POOL_STATUS: Strategy = Strategy::new(false).status("{}").unconditional_update(false);

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("deviceclasses", &DEVICE_CLASS),
    Entry::new("devicetaintrules", &TAINT_RULE),
    Entry::new("resourceclaims", &CLAIM),
    Entry::new("resourceclaimtemplates", &TEMPLATE),
    Entry::new("resourcepoolstatusrequests", &POOL_STATUS),
    Entry::new("resourceslices", &SLICE),
];

fn rule_time(o: &mut Value, now: Timestamp) {
    if let Some(taint) = present(o, "spec").and_then(|s| present(s, "taint")) {
        set_default(taint, "timeAdded", time::format(now));
    }
}

fn slice_times(o: &mut Value, now: Timestamp) {
    let devices = present(o, "spec").map(|spec| array_mut(spec, "devices"));
    for taint in devices.into_iter().flatten().flat_map(|device| array_mut(device, "taints")) {
        set_default(taint, "timeAdded", time::format(now));
    }
}

fn claim_defaults(spec: Option<&mut Value>) {
    let Some(devices) = spec.and_then(|s| present(s, "devices")) else { return };
    for request in array_mut(devices, "requests") {
        if let Some(exactly) = present(request, "exactly") {
            request_defaults(exactly);
        }
        // In v1beta1 the fields stand in the request itself.
        if !text(request, "deviceClassName").is_empty() {
            request_defaults(request);
        }
        array_mut(request, "firstAvailable").iter_mut().for_each(request_defaults);
    }
}

fn request_defaults(request: &mut Value) {
    set_default(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        set_nonzero(request, "count", 1);
    }
    array_mut(request, "tolerations").iter_mut().for_each(|t| set_default(t, "operator", "Equal"));
}

fn fixed_spec(new: &Value, old: &Value, errors: &mut ErrorList) {
    crate::meta::immutable(new.get("spec"), old.get("spec"), &SPEC, errors);
}

fn check_template(o: &Value, errors: &mut ErrorList) {
    let metadata = SPEC.child("metadata");
    crate::meta::labels(at(o, "spec.metadata.labels"), &metadata.child("labels"), errors);
    crate::meta::annotations(at(o, "spec.metadata.annotations"), &metadata.child("annotations"), errors);
    claim::check(at(o, "spec.spec"), &SPEC.child("spec"), errors);
}

const CLAIM_COLUMNS: &[Column] = &[NAME, column("State"), AGE];
const SLICE_COLUMNS: &[Column] = &[NAME, column("Node"), column("Driver"), column("Pool"), AGE];

fn claim_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let deleted = object::deletion_timestamp(o).is_some();
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if at(o, "status.allocation").is_some() {
        states.push("allocated");
        if !array(o, "status.reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    vec![object::name(o).into(), json!(states.join(",")), age(o, now)]
}

fn slice_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = |path: &str| Value::from(text(o, path));
    vec![object::name(o).into(), spec("spec.nodeName"), spec("spec.driver"), spec("spec.pool.name"), age(o, now)]
}
