//! `discovery.k8s.io`: EndpointSlice, the addresses behind a Service.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, ip, names, object};
use tiphys_types::jiff::Timestamp;

use crate::core::endpoints::{app_protocol, first_of, special_purpose};
use crate::resources::Entry;
use crate::strategy::{Column, Generation, Strategy, bump_generation};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, array_mut, at, int, remove, said, set_absent, text};

static SLICE: Strategy = Strategy::new(true)
    // It starts at 1; what moves it is seen before the topology is dropped.
    .generation(Generation::When(|_, _| false))
    .defaults(defaults)
    .on_create(|o, _| drop_topology(o, None))
    .on_update(|new, old, _| {
        if changed(new, old) {
            bump_generation(new, old);
        }
        if new.get("endpoints") != old.get("endpoints") {
            drop_topology(new, Some(old));
        }
    })
    .checks(check, |new, old, errors| {
        if new.get("endpoints") != old.get("endpoints") {
            check_endpoints(new, errors);
        }
        crate::meta::immutable(new.get("addressType"), old.get("addressType"), &Path::new("addressType"), errors);
    })
    .check_created(check_endpoints)
    .table(COLUMNS, cells);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("endpointslices", &SLICE)];

/// Labels count: they say whose the slice is.
fn changed(new: &Value, old: &Value) -> bool {
    ["endpoints", "ports", "addressType"].iter().any(|f| new.get(f) != old.get(f))
        || at(new, "metadata.labels") != at(old, "metadata.labels")
}

fn defaults(o: &mut Value) {
    for port in array_mut(o, "ports") {
        set_absent(port, "name", "");
        set_absent(port, "protocol", "TCP");
    }
}

/// The topology of an endpoint was v1beta1's; v1 only shows what is left of it. A node that it named becomes the endpoint's node.
fn drop_topology(o: &mut Value, old: Option<&Value>) {
    const HOST: &str = "kubernetes.io/hostname";
    let node = |e: &Value| e.get("deprecatedTopology").and_then(|t| t.get(HOST)).and_then(Value::as_str).map(str::to_owned);
    let known: Vec<String> = old.map(|o| array(o, "endpoints").iter().filter_map(node).collect()).unwrap_or_default();
    for endpoint in array_mut(o, "endpoints") {
        if let Some(name) = node(endpoint).filter(|n| known.contains(n) && names::dns1123_subdomain(n).is_empty()) {
            set_absent(endpoint, "nodeName", name);
        }
        remove(endpoint, "deprecatedTopology");
    }
}

fn check(o: &Value, errors: &mut ErrorList) {
    let kind = text(o, "addressType");
    match kind {
        "IPv4" | "IPv6" | "FQDN" => {}
        "" => errors.required(&Path::new("addressType"), ""),
        other => errors.not_supported(&Path::new("addressType"), other, &["FQDN", "IPv4", "IPv6"]),
    }
    check_ports(array(o, "ports"), &Path::new("ports"), errors);
}

fn check_endpoints(o: &Value, errors: &mut ErrorList) {
    let kind = text(o, "addressType");
    let (endpoints, list) = (array(o, "endpoints"), Path::new("endpoints"));
    if endpoints.len() > 1000 {
        errors.too_many(&list, endpoints.len(), 1000);
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        check_endpoint(endpoint, kind, &list.index(i), errors);
    }
}

fn check_endpoint(endpoint: &Value, kind: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let (addresses, list) = (array(endpoint, "addresses"), path.child("addresses"));
    if addresses.is_empty() {
        errors.required(&list, "must contain at least 1 address");
    } else if addresses.len() > 100 {
        errors.too_many(&list, addresses.len(), 100);
    }
    for (i, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        check_address(address, kind, &list, i, errors);
    }
    if let Some(node) = said(endpoint, "nodeName") {
        errors.invalid_all(&path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    if let Some(host) = at(endpoint, "hostname").and_then(Value::as_str) {
        errors.invalid_all(&path.child("hostname"), host, names::dns1123_label(host));
    }
    for hints in ["forZones", "forNodes"] {
        let (all, parent) = (at(endpoint, "hints").map(|h| array(h, hints)).unwrap_or_default(), path.child("hints"));
        let list = parent.child(hints);
        if all.len() > 8 {
            errors.too_many(&list, all.len(), 8);
        }
        for (i, hint) in all.iter().enumerate() {
            let (name, at) = (text(hint, "name"), list.index(i));
            if all[..i].iter().any(|h| text(h, "name") == name) {
                errors.duplicate(&at.child("name"), name);
            }
            let wrong = if hints == "forNodes" { names::dns1123_subdomain(name) } else { names::label_value(name) };
            errors.invalid_all(&at.child("name"), name, wrong);
        }
    }
}

fn check_address(address: &str, kind: &str, list: &Path<'_>, i: usize, errors: &mut ErrorList) {
    let path = list.index(i);
    if kind == "FQDN" {
        errors.invalid_all(&path, address, names::dns1123_subdomain(address.strip_suffix('.').unwrap_or(address)));
        return;
    }
    let before = errors.len();
    if kind == "IPv6" {
        ip::validate_canonical(errors, &path, address)
    } else {
        ip::validate(errors, &path, address)
    }
    if let (true, Some(parsed)) = (errors.len() == before, ip::parse(address)) {
        if parsed.is_ipv6() != (kind == "IPv6") {
            errors.invalid(list, address, format!("must be an {kind} address"));
        }
        special_purpose(parsed, &path, errors);
    }
}

fn check_ports(ports: &[Value], list: &Path<'_>, errors: &mut ErrorList) {
    if ports.len() > 20000 {
        errors.too_many(list, ports.len(), 20000);
        return;
    }
    for (i, port) in ports.iter().enumerate() {
        let (path, name) = (list.index(i), text(port, "name"));
        if !name.is_empty() {
            errors.invalid_all(&path.child("name"), name, names::dns1123_label(name));
        }
        if ports[..i].iter().any(|p| text(p, "name") == name) {
            errors.duplicate(&path.child("name"), name);
        }
        crate::tree::one_of(at(port, "protocol"), &["SCTP", "TCP", "UDP"], &path.child("protocol"), errors);
        app_protocol(port, &path, errors);
    }
}

const COLUMNS: &[Column] = &[NAME, column("AddressType"), column("Ports"), column("Endpoints"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let port = |p: &Value| match (int(p, "port"), text(p, "name")) {
        (0, "") => "*".to_owned(),
        (0, name) => name.to_owned(),
        (number, _) => number.to_string(),
    };
    let ports: Vec<String> = array(o, "ports").iter().map(port).collect();
    let addresses = array(o, "endpoints").iter().flat_map(|e| array(e, "addresses")).filter_map(Value::as_str);
    let addresses: Vec<String> = addresses.map(str::to_owned).collect();
    let or_unset = |all: &[String]| if all.is_empty() { "<unset>".to_owned() } else { first_of(all) };
    vec![object::name(o).into(), text(o, "addressType").into(), or_unset(&ports).into(), or_unset(&addresses).into(), age(o, now)]
}
