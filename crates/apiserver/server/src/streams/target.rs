//! Where a proxy request goes: `name`, `name:port` or `scheme:name:port` of a pod, a service or a node, resolved to an address.

use std::net::IpAddr;

use serde_json::Value;
use tiphys_meta::{ApiError, Reason, object};

use super::Kind;
use super::dial::Trust;
use super::kubelet::Kubelet;
use crate::chain::Door;
use crate::objects::{Objects, at, items, known, text};
use crate::request_info::Info;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub host: String,
    pub port: u16,
    pub trust: Trust,
}

/// The parts of a proxy name.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

fn split(id: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let good = !name.is_empty() && matches!(scheme, "" | "http" | "https");
    good.then_some(Named { https: scheme == "https", name, port })
}

pub(super) fn resolve(door: &Door, info: &Info, kind: Kind) -> Result<Target, ApiError> {
    let what = match kind {
        Kind::PodProxy => "pod",
        Kind::ServiceProxy => "service",
        _ => "node",
    };
    let named = split(&info.name).ok_or_else(|| ApiError::bad_request(format!("invalid {what} request {:?}", info.name)))?;
    let objects = door.objects.as_ref();
    match kind {
        Kind::PodProxy => pod(objects, &info.namespace, &named),
        Kind::ServiceProxy => service(objects, &info.namespace, &info.name, &named),
        _ => node(door, &named),
    }
}

fn trust(https: bool) -> Trust {
    if https { Trust::Anyone } else { Trust::Plain }
}

/// Neither loopback nor link-local nor multicast addresses: nobody reaches this machine's own services through the API.
pub(super) fn is_reachable(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let linked = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0) == 0xfe80,
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || linked)
}

fn reachable(host: &str) -> Result<(), ApiError> {
    if host.parse::<IpAddr>().is_ok_and(is_reachable) { Ok(()) } else { Err(ApiError::bad_request("address not allowed")) }
}

fn pod(objects: &dyn Objects, namespace: &str, named: &Named<'_>) -> Result<Target, ApiError> {
    let pod = objects.get(&known::PODS, namespace, named.name).ok_or_else(|| ApiError::not_found(&known::PODS, named.name))?;
    let declared = items(&pod, &["spec", "containers"]).iter().flat_map(|c| items(c, &["ports"]).first());
    let port = match named.port {
        "" => declared.filter_map(|p| port_number(p.get("containerPort"))).next().unwrap_or(if named.https { 443 } else { 80 }),
        given => given.parse().map_err(|_| ApiError::bad_request(format!("invalid port {given:?}")))?,
    };
    let host = text(&pod, &["status", "podIP"]).to_owned();
    reachable(&host)?;
    Ok(Target { host, port, trust: trust(named.https) })
}

fn port_number(value: Option<&Value>) -> Option<u16> {
    value.and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok())
}

fn unavailable(message: String) -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, message)
}

fn service(objects: &dyn Objects, namespace: &str, id: &str, named: &Named<'_>) -> Result<Target, ApiError> {
    let service = objects.get(&known::SERVICES, namespace, named.name);
    let service = service.ok_or_else(|| ApiError::not_found(&known::SERVICES, named.name))?;
    let port_name = match named.port.parse::<u64>() {
        Ok(number) => {
            let ports = items(&service, &["spec", "ports"]);
            let port = ports.iter().find(|p| p.get("port").and_then(Value::as_u64) == Some(number));
            let port = port.ok_or_else(|| unavailable(format!("no service port {number} found for service {:?}", named.name)))?;
            text(port, &["name"]).to_owned()
        }
        Err(_) => named.port.to_owned(),
    };
    let mut choices = slices_of(objects, namespace, named.name, |slice| endpoints(slice, &port_name, true));
    choices.retain(|(ip, _)| ip.parse().is_ok_and(is_reachable));
    let at = random_below(choices.len());
    match choices.get(at) {
        Some((host, port)) => Ok(Target { host: host.clone(), port: *port, trust: trust(named.https) }),
        None => Err(unavailable(format!("no endpoints available for service {id:?}"))),
    }
}

/// An address and port behind a Service's port, whatever it is that listens there: for the server's own calls.
pub(crate) fn endpoint_of_service(objects: &dyn Objects, namespace: &str, name: &str, port: u64) -> Result<(String, u16), ApiError> {
    let service = objects.get(&known::SERVICES, namespace, name).ok_or_else(|| unavailable(format!("service {name:?} not found")))?;
    if text(&service, &["spec", "type"]) == "ExternalName" {
        let port = u16::try_from(port).map_err(|_| unavailable(format!("bad port {port}")))?;
        return Ok((text(&service, &["spec", "externalName"]).to_owned(), port));
    }
    let ports = items(&service, &["spec", "ports"]);
    let found = ports.iter().find(|p| p.get("port").and_then(Value::as_u64) == Some(port));
    let found = found.ok_or_else(|| unavailable(format!("no service port {port} found for service {name:?}")))?;
    let mut choices = slices_of(objects, namespace, name, |slice| endpoints(slice, text(found, &["name"]), false));
    let at = random_below(choices.len());
    if choices.is_empty() { Err(unavailable(format!("no endpoints available for service {name:?}"))) } else { Ok(choices.swap_remove(at)) }
}

fn slices_of(objects: &dyn Objects, namespace: &str, name: &str, read: impl Fn(&Value) -> Vec<(String, u16)>) -> Vec<(String, u16)> {
    let of_service = |slice: &Value| object::labels(slice).any(|(k, v)| k == "kubernetes.io/service-name" && v == name);
    let slices = objects.list(&known::ENDPOINT_SLICES, namespace);
    slices.iter().filter(|slice| of_service(slice)).flat_map(|slice| read(slice)).collect()
}

/// Ready addresses of a slice that serve the port of that name; for users' proxies only pods count, as upstream has it.
fn endpoints(slice: &Value, port_name: &str, only_pods: bool) -> Vec<(String, u16)> {
    let port = items(slice, &["ports"]).iter().find(|p| text(p, &["name"]) == port_name).and_then(|p| port_number(p.get("port")));
    let Some(port) = port else { return Vec::new() };
    let ready = |e: &&Value| at(e, &["conditions", "ready"]).and_then(Value::as_bool).unwrap_or(true);
    let pods = items(slice, &["endpoints"]).iter().filter(ready).filter(|e| !only_pods || text(e, &["targetRef", "kind"]) == "Pod");
    pods.filter_map(|e| items(e, &["addresses"]).first().and_then(Value::as_str)).map(|ip| (ip.to_owned(), port)).collect()
}

fn random_below(n: usize) -> usize {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0u8; 4];
    // Without randomness the first endpoint serves as well.
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    usize::try_from(u32::from_ne_bytes(bytes)).unwrap_or(0).checked_rem(n).unwrap_or(0)
}

fn node(door: &Door, named: &Named<'_>) -> Result<Target, ApiError> {
    let kubelet = Kubelet::of(door, named.name)?;
    if named.port.is_empty() || named.port == kubelet.port.to_string() {
        return Ok(Target { host: kubelet.host, port: kubelet.port, trust: Trust::Kubelet });
    }
    // What a name resolves to is judged by the dialer, which then dials that and nothing else.
    if kubelet.host.parse::<IpAddr>().is_ok() {
        reachable(&kubelet.host)?;
    }
    let port = named.port.parse().map_err(|_| ApiError::bad_request(format!("invalid port {:?}", named.port)))?;
    Ok(Target { host: kubelet.host, port, trust: trust(named.https) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::fake::FakeObjects;

    #[test]
    fn names() {
        assert_eq!(split("a"), Some(Named { https: false, name: "a", port: "" }));
        assert_eq!(split("https:a:web"), Some(Named { https: true, name: "a", port: "web" }));
        assert_eq!(split("ftp:a:1"), None);
        assert_eq!(split(":1"), None);
    }

    #[test]
    fn pods_and_services() {
        let objects = FakeObjects::default();
        objects.put(
            &known::PODS,
            json!({"metadata": {"name": "p", "namespace": "a"}, "status": {"podIP": "10.1.0.5"},
                   "spec": {"containers": [{"name": "c"}, {"name": "d", "ports": [{"containerPort": 8080}]}]}}),
        );
        objects.put(&known::PODS, json!({"metadata": {"name": "own", "namespace": "a"}, "status": {"podIP": "127.0.0.1"}, "spec": {}}));
        let pod = |id: &str| pod(&objects, "a", &split(id).expect("good name"));
        assert_eq!(pod("p"), Ok(Target { host: "10.1.0.5".into(), port: 8080, trust: Trust::Plain }));
        assert_eq!(pod("https:p:99"), Ok(Target { host: "10.1.0.5".into(), port: 99, trust: Trust::Anyone }));
        assert_eq!(pod("own:80").map_err(|e| e.message), Err("address not allowed".into()));
        assert_eq!(pod("q").map_err(|e| e.code), Err(404));

        objects.put(
            &known::SERVICES,
            json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"ports": [{"name": "web", "port": 80, "targetPort": 8080}]}}),
        );
        let service = |id: &str| service(&objects, "a", id, &split(id).expect("good name"));
        assert_eq!(service("s:80").map_err(|e| e.message), Err("no endpoints available for service \"s:80\"".into()));
        objects.put(
            &known::ENDPOINT_SLICES,
            json!({"metadata": {"name": "s-1", "namespace": "a", "labels": {"kubernetes.io/service-name": "s"}},
                   "ports": [{"name": "web", "port": 8080}],
                   "endpoints": [{"addresses": ["10.1.0.6"], "conditions": {"ready": false}, "targetRef": {"kind": "Pod"}},
                                 {"addresses": ["10.1.0.5"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod"}}]}),
        );
        let want = Ok(Target { host: "10.1.0.5".into(), port: 8080, trust: Trust::Plain });
        assert_eq!(service("s:80"), want);
        assert_eq!(service("s:web"), want);
        assert_eq!(service("s:81").map_err(|e| e.message), Err("no service port 81 found for service \"s\"".into()));
        assert_eq!(service("s:other").map_err(|e| e.code), Err(503));
    }
}
