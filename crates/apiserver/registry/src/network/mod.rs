//! What a Service gets from the cluster: addresses of its families, node ports, a health check port.
//!
//! The rules of the kind (`prepare_*`) have run before: what the client left out is filled in from the old object, what the new type does not have
//! is dropped. What remains empty and is needed is allocated here. Released addresses and ports become free when the write is seen in the cache.
//! Every ClusterIP has an IPAddress object that comes and goes in the same transaction as the Service's hold on it (KEP-1880).
//!
//! Deliberately absent: the repair of IPAddress objects that somebody deleted under a living Service.

mod addresses;
mod allocator;
mod families;

use serde_json::{Value, json};
use tiphys_meta::{ApiError, ErrorList, Path, object};

pub(crate) use addresses::{Beside, beside};
pub(crate) use allocator::{Allocator, Reserved};

const SPEC: Path<'static> = Path::new("spec");

pub(crate) fn on_create(allocator: &Allocator, service: &mut Value) -> Result<Reserved, ApiError> {
    allocate(allocator, service, None)
}

pub(crate) fn on_update(allocator: &Allocator, service: &mut Value, old: &Value) -> Result<Reserved, ApiError> {
    allocate(allocator, service, Some(old))
}

fn allocate(allocator: &Allocator, service: &mut Value, old: Option<&Value>) -> Result<Reserved, ApiError> {
    let mut reserved = allocator.begin();
    let mut errors = ErrorList::new();
    let name = object::name(service).to_owned();
    let Some(spec) = service.get_mut("spec").filter(|s| s.is_object()) else { return Ok(reserved) };
    let old_spec = old.and_then(|o| o.get("spec"));
    families::fill(allocator, spec, old_spec, &mut errors);
    if errors.is_empty() {
        cluster_ips(&mut reserved, spec, old_spec, &mut errors);
    }
    if errors.is_empty() {
        node_ports(&mut reserved, spec, old_spec, &mut errors)?;
        health_check_port(&mut reserved, spec, old_spec)?;
    }
    if errors.is_empty() { Ok(reserved) } else { Err(errors.into_invalid("", "Service", &name)) }
}

fn text<'a>(spec: &'a Value, field: &str) -> &'a str {
    spec.get(field).and_then(Value::as_str).unwrap_or("")
}

fn texts<'a>(spec: &'a Value, field: &str) -> Vec<&'a str> {
    spec.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn is_headless(spec: &Value) -> bool {
    texts(spec, "clusterIPs").first().copied().unwrap_or(text(spec, "clusterIP")) == "None"
}

fn is_external(spec: &Value) -> bool {
    text(spec, "type") == "ExternalName"
}

/// Addresses that a Service holds.
fn held_ips(spec: &Value) -> Vec<std::net::IpAddr> {
    if is_external(spec) || is_headless(spec) {
        return Vec::new();
    }
    let mut all = texts(spec, "clusterIPs");
    if all.is_empty() {
        all.push(text(spec, "clusterIP"));
    }
    all.into_iter().filter_map(|ip| ip.parse().ok()).collect()
}

/// Node ports that a Service holds, that for health checks among them.
fn held_ports(spec: &Value) -> Vec<u16> {
    let of = |v: &Value| v.as_u64().and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
    let ports = spec["ports"].as_array().into_iter().flatten().filter_map(|p| of(&p["nodePort"]));
    ports.chain(of(&spec["healthCheckNodePort"])).collect()
}

/// One address per family; those that the object had are kept.
fn cluster_ips(reserved: &mut Reserved, spec: &mut Value, old: Option<&Value>, errors: &mut ErrorList) {
    if is_external(spec) || is_headless(spec) {
        return;
    }
    let before = old.map(held_ips).unwrap_or_default();
    let wanted: Vec<String> = texts(spec, "ipFamilies").into_iter().map(str::to_owned).collect();
    let given: Vec<String> = texts(spec, "clusterIPs").into_iter().map(str::to_owned).collect();
    let mut ips: Vec<String> = Vec::with_capacity(wanted.len());
    for (i, family) in wanted.iter().enumerate() {
        let ip = given.get(i).map_or("", String::as_str);
        match one_ip(reserved, family, ip, &before) {
            Ok(ip) => ips.push(ip),
            Err(why) => {
                errors.invalid(&SPEC.child("clusterIPs"), json!(given), why);
                return;
            }
        }
    }
    if let Some(first) = ips.first() {
        spec["clusterIP"] = json!(first);
        spec["clusterIPs"] = json!(ips);
    }
}

fn one_ip(reserved: &mut Reserved, family: &str, ip: &str, before: &[std::net::IpAddr]) -> Result<String, String> {
    if ip.is_empty() {
        return reserved.next_ip(family == "IPv6").map(|ip| ip.to_string()).map_err(|e| format!("failed to allocate IP: {e}"));
    }
    match ip.parse() {
        Ok(parsed) if before.contains(&parsed) => Ok(ip.to_owned()),
        Ok(parsed) => reserved.ip(parsed).map(|()| ip.to_owned()).map_err(|e| format!("failed to allocate IP {ip}: {e}")),
        // Validation says what is wrong with it.
        Err(_) => Ok(ip.to_owned()),
    }
}

fn wants_node_ports(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
        _ => false,
    }
}

fn node_ports(reserved: &mut Reserved, spec: &mut Value, old: Option<&Value>, errors: &mut ErrorList) -> Result<(), ApiError> {
    if !matches!(text(spec, "type"), "NodePort" | "LoadBalancer") {
        return Ok(());
    }
    let all = wants_node_ports(spec);
    let mut mine = old.map(held_ports).unwrap_or_default();
    // Ports that share a number share a node port where it is given for one of them.
    let mut by_port: std::collections::HashMap<u64, u16> = std::collections::HashMap::new();
    let path = SPEC.child("ports");
    for (i, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let number = port["port"].as_u64().unwrap_or(0);
        let given = port["nodePort"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
        if given != 0 {
            if !mine.contains(&given) {
                if let Err(why) = reserved.port(given) {
                    errors.invalid(&path.index(i).child("nodePort"), given, why.to_string());
                    return Ok(());
                }
                mine.push(given);
            }
            by_port.insert(number, given);
        } else if all {
            let node_port = match by_port.get(&number) {
                Some(shared) => *shared,
                None => reserved.next_port().map_err(|e| ApiError::internal(format!("failed to allocate a nodePort: {e}")))?,
            };
            port["nodePort"] = json!(node_port);
            by_port.insert(number, node_port);
        }
    }
    Ok(())
}

fn health_check_port(reserved: &mut Reserved, spec: &mut Value, old: Option<&Value>) -> Result<(), ApiError> {
    let needs = |s: &Value| text(s, "type") == "LoadBalancer" && text(s, "externalTrafficPolicy") == "Local";
    if !needs(spec) {
        return Ok(());
    }
    let given = spec["healthCheckNodePort"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
    let failed = |e: &dyn std::fmt::Display| ApiError::internal(format!("failed to allocate a HealthCheck NodePort {given}: {e}"));
    if given == 0 {
        spec["healthCheckNodePort"] = json!(reserved.next_port().map_err(|e| failed(&e))?);
    } else if !old.map(held_ports).unwrap_or_default().contains(&given) {
        reserved.port(given).map_err(|e| ApiError::internal(format!("failed to allocate requested HealthCheck NodePort {given}: {e}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cidr, RegistryConfig};

    fn allocator(cidrs: &[&str]) -> Allocator {
        let service_cidrs = cidrs.iter().filter_map(|c| Cidr::parse(c)).collect();
        Allocator::new(&RegistryConfig { service_cidrs, ..RegistryConfig::default() })
    }

    fn service(spec: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": spec})
    }

    #[test]
    fn a_service_gets_what_its_type_needs_and_gives_it_back() {
        let allocator = allocator(&["10.96.0.0/30"]);
        let mut first = service(json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"}]}));
        on_create(&allocator, &mut first).map(Reserved::keep).expect("room");
        let ip = first["spec"]["clusterIP"].clone();
        assert!(ip.as_str().is_some_and(|ip| ip.starts_with("10.96.0.")), "{first}");
        assert_eq!(first["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(first["spec"]["ipFamilyPolicy"], "SingleStack");
        assert_eq!(first["spec"]["ports"][0]["nodePort"], first["spec"]["ports"][1]["nodePort"]);
        // A /30 holds two.
        let mut second = service(json!({"type": "ClusterIP"}));
        on_create(&allocator, &mut second).map(Reserved::keep).expect("room");
        assert_ne!(second["spec"]["clusterIP"], ip);
        let refused = on_create(&allocator, &mut service(json!({"type": "ClusterIP"}))).err().map(|e| e.message);
        assert!(refused.is_some_and(|m| m.contains("range is full")));
        let mut same = service(json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]}));
        let refused = on_create(&allocator, &mut same).err().map(|e| e.message).unwrap_or_default();
        assert!(refused.ends_with("provided IP is already allocated"), "{refused}");
        allocator.release_all(&first);
        assert!(on_create(&allocator, &mut same).is_ok());
    }

    #[test]
    fn what_is_not_kept_is_free_again() {
        let allocator = allocator(&["10.96.0.0/30"]);
        for _ in 0..5 {
            drop(on_create(&allocator, &mut service(json!({"type": "ClusterIP"}))).expect("room"));
        }
    }

    #[test]
    fn types_change() {
        let allocator = allocator(&["10.96.0.0/16", "fd00::/112"]);
        let mut external = service(json!({"type": "ExternalName", "externalName": "x"}));
        on_create(&allocator, &mut external).map(Reserved::keep).expect("nothing needed");
        assert!(external["spec"].get("clusterIP").is_none());
        let mut cluster = service(json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack"}));
        on_update(&allocator, &mut cluster, &external).map(Reserved::keep).expect("room");
        assert_eq!(cluster["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(cluster["spec"]["clusterIPs"].as_array().map(Vec::len), Some(2));
        // An unchanged one keeps its own.
        let mut same = cluster.clone();
        on_update(&allocator, &mut same, &cluster).map(Reserved::keep).expect("its own");
        assert_eq!(same, cluster);
        let mut headless = service(json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}));
        on_create(&allocator, &mut headless).map(Reserved::keep).expect("nothing needed");
        assert_eq!(headless["spec"]["clusterIP"], "None");
        assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4"]));
    }

    #[test]
    fn a_port_out_of_range_is_refused() {
        let allocator = allocator(&["10.96.0.0/16"]);
        let mut wrong = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}));
        let message = on_create(&allocator, &mut wrong).err().map(|e| e.message).unwrap_or_default();
        assert!(message.contains("spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"), "{message}");
    }
}
