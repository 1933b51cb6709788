use std::collections::BTreeSet;

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, ip, names};

use crate::core::endpoints::{app_protocol, special_purpose};
use crate::tree::{array, at, int, one_of, said, text};

const AFFINITY_MAX: i64 = 86400;
const SPEC: Path<'static> = Path::new("spec");

fn is_headless(o: &Value) -> bool {
    matches!(array(o, "spec.clusterIPs"), [ip] if ip == "None")
}

/// A node port, a load balancer or external IPs lead to it from outside.
pub(super) fn externally_accessible(spec: &Value) -> bool {
    match text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !array(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

pub(super) fn check(o: &Value, errors: &mut ErrorList) {
    let kind = text(o, "spec.type");
    if array(o, "spec.ports").is_empty() && !is_headless(o) && kind != "ExternalName" {
        errors.required(&SPEC.child("ports"), "");
    }
    check_type(o, kind, errors);
    check_ports(o, errors);
    if let Some(selector) = at(o, "spec.selector") {
        crate::meta::labels(Some(selector), &SPEC.child("selector"), errors);
    }
    check_affinity(o, errors);
    if kind != "ExternalName" {
        check_cluster_ips(o, errors);
    }
    let external = SPEC.child("externalIPs");
    for (i, value) in array(o, "spec.externalIPs").iter().filter_map(Value::as_str).enumerate() {
        let (path, before) = (external.index(i), errors.len());
        ip::validate(errors, &path, value);
        if let (true, Some(address)) = (errors.len() == before, ip::parse(value)) {
            special_purpose(address, &path, errors);
        }
    }
    check_balancer(o, kind, errors);
    check_traffic(o, errors);
}

fn check_type(o: &Value, kind: &str, errors: &mut ErrorList) {
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(o) => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&SPEC.child("clusterIPs").index(0), "None", why);
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies"] {
                if !array(o, &format!("spec.{field}")).is_empty() {
                    errors.forbidden(&SPEC.child(field), "may not be set for ExternalName services");
                }
            }
            if at(o, "spec.ipFamilyPolicy").is_some() {
                errors.forbidden(&SPEC.child("ipFamilyPolicy"), "may not be set for ExternalName services");
            }
            let name = text(o, "spec.externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                errors.required(&SPEC.child("externalName"), "");
            } else {
                errors.invalid_all(&SPEC.child("externalName"), name, names::dns1123_subdomain(name));
            }
        }
        "" => errors.required(&SPEC.child("type"), ""),
        "ClusterIP" | "NodePort" | "LoadBalancer" => {}
        other => errors.not_supported(&SPEC.child("type"), other, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
    }
}

fn check_ports(o: &Value, errors: &mut ErrorList) {
    let (ports, path) = (array(o, "spec.ports"), SPEC.child("ports"));
    let (mut names, mut node_ports, mut numbers) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        check_port(port, ports.len() > 1, &mut names, &path.index(i), errors);
    }
    for (i, port) in ports.iter().enumerate() {
        let (path, node_port, protocol) = (path.index(i), int(port, "nodePort"), text(port, "protocol"));
        if node_port != 0 && text(o, "spec.type") == "ClusterIP" {
            errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        if node_port != 0 && !node_ports.insert((protocol, node_port)) {
            errors.duplicate(&path.child("nodePort"), node_port);
        }
        if !numbers.insert((protocol, int(port, "port"))) {
            // Upstream prints its internal struct, with every field.
            let shown =
                json!({"Name": "", "Protocol": protocol, "AppProtocol": null, "Port": int(port, "port"), "TargetPort": 0, "NodePort": 0});
            errors.duplicate(&path, shown);
        }
    }
}

fn check_port<'v>(port: &'v Value, require_name: bool, all: &mut BTreeSet<&'v str>, path: &Path<'_>, errors: &mut ErrorList) {
    let name = text(port, "name");
    if name.is_empty() && require_name {
        errors.required(&path.child("name"), "");
    } else if !name.is_empty() {
        errors.invalid_all(&path.child("name"), name, names::dns1123_label(name));
        if !all.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
    }
    let number = int(port, "port");
    for message in names::port_number(number) {
        errors.invalid(&path.child("port"), number, message);
    }
    check_protocol(text(port, "protocol"), &path.child("protocol"), errors);
    port_number_or_name(port.get("targetPort"), &path.child("targetPort"), errors);
    app_protocol(port, path, errors);
}

pub(crate) fn check_protocol(protocol: &str, path: &Path<'_>, errors: &mut ErrorList) {
    match protocol {
        "TCP" | "UDP" | "SCTP" => {}
        "" => errors.required(path, ""),
        other => errors.not_supported(path, other, &["SCTP", "TCP", "UDP"]),
    }
}

pub(crate) fn port_number_or_name(port: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    match port {
        Some(Value::String(name)) => errors.invalid_all(path, name, names::port_name(name)),
        other => {
            let number = other.and_then(Value::as_i64).unwrap_or(0);
            for message in names::port_number(number) {
                errors.invalid(path, number, message);
            }
        }
    }
}

fn check_affinity(o: &Value, errors: &mut ErrorList) {
    let config = SPEC.child("sessionAffinityConfig");
    let given = at(o, "spec.sessionAffinityConfig");
    match text(o, "spec.sessionAffinity") {
        "" => errors.required(&SPEC.child("sessionAffinity"), ""),
        "None" if given.is_some() => errors.forbidden(&config, "must not be set when session affinity is None"),
        "None" => {}
        "ClientIP" => match given.and_then(|g| at(g, "clientIP.timeoutSeconds")).and_then(Value::as_i64) {
            None => errors.required(&config, "when session affinity type is ClientIP"),
            Some(seconds) if !(1..=AFFINITY_MAX).contains(&seconds) => {
                let why = format!("must be greater than 0 and less than {AFFINITY_MAX}");
                errors.invalid(&config.child("clientIP.timeoutSeconds"), seconds, why);
            }
            Some(_) => {}
        },
        other => errors.not_supported(&SPEC.child("sessionAffinity"), other, &["ClientIP", "None"]),
    }
}

/// What allocation takes for granted: looked at before it begins.
pub fn addresses(service: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if text(service, "spec.type") != "ExternalName" {
        check_cluster_ips(service, &mut errors);
    }
    errors
}

fn check_cluster_ips(o: &Value, errors: &mut ErrorList) {
    let (one, all, path) = (text(o, "spec.clusterIP"), array(o, "spec.clusterIPs"), SPEC.child("clusterIPs"));
    match (one.is_empty(), all.first()) {
        (false, None) => errors.required(&path, ""),
        (false, Some(first)) if first != one => errors.invalid(&path, all.to_vec(), "first value must match `clusterIP`"),
        (true, Some(_)) => errors.invalid(&path, all.to_vec(), "must be empty when `clusterIP` is not specified"),
        _ => {}
    }
    let (families, families_path) = (array(o, "spec.ipFamilies"), SPEC.child("ipFamilies"));
    for (i, family) in families.iter().enumerate() {
        if !matches!(family.as_str(), Some("IPv4" | "IPv6")) {
            errors.not_supported(&families_path.index(i), family.clone(), &["IPv4", "IPv6"]);
        }
        if families[..i].contains(family) {
            errors.duplicate(&families_path.index(i), family.clone());
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    one_of(at(o, "spec.ipFamilyPolicy"), &policies, &SPEC.child("ipFamilyPolicy"), errors);
    let before = errors.len();
    for (i, value) in all.iter().filter_map(Value::as_str).enumerate() {
        if i == 0 && value == "None" {
            if all.len() > 1 {
                errors.invalid(&path, all.to_vec(), "'None' must be the first and only value");
            }
        } else {
            ip::validate(errors, &path.index(i), value);
        }
    }
    if all.len() > 2 {
        errors.invalid(&path, all.to_vec(), "may only hold up to 2 values");
    }
    if errors.len() == before {
        check_families(all, families, &path, errors);
    }
}

fn check_families(all: &[Value], families: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    let is_v6 = |v: &Value| v.as_str().is_some_and(|ip| ip.contains(':'));
    if let [first, second] = all
        && is_v6(first) == is_v6(second)
    {
        errors.invalid(path, all.to_vec(), "may specify no more than one IP for each IP family");
    }
    for (i, (value, family)) in all.iter().zip(families).enumerate().filter(|(_, (value, _))| *value != "None") {
        if (family == "IPv6") != is_v6(value) {
            let family = family.as_str().unwrap_or("");
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(&path.index(i), value.clone(), why);
        }
    }
}

fn check_balancer(o: &Value, kind: &str, errors: &mut ErrorList) {
    let balancer = kind == "LoadBalancer";
    // The field's name is upstream's, capital letter included.
    let path = SPEC.child("LoadBalancerSourceRanges");
    let ranges = array(o, "spec.loadBalancerSourceRanges");
    if !ranges.is_empty() && !balancer {
        errors.forbidden(&path, "may only be used when `type` is 'LoadBalancer'");
    }
    for (i, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
        ip::validate_cidr(errors, &path.index(i), range.trim());
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if !balancer && at(o, "spec").and_then(|s| at(s, field)).is_some() {
            errors.forbidden(&SPEC.child(field), "may only be used when `type` is 'LoadBalancer'");
        }
    }
    if let Some(class) = said(o, "spec.loadBalancerClass").filter(|_| balancer) {
        errors.invalid_all(&SPEC.child("loadBalancerClass"), class, names::qualified_name(class));
    }
}

fn check_traffic(o: &Value, errors: &mut ErrorList) {
    let external = text(o, "spec.externalTrafficPolicy");
    let path = SPEC.child("externalTrafficPolicy");
    let accessible = at(o, "spec").is_some_and(externally_accessible);
    match (accessible, external) {
        (false, "") | (true, "Cluster" | "Local") => {}
        (false, other) => errors.invalid(&path, other, "may only be set for externally-accessible services"),
        (true, "") => errors.required(&path, ""),
        (true, other) => errors.not_supported(&path, other, &["Cluster", "Local"]),
    }
    // A missing health check port is allocated; one that is set must have a use.
    let port = int(o, "spec.healthCheckNodePort");
    if port != 0 && !(text(o, "spec.type") == "LoadBalancer" && external == "Local") {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&SPEC.child("healthCheckNodePort"), port, why);
    }
    one_of(at(o, "spec.internalTrafficPolicy"), &["Cluster", "Local"], &SPEC.child("internalTrafficPolicy"), errors);
    let distribution = text(o, "spec.trafficDistribution");
    if !matches!(distribution, "" | "PreferClose" | "PreferSameZone" | "PreferSameNode") {
        let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        errors.not_supported(&SPEC.child("trafficDistribution"), distribution, &known);
    }
}

pub(super) fn check_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    // Of one that has no addresses there is nothing to keep, and of an unknown type neither.
    if [new, old].iter().any(|o| !matches!(text(o, "spec.type"), "ClusterIP" | "NodePort" | "LoadBalancer")) {
        return;
    }
    if !(is_headless(new) && is_headless(old)) {
        fixed_list(new, old, "clusterIPs", "primary clusterIP can not be unset", "clusterIP", errors);
    }
    if !is_headless(new) && !is_headless(old) {
        fixed_list(new, old, "ipFamilies", "primary ipFamily can not be unset", "ipFamily", errors);
    }
    if text(new, "spec.type") == "LoadBalancer"
        && text(old, "spec.type") == "LoadBalancer"
        && text(new, "spec.loadBalancerClass") != text(old, "spec.loadBalancerClass")
    {
        let shown = at(new, "spec.loadBalancerClass").cloned().unwrap_or(Value::Null);
        errors.invalid(&SPEC.child("loadBalancerClass"), shown, "may not change once set");
    }
}

/// The first value stays for good; a second may come, and go with `ipFamilyPolicy: SingleStack`.
fn fixed_list(new: &Value, old: &Value, field: &str, unset: &str, one: &str, errors: &mut ErrorList) {
    let path = format!("spec.{field}");
    let (after, before) = (array(new, &path), array(old, &path));
    let list = SPEC.child(field);
    if after.is_empty() && !before.is_empty() {
        errors.invalid(&list.index(0), Value::Null, unset);
        return;
    }
    for (i, (a, b)) in after.iter().zip(before).enumerate() {
        if a != b {
            errors.invalid(&list.index(i), after.to_vec(), "may not change once set");
        }
    }
    if after.len() == 1 && before.len() > 1 && text(new, "spec.ipFamilyPolicy") != "SingleStack" {
        let shown = at(new, "spec.ipFamilyPolicy").cloned().unwrap_or(Value::Null);
        let why = format!("must be set to 'SingleStack' when releasing the secondary {one}");
        errors.invalid(&SPEC.child("ipFamilyPolicy"), shown, why);
    }
}

pub(super) fn status(new: &Value, _: &Value, errors: &mut ErrorList) {
    let ingress = array(new, "status.loadBalancer.ingress");
    let status = Path::new("status");
    let path = status.child("loadBalancer.ingress");
    if text(new, "spec.type") != "LoadBalancer" && !ingress.is_empty() {
        errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    for (i, entry) in ingress.iter().enumerate() {
        let path = path.index(i);
        let (address, mode, host) = (text(entry, "ip"), text(entry, "ipMode"), text(entry, "hostname"));
        if !address.is_empty() {
            ip::validate(errors, &path.child("ip"), address);
        }
        match (address.is_empty(), mode) {
            (false, "") => errors.required(&path.child("ipMode"), "must be specified when `ip` is set"),
            (true, mode) if !mode.is_empty() => errors.forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set"),
            (false, mode) if !matches!(mode, "VIP" | "Proxy") => {
                errors.not_supported(&path.child("ipMode"), mode, &["Proxy", "VIP"]);
            }
            _ => {}
        }
        if !host.is_empty() {
            errors.invalid_all(&path.child("hostname"), host, names::dns1123_subdomain(host));
            if ip::parse(host).is_some() {
                errors.invalid(&path.child("hostname"), host, "must be a DNS name, not an IP address");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> String {
        let mut o = json!({"spec": spec});
        super::super::defaults(&mut o);
        let mut errors = ErrorList::new();
        check(&o, &mut errors);
        if errors.is_empty() { String::new() } else { errors.message() }
    }

    #[test]
    fn services() {
        assert_eq!(service(json!({"ports": [{"port": 80}]})), "");
        assert_eq!(service(json!({})), "spec.ports: Required value");
        assert_eq!(service(json!({"clusterIP": "None", "clusterIPs": ["None"]})), "");
        assert_eq!(service(json!({"type": "ExternalName", "externalName": "a.b."})), "");
        assert_eq!(service(json!({"type": "ExternalName"})), "spec.externalName: Required value");
        assert_eq!(
            service(json!({"ports": [{"port": 0}]})),
            "[spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive]"
        );
        assert_eq!(
            service(json!({"ports": [{"port": 1}, {"port": 2}]})),
            "[spec.ports[0].name: Required value, spec.ports[1].name: Required value]"
        );
        assert_eq!(
            service(json!({"ports": [{"port": 1}], "clusterIP": "1.2.3.4", "clusterIPs": ["1.2.3.5"]})),
            "spec.clusterIPs: Invalid value: [\"1.2.3.5\"]: first value must match `clusterIP`"
        );
    }

    #[test]
    fn cluster_ips_stay() {
        let old = json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.1"]}});
        let mut errors = ErrorList::new();
        check_update(&json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.2"]}}), &old, &mut errors);
        assert_eq!(errors.message(), "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set");
    }
}
