//! `resource.k8s.io`: dynamic resource allocation.

mod claim;

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, names, object, time};
use tiphys_types::jiff::Timestamp;

use crate::resources::Entry;
use crate::strategy::{BARE_STATUS, Column, Strategy};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, array_mut, at, int, present, set_default, set_nonzero, text};
use crate::workloads::SPEC;

static DEVICE_CLASS: Strategy = Strategy::new(false)
    .spec_generation()
    .checks(|o, e| claim::check_class(at(o, "spec").unwrap_or(&Value::Null), &SPEC, e), |_, _, _| {})
    .table(crate::table::NAME_AGE, crate::table::name_age);
static TAINT_RULE: Strategy = Strategy::new(false).spec_generation().status("{}").on_create(|o, ctx| taint_time(o, ctx.now));
static CLAIM: Strategy = Strategy::new(true)
    .status("{}")
    .defaults(|o| claim_defaults(o.get_mut("spec")))
    .status_alone(BARE_STATUS)
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
    .checks(check_slice, |new, old, errors| {
        for field in ["pool.name", "driver", "nodeName"] {
            let of = |o: &Value| at(o, "spec").and_then(|s| at(s, field)).cloned();
            crate::meta::immutable(of(new).as_ref(), of(old).as_ref(), &SPEC.child(field), errors);
        }
    })
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

fn taint_time(o: &mut Value, now: Timestamp) {
    if let Some(taint) = present(o, "spec").and_then(|s| present(s, "taint")) {
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

fn check_slice(o: &Value, errors: &mut ErrorList) {
    claim::driver(text(o, "spec.driver"), &SPEC.child("driver"), errors);
    let pool = text(o, "spec.pool.name");
    if pool.is_empty() {
        errors.required(&SPEC.child("pool.name"), "");
    } else {
        if pool.len() > 253 {
            errors.too_long(&SPEC.child("pool.name"), 253);
        }
        for part in pool.split('/') {
            errors.invalid_all(&SPEC.child("pool.name"), part, names::dns1123_subdomain(part));
        }
    }
    let generation = int(o, "spec.pool.generation");
    if generation < 0 {
        errors.invalid(&SPEC.child("pool.generation"), generation, "must be greater than or equal to zero");
    }
    if int(o, "spec.pool.resourceSliceCount") <= 0 {
        errors.invalid(&SPEC.child("pool.resourceSliceCount"), int(o, "spec.pool.resourceSliceCount"), "must be greater than zero");
    }
    match at(o, "spec.nodeName").and_then(Value::as_str) {
        Some("") => errors.invalid(&SPEC.child("nodeName"), "", "must be either unset or set to a non-empty string"),
        Some(node) => errors.invalid_all(&SPEC.child("nodeName"), node, names::dns1123_subdomain(node)),
        None => {}
    }
    claim::check_devices(array(o, "spec.devices"), &SPEC.child("devices"), errors);
    let places = ["spec.nodeSelector", "spec.allNodes", "spec.perDeviceNodeSelection"];
    if text(o, "spec.nodeName").is_empty() && places.iter().all(|place| at(o, place).is_none()) {
        errors.required(&SPEC, "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required");
    }
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
