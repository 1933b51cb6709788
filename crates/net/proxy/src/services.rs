//! What a node must know of Services and EndpointSlices, in the smallest terms.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::topology::{self, Candidate, Here};
use tiphys_types::api::core::v1 as core;
use tiphys_types::api::discovery::v1::{self as discovery, EndpointSlice};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    pub protocol: Protocol,
    pub number: u16,
}

/// An IPv4 range, as address and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub address: Ipv4Addr,
    pub prefix: u8,
}

/// The node that the rules are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    pub name: String,
    /// All pods of the cluster: what they send to outside is masqueraded, what others send to Services too.
    pub pods: Range,
    /// All Services: what no rule translates is refused.
    pub services: Range,
    /// The nodes' own addresses, which pods reach unmasqueraded.
    pub nodes: Range,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affinity {
    pub timeout_seconds: u32,
}

/// One port of one Service with everything that leads to it and everything behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/name/protocol/port name`, unique in the cluster.
    pub id: String,
    pub port: Port,
    pub cluster_ip: Ipv4Addr,
    /// External IPs and load balancer addresses.
    pub external_ips: Vec<Ipv4Addr>,
    /// Who may use the load balancer addresses; empty: everyone.
    pub source_ranges: Vec<Range>,
    pub load_balancer_ips: Vec<Ipv4Addr>,
    pub node_port: Option<u16>,
    pub affinity: Option<Affinity>,
    pub internal_local: bool,
    pub external_local: bool,
    /// Endpoints that traffic goes to where no policy says Local: all nodes', or those that topology prefers.
    pub endpoints: BTreeSet<Endpoint>,
    /// Endpoints on this node, for traffic that must stay on it.
    pub local: BTreeSet<Endpoint>,
    /// Some node has an endpoint: what this one cannot serve is dropped, not refused.
    pub anywhere: bool,
}

/// What load balancers ask a node for (`healthCheckNodePort`): whether it has endpoints of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub namespace: String,
    pub name: String,
    /// Ready endpoints on this node.
    pub local: usize,
}

/// Where the node stands; it may change while the proxy runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The label `topology.kubernetes.io/zone`; empty: none.
    pub zone: String,
    /// The node's own pods.
    pub own_pods: Option<Range>,
}

/// Reads all Services and slices, as seen from `node`. What is malformed or not for this proxy is left out.
pub fn read(
    services: &[Arc<core::Service>],
    slices: &[Arc<EndpointSlice>],
    node: &NodeConfig,
    place: &Place,
) -> BTreeMap<String, ServicePort> {
    let by_service = by_service(slices);
    let here = Here { node: &node.name, zone: &place.zone };
    let mut ports = BTreeMap::new();
    for service in services {
        let (Some(namespace), Some(name)) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref()) else { continue };
        let slices = by_service.get(&(namespace, name)).map_or(&[][..], Vec::as_slice);
        for port in service_ports(service, namespace, name, slices, here) {
            ports.insert(port.id.clone(), port);
        }
    }
    ports
}

/// The health checks to answer, by port.
pub fn read_health(services: &[Arc<core::Service>], slices: &[Arc<EndpointSlice>], node: &NodeConfig) -> BTreeMap<u16, HealthCheck> {
    let by_service = by_service(slices);
    let mut checks = BTreeMap::new();
    for service in services {
        let asked = service.spec.as_ref().filter(|s| s.external_traffic_policy.as_deref() == Some("Local"));
        let port = asked.and_then(|s| s.health_check_node_port).and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
        let (Some(port), Some(namespace), Some(name)) = (port, &service.metadata.namespace, &service.metadata.name) else { continue };
        let slices = by_service.get(&(namespace.as_str(), name.as_str())).map_or(&[][..], Vec::as_slice);
        let endpoints = slices.iter().flat_map(|s| s.endpoints.iter().flatten());
        let ours = endpoints.filter(|e| e.node_name.as_deref() == Some(&node.name) && rank(e) == Some(0));
        let local = ours.flat_map(|e| &e.addresses).collect::<BTreeSet<_>>().len();
        checks.insert(port, HealthCheck { namespace: namespace.clone(), name: name.clone(), local });
    }
    checks
}

fn by_service(slices: &[Arc<EndpointSlice>]) -> BTreeMap<(&str, &str), Vec<&EndpointSlice>> {
    let mut found: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices.iter().filter(|s| s.address_type == "IPv4") {
        if let (Some(namespace), Some(service)) = (slice.metadata.namespace.as_deref(), slice_service(slice)) {
            found.entry((namespace, service)).or_default().push(slice);
        }
    }
    found
}

fn slice_service(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name").map(String::as_str)
}

/// Labels by which a Service asks for another proxy, or none.
fn is_someone_elses(service: &core::Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    labels.is_some_and(|l| l.contains_key("service.kubernetes.io/service-proxy-name") || l.contains_key("service.kubernetes.io/headless"))
}

fn service_ports(service: &core::Service, namespace: &str, name: &str, slices: &[&EndpointSlice], here: Here<'_>) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(cluster_ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()) else { return Vec::new() };
    if is_someone_elses(service) || spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let read_port = |port: &core::ServicePort| {
        let own = Port { protocol: protocol(port.protocol.as_deref())?, number: u16::try_from(port.port).ok()? };
        let port_name = port.name.as_deref().unwrap_or("");
        let found = topology::pick(&candidates(slices, port_name, own.protocol), here);
        Some(ServicePort {
            id: format!("{namespace}/{name}/{}/{port_name}", own.protocol.word()),
            port: own,
            cluster_ip,
            external_ips: addresses(spec.external_ips.as_deref()),
            source_ranges: spec.load_balancer_source_ranges.iter().flatten().filter_map(|r| Range::parse(r)).collect(),
            load_balancer_ips: load_balancer_ips(service),
            node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0),
            affinity: affinity(spec),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            endpoints: found.cluster,
            local: found.local,
            anywhere: found.anywhere,
        })
    };
    spec.ports.iter().flatten().filter_map(read_port).collect()
}

fn affinity(spec: &core::ServiceSpec) -> Option<Affinity> {
    const THREE_HOURS: i32 = 10_800;
    let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
    let timeout_seconds = u32::try_from(config.unwrap_or(THREE_HOURS)).ok()?;
    (spec.session_affinity.as_deref() == Some("ClientIP")).then_some(Affinity { timeout_seconds })
}

fn load_balancer_ips(service: &core::Service) -> Vec<Ipv4Addr> {
    let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
    let through_node = |i: &&core::LoadBalancerIngress| i.ip_mode.as_deref() != Some("Proxy");
    ingress.into_iter().flatten().filter(through_node).filter_map(|i| i.ip.as_deref()?.parse().ok()).collect()
}

fn addresses(texts: Option<&[String]>) -> Vec<Ipv4Addr> {
    texts.unwrap_or_default().iter().filter_map(|ip| ip.parse().ok()).collect()
}

impl Range {
    pub(crate) fn parse(text: &str) -> Option<Range> {
        let (address, prefix) = text.trim().split_once('/')?;
        Some(Range { address: address.parse().ok()?, prefix: prefix.parse().ok().filter(|p| *p <= 32)? })
    }
}

fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Every endpoint of the port that may be used at all.
fn candidates(slices: &[&EndpointSlice], port_name: &str, wanted: Protocol) -> Vec<Candidate> {
    let mut found = Vec::new();
    for slice in slices {
        let Some(port) = slice_port(slice, port_name, wanted) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(rank) = rank(endpoint) else { continue };
            let hints = endpoint.hints.as_ref();
            let zones: Vec<String> = hints.iter().flat_map(|h| h.for_zones.iter().flatten()).map(|z| z.name.clone()).collect();
            let nodes: Vec<String> = hints.iter().flat_map(|h| h.for_nodes.iter().flatten()).map(|n| n.name.clone()).collect();
            found.extend(endpoint.addresses.iter().filter_map(|a| a.parse().ok()).map(|address| Candidate {
                endpoint: Endpoint { address, port },
                ready: rank == 0,
                node: endpoint.node_name.clone().unwrap_or_default(),
                zones: zones.clone(),
                nodes: nodes.clone(),
            }));
        }
    }
    found
}

fn slice_port(slice: &EndpointSlice, name: &str, wanted: Protocol) -> Option<u16> {
    let same = |p: &&discovery::EndpointPort| p.name.as_deref().unwrap_or("") == name && protocol(p.protocol.as_deref()) == Some(wanted);
    slice.ports.iter().flatten().find(same)?.port.and_then(|p| u16::try_from(p).ok())
}

/// 0: ready; 1: serving while terminating; none: not to be used.
fn rank(endpoint: &discovery::Endpoint) -> Option<usize> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => Some(0),
        (false, true) => Some(1),
        (false, false) => None,
    }
}

impl Protocol {
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl ServicePort {
    /// What cluster IP traffic goes to.
    pub fn internal(&self) -> &BTreeSet<Endpoint> {
        if self.internal_local { &self.local } else { &self.endpoints }
    }

    /// What traffic from outside goes to, as far as it comes from outside the node.
    pub fn external(&self) -> &BTreeSet<Endpoint> {
        if self.external_local { &self.local } else { &self.endpoints }
    }

    pub fn has_external(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty()
    }
}
