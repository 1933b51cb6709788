//! Endpoints: the addresses behind a Service, in the old form.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, ip, names, object};
use tiphys_types::jiff::Timestamp;

use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, or_none};
use crate::tree::{array, array_mut, int, said, set_default, text};

pub(crate) static STRATEGY: Strategy =
    Strategy::new(true).create_on_update().defaults(defaults).checks(check, |_, _, _| {}).table(COLUMNS, cells).warnings_by(warnings);

const COLUMNS: &[Column] = &[NAME, column("Endpoints"), AGE];
const SHOWN: usize = 3;

fn defaults(o: &mut Value) {
    for subset in array_mut(o, "subsets") {
        for port in array_mut(subset, "ports") {
            set_default(port, "protocol", "TCP");
        }
    }
}

fn warnings(_: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some() { Vec::new() } else { vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into()] }
}

fn check(o: &Value, errors: &mut ErrorList) {
    let subsets = Path::new("subsets");
    for (i, subset) in array(o, "subsets").iter().enumerate() {
        let path = subsets.index(i);
        if array(subset, "addresses").is_empty() && array(subset, "notReadyAddresses").is_empty() {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in ["addresses", "notReadyAddresses"] {
            for (j, address) in array(subset, list).iter().enumerate() {
                check_address(address, &path.child(list).index(j), errors);
            }
        }
        let ports = array(subset, "ports");
        for (j, port) in ports.iter().enumerate() {
            check_port(port, ports.len() > 1, &path.child("ports").index(j), errors);
        }
    }
}

fn check_address(address: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let ip_path = path.child("ip");
    ip::validate(errors, &ip_path, text(address, "ip"));
    let hostname = text(address, "hostname");
    if !hostname.is_empty() {
        errors.invalid_all(&path.child("hostname"), hostname, names::dns1123_label(hostname));
    }
    if let Some(node) = said(address, "nodeName") {
        errors.invalid_all(&path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    match ip::parse(text(address, "ip")) {
        Some(address) => special_purpose(address, &ip_path, errors),
        // The second of upstream's rules does not stop at the first one's error.
        None => errors.invalid(&ip_path, text(address, "ip"), "must be a valid IP address"),
    }
}

/// Addresses that cannot be a service's: they would let a user reach what is not theirs.
pub(crate) fn special_purpose(address: std::net::IpAddr, path: &Path<'_>, errors: &mut ErrorList) {
    let shown = address.to_string();
    if address.is_unspecified() {
        errors.invalid(path, shown.as_str(), format!("may not be unspecified ({shown})"));
    }
    if address.is_loopback() {
        errors.invalid(path, shown.as_str(), "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, link_local_multicast) = match address {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        errors.invalid(path, shown.as_str(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        errors.invalid(path, shown.as_str(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn check_port(port: &Value, require_name: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let name = text(port, "name");
    if require_name && name.is_empty() {
        errors.required(&path.child("name"), "");
    } else if !name.is_empty() {
        errors.invalid_all(&path.child("name"), name, names::dns1123_label(name));
    }
    let number = int(port, "port");
    for message in names::port_number(number) {
        errors.invalid(&path.child("port"), number, message);
    }
    super::service::check_protocol(text(port, "protocol"), &path.child("protocol"), errors);
    app_protocol(port, path, errors);
}

pub(crate) fn app_protocol(port: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(protocol) = said(port, "appProtocol") {
        errors.invalid_all(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
    }
}

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in array(o, "subsets") {
        let ports = array(subset, "ports");
        for address in array(subset, "addresses") {
            let host = text(address, "ip");
            if ports.is_empty() {
                all.push(host.to_owned());
            }
            let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            all.extend(ports.iter().map(|port| format!("{bracketed}:{}", int(port, "port"))));
        }
    }
    vec![object::name(o).into(), or_none(first_of(&all)).into(), age(o, now)]
}

/// The first three, and how many there are beyond.
pub(crate) fn first_of(all: &[String]) -> String {
    let shown = all[..all.len().min(SHOWN)].join(",");
    if all.len() > SHOWN { format!("{shown} + {} more...", all.len() - SHOWN) } else { shown }
}
