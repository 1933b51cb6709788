//! What an update of a Service keeps from the old object, and what it lets go when the type changes.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tiphys_meta::object;

use super::validation::externally_accessible;
use crate::strategy::Ctx;
use crate::tree::{array, array_mut, at, child, int, remove, text};

pub(super) fn on_create(o: &mut Value, _: &Ctx<'_>) {
    let spec = child(o, "spec");
    let ip = text(spec, "clusterIP").to_owned();
    if !ip.is_empty() && array(spec, "clusterIPs").is_empty() {
        spec["clusterIPs"] = json!([ip]);
    }
}

pub(super) fn on_update(new: &mut Value, old: &Value, _: &Ctx<'_>) {
    prepare(new, old);
}

pub(super) fn prepare(new: &mut Value, old: &Value) {
    let empty = json!({});
    let old_spec = old.get("spec").unwrap_or(&empty);
    let spec = child(new, "spec");
    patch_allocated(spec, old_spec);
    normalize_cluster_ips(spec, old_spec);
    drop_by_type(spec, old_spec);
    if text(spec, "type") != "LoadBalancer"
        && let Some(status) = crate::tree::present(new, "status")
    {
        status["loadBalancer"] = json!({});
    }
}

fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_port(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => at(spec, "allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true),
        _ => false,
    }
}

fn needs_health_check_port(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn patch_allocated(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        if text(spec, "clusterIP").is_empty() {
            copy(spec, old, "clusterIP");
        }
        if array(spec, "clusterIPs").is_empty() && text(spec, "clusterIP") == text(old, "clusterIP") {
            copy(spec, old, "clusterIPs");
        }
    }
    if needs_node_port(old) && needs_node_port(spec) {
        patch_node_ports(spec, old);
    }
    if needs_health_check_port(old) && needs_health_check_port(spec) && int(spec, "healthCheckNodePort") == 0 {
        copy(spec, old, "healthCheckNodePort");
    }
}

fn patch_node_ports(spec: &mut Value, old: &Value) {
    let ports = |s: &Value| -> Vec<i64> { array(s, "ports").iter().map(|p| int(p, "nodePort")).filter(|p| *p != 0).collect() };
    let given = ports(spec);
    let mut used: Vec<i64> = ports(old).into_iter().filter(|p| given.contains(p)).collect();
    let by_name: BTreeMap<String, i64> = array(old, "ports").iter().map(|p| (text(p, "name").to_owned(), int(p, "nodePort"))).collect();
    for port in array_mut(spec, "ports") {
        let known = by_name.get(text(port, "name")).copied().unwrap_or(0);
        if int(port, "nodePort") == 0 && known != 0 && !used.contains(&known) {
            port["nodePort"] = json!(known);
            used.push(known);
        }
    }
}

/// A client that knows only `clusterIP` changed it: the list follows.
fn normalize_cluster_ips(spec: &mut Value, old: &Value) {
    let (ip, before) = (text(spec, "clusterIP").to_owned(), text(old, "clusterIP"));
    if ip == before || array(spec, "clusterIPs") != array(old, "clusterIPs") {
        return;
    }
    if ip.is_empty() {
        remove(spec, "clusterIPs");
    } else {
        spec["clusterIPs"] = json!([ip]);
    }
}

/// Fields of the old type that the client only carried along.
fn drop_by_type(spec: &mut Value, old: &Value) {
    let drop_same = |spec: &mut Value, field: &str| {
        if at(spec, field) == at(old, field) {
            remove(spec, field);
        }
    };
    if needs_cluster_ip(old) && !needs_cluster_ip(spec) {
        if at(spec, "clusterIPs") == at(old, "clusterIPs") && at(spec, "clusterIP") == at(old, "clusterIP") {
            remove(spec, "clusterIP");
            remove(spec, "clusterIPs");
        }
        drop_same(spec, "internalTrafficPolicy");
        drop_same(spec, "ipFamilies");
        drop_same(spec, "ipFamilyPolicy");
    }
    if needs_node_port(old) && !needs_node_port(spec) && same_node_ports(spec, old) {
        array_mut(spec, "ports").iter_mut().for_each(|p| remove(p, "nodePort"));
    }
    if needs_health_check_port(old) && !needs_health_check_port(spec) {
        drop_same(spec, "healthCheckNodePort");
    }
    if text(old, "type") == "LoadBalancer" && text(spec, "type") != "LoadBalancer" {
        drop_same(spec, "allocateLoadBalancerNodePorts");
        drop_same(spec, "loadBalancerClass");
    }
    if externally_accessible(old) && !externally_accessible(spec) {
        drop_same(spec, "externalTrafficPolicy");
    }
}

fn same_node_ports(spec: &Value, old: &Value) -> bool {
    let ports = |s: &Value| {
        let mut all: Vec<i64> = array(s, "ports").iter().map(|p| int(p, "nodePort")).filter(|p| *p != 0).collect();
        all.sort_unstable();
        all
    };
    ports(spec) == ports(old)
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    if let Some(value) = at(from, field) {
        object::as_map(to).insert(field.into(), value.clone());
    }
}

pub(super) fn warnings(o: &Value, _: Option<&Value>) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |bad: bool, why: &str| {
        if bad {
            all.push(why.to_owned());
        }
    };
    let kind = text(o, "spec.type");
    let headless = matches!(array(o, "spec.clusterIPs"), [ip] if ip == "None") || text(o, "spec.clusterIP") == "None";
    let external = !array(o, "spec.externalIPs").is_empty();
    let hints = object::annotations(o).any(|(k, _)| k == "service.kubernetes.io/topology-aware-hints");
    say(
        hints,
        "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead",
    );
    say(headless && !text(o, "spec.loadBalancerIP").is_empty(), "spec.loadBalancerIP is ignored for headless services");
    say(headless && external, "spec.externalIPs is ignored for headless services");
    say(headless && text(o, "spec.sessionAffinity") != "None", "spec.SessionAffinity is ignored for headless services");
    say(
        external && !headless && kind != "ExternalName",
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
    );
    say(external && kind == "ExternalName", "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    let named = !text(o, "spec.externalName").is_empty();
    say(named && kind != "ExternalName", "spec.externalName is ignored when spec.type is not \"ExternalName\"");
    say(
        text(o, "spec.trafficDistribution") == "PreferClose",
        "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
    );
    all
}
