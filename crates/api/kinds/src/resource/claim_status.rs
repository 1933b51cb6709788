//! Checks of what a claim has got: the allocation, who uses it, and what drivers tell of its devices.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, ip, object};

use super::claim::{opaque, references, request_names};
use super::common::{binding, driver, each, json_object, label, pool};
use crate::core::pod::scheduling::node_selector;
use crate::strategy::Ctx;
use crate::tree::{array, at, text};

const STATUS: Path<'static> = Path::new("status");
const RESERVED_MAX: usize = 256;
const RESULTS_MAX: usize = 32;
/// Of the class and of the claim.
const CONFIGS_MAX: usize = 2 * 32;
const CONDITIONS_MAX: usize = 8;
const DATA_MAX: usize = 10 * 1024;
const INTERFACE_MAX: usize = 256;
const HARDWARE_ADDRESS_MAX: usize = 128;
const IPS_MAX: usize = 16;

/// What is told of devices that the claim had and has no more goes with them.
pub(super) fn prepare(new: &mut Value, old: &Value, ctx: &Ctx<'_>) {
    crate::strategy::keep_all_but_bare_status(new, old, ctx);
    let still = allocated(new);
    let gone: BTreeSet<Id> = allocated(old).difference(&still).cloned().collect();
    let devices = new.get_mut("status").and_then(|status| status.get_mut("devices")).and_then(Value::as_array_mut);
    if let Some(devices) = devices {
        devices.retain(|device| !gone.contains(&id(device)));
        if devices.is_empty()
            && let Some(status) = new.get_mut("status")
        {
            crate::tree::remove(status, "devices");
        }
    }
}

pub(super) fn check(new: &Value, old: &Value, errors: &mut ErrorList) {
    let reserved = array(new, "status.reservedFor");
    let list = STATUS.child("reservedFor");
    each(reserved, RESERVED_MAX, Some("uid"), &list, errors, |user, path, errors| {
        for field in ["resource", "name", "uid"].into_iter().filter(|field| text(user, field).is_empty()) {
            errors.required(&path.child(field), "");
        }
    });
    let there = allocated(new);
    let list = STATUS.child("devices");
    for (i, device) in array(new, "status.devices").iter().enumerate() {
        check_device(device, &there, &list.index(i), errors);
        if array(new, "status.devices")[..i].iter().any(|other| id(other) == id(device)) {
            errors.duplicate(&list.index(i), shown(&id(device)));
        }
    }
    let [now, before] = [new, old].map(|o| at(o, "status.allocation"));
    if !reserved.is_empty() {
        let path = STATUS.child("reservedFor");
        let added = || reserved.iter().any(|user| !array(old, "status.reservedFor").contains(user));
        if now.is_none() {
            errors.forbidden(&path, "may not be specified when `allocated` is not set");
        } else if object::deletion_timestamp(new).is_some() && added() {
            errors.forbidden(&path, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set");
        }
    }
    match (now, before) {
        (Some(_), Some(_)) => crate::meta::immutable(now, before, &STATUS.child("allocation"), errors),
        (Some(allocation), None) => check_allocation(allocation, new, &STATUS.child("allocation"), errors),
        (None, _) => {}
    }
}

fn check_allocation(allocation: &Value, claim: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let known = at(claim, "spec.devices").map(request_names).unwrap_or_default();
    each(array(allocation, "devices.results"), RESULTS_MAX, None, &path.child("devices.results"), errors, |result, path, errors| {
        super::claim::reference(text(result, "request"), &known, &path.child("request"), errors);
        driver(text(result, "driver"), &path.child("driver"), errors);
        pool(text(result, "pool"), &path.child("pool"), errors);
        label(text(result, "device"), &path.child("device"), errors);
        binding(result, path, errors);
        share(result, path, errors);
    });
    each(array(allocation, "devices.config"), CONFIGS_MAX, None, &path.child("devices.config"), errors, |config, path, errors| {
        const SOURCES: &[&str] = &["FromClaim", "FromClass"];
        match text(config, "source") {
            "" => errors.required(&path.child("source"), ""),
            source if SOURCES.contains(&source) => {}
            other => errors.not_supported(&path.child("source"), other, SOURCES),
        }
        references(config, &known, path, errors);
        opaque(config, path, errors);
    });
    if let Some(selector) = at(allocation, "nodeSelector") {
        node_selector(selector, &path.child("nodeSelector"), errors);
    }
}

fn check_device(device: &Value, allocated: &BTreeSet<Id>, path: &Path<'_>, errors: &mut ErrorList) {
    driver(text(device, "driver"), &path.child("driver"), errors);
    pool(text(device, "pool"), &path.child("pool"), errors);
    label(text(device, "device"), &path.child("device"), errors);
    share(device, path, errors);
    if !allocated.contains(&id(device)) {
        errors.invalid(path, shown(&id(device)), "must be an allocated device in the claim");
    }
    let conditions = array(device, "conditions");
    if conditions.len() > CONDITIONS_MAX {
        errors.too_many(&path.child("conditions"), conditions.len(), CONDITIONS_MAX);
    }
    crate::meta::conditions(conditions, &path.child("conditions"), errors);
    if let Some(data) = at(device, "data") {
        json_object(data, DATA_MAX, &path.child("data"), errors);
    }
    if let Some(network) = at(device, "networkData") {
        check_network(network, &path.child("networkData"), errors);
    }
}

fn check_network(network: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for (field, max) in [("interfaceName", INTERFACE_MAX), ("hardwareAddress", HARDWARE_ADDRESS_MAX)] {
        if text(network, field).len() > max {
            errors.too_long(&path.child(field), max);
        }
    }
    let (ips, list) = (array(network, "ips"), path.child("ips"));
    each(ips, IPS_MAX, None, &list, errors, |address, path, errors| {
        let address = address.as_str().unwrap_or("");
        match ip::parse_cidr(&without_leading_zeros(address)) {
            None => {
                let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
                errors.invalid(path, address, why);
            }
            Some((parsed, length)) => {
                let canonical = format!("{parsed}/{length}");
                if address != canonical {
                    errors.invalid(path, address, format!("must be in canonical form ({canonical:?})"));
                }
            }
        }
    });
    for (i, address) in ips.iter().enumerate().filter(|(i, address)| ips.len() <= IPS_MAX && ips[..*i].contains(address)) {
        errors.duplicate(&list.index(i), address.clone());
    }
}

/// Upstream reads an address of IPv4 with zeros before its numbers, and then says how it is written.
fn without_leading_zeros(address: &str) -> String {
    let Some((ip, length)) = address.split_once('/').filter(|(ip, _)| !ip.contains(':')) else { return address.to_owned() };
    let number = |text: &str| match text.trim_start_matches('0') {
        "" if !text.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    format!("{}/{}", ip.split('.').map(number).collect::<Vec<_>>().join("."), number(length))
}

/// Which of several users of a device this is, by a UID.
fn share(device: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(uid) = at(device, "shareID").and_then(Value::as_str) else { return };
    let path = path.child("shareID");
    let hyphens = [8, 13, 18, 23];
    let bytes = uid.as_bytes();
    let formed =
        bytes.len() == 36 && bytes.iter().enumerate().all(|(i, b)| if hyphens.contains(&i) { *b == b'-' } else { b.is_ascii_hexdigit() });
    if !formed {
        let why = if bytes.len() == 36 { "invalid UUID format".to_owned() } else { format!("invalid UUID length: {}", bytes.len()) };
        errors.invalid(&path, uid, format!("error validating uid: {why}"));
    } else if uid.bytes().any(|b| b.is_ascii_uppercase()) {
        let why = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        errors.invalid(&path, uid, why);
    }
}

/// Driver, pool, device, and the share of it.
type Id = [String; 4];

fn id(device: &Value) -> Id {
    ["driver", "pool", "device", "shareID"].map(|field| text(device, field).to_owned())
}

fn shown([driver, pool, device, share]: &Id) -> Value {
    let mut shown = json!({"Driver": driver, "Pool": pool, "Device": device});
    if !share.is_empty() {
        shown["ShareID"] = json!(share);
    }
    shown
}

fn allocated(claim: &Value) -> BTreeSet<Id> {
    array(claim, "status.allocation.devices.results").iter().map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(status: Value) -> Value {
        json!({"spec": {"devices": {"requests": [{"name": "r"}]}}, "status": status})
    }

    fn result(device: &str) -> Value {
        json!({"request": "r", "driver": "d", "pool": "p", "device": device})
    }

    fn faults(new: &Value, old: &Value) -> String {
        let mut errors = ErrorList::new();
        check(new, old, &mut errors);
        if errors.is_empty() { String::new() } else { errors.message() }
    }

    #[test]
    fn a_status_fits_its_claim() {
        let allocation = json!({"devices": {"results": [result("x")]}});
        let allocated = claim(json!({"allocation": allocation, "reservedFor": [{"resource": "pods", "name": "a", "uid": "u"}]}));
        let empty = claim(json!({}));
        assert_eq!(faults(&allocated, &empty), "");
        let device = json!({"driver": "d", "pool": "p", "device": "y", "shareID": "X", "networkData": {"ips": ["010.0.0.1/24", "x"]}});
        for (status, fault) in [
            (json!({"reservedFor": [{"resource": "pods", "name": "a", "uid": "u"}]}), "may not be specified when `allocated` is not set"),
            (json!({"allocation": {"devices": {"results": [{"request": "s"}]}}}), "must be the name of a request in the claim"),
            (json!({"devices": [device]}), "must be an allocated device in the claim"),
            (json!({"devices": [device]}), "error validating uid: invalid UUID length: 1"),
            (json!({"devices": [device]}), "must be in canonical form (\"10.0.0.1/24\")"),
            (
                json!({"devices": [{"conditions": [{"type": "A", "reason": "1"}]}]}),
                "a condition reason must start with alphabetic character",
            ),
        ] {
            let told = faults(&claim(status), &empty);
            assert!(told.contains(fault), "{told}\nwanted: {fault}");
        }
        let mut moved = allocated.clone();
        moved["status"]["allocation"]["devices"]["results"][0]["device"] = json!("y");
        assert!(faults(&moved, &allocated).contains("field is immutable"));
        let mut leaving = allocated.clone();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        leaving["status"]["reservedFor"][0]["name"] = json!("b");
        assert!(faults(&leaving, &allocated).contains("new entries may not be added"));
    }

    #[test]
    fn what_is_told_of_devices_goes_with_them() {
        let of = |devices: [&str; 2]| json!({"devices": {"results": devices.map(result)}});
        let told = |device: &str| json!({"driver": "d", "pool": "p", "device": device});
        let old = claim(json!({"allocation": of(["x", "y"]), "devices": [told("x"), told("y")]}));
        let user = crate::strategy::User { name: "", uid: "", groups: &[], extra: &Default::default() };
        let ctx = Ctx { now: Default::default(), user };
        let mut new = claim(json!({"devices": [told("x"), told("y"), told("z")]}));
        prepare(&mut new, &old, &ctx);
        assert_eq!(new["status"], json!({"devices": [told("z")]}));
        let mut new = claim(json!({"allocation": of(["x", "z"]), "devices": [told("x"), told("y")]}));
        prepare(&mut new, &old, &ctx);
        assert_eq!(new["status"]["devices"], json!([told("x")]));
        let mut new = claim(json!({"devices": [told("y")]}));
        prepare(&mut new, &old, &ctx);
        assert_eq!(new["status"], json!({}));
    }
}
