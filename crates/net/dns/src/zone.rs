//! The zone over the shared informers.

use std::net::Ipv4Addr;

use tiphys_client::{Index, Informer, Informers};
use tiphys_types::api::core::v1 as core;
use tiphys_types::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};

use crate::answer::{Endpoint, Port, Service, Zone};

pub struct ClusterZone {
    services: Informer<core::Service>,
    namespaces: Informer<core::Namespace>,
    slices: Informer<EndpointSlice>,
    slices_by_service: Index<EndpointSlice>,
    services_by_ip: Index<core::Service>,
    slices_by_ip: Index<EndpointSlice>,
}

impl ClusterZone {
    pub fn new(informers: &Informers) -> Self {
        let (services, slices) = (informers.of::<core::Service>(), informers.of::<EndpointSlice>());
        ClusterZone {
            namespaces: informers.of::<core::Namespace>(),
            slices_by_service: slices.index("dns-service", |slice| service_key(slice).into_iter().collect()),
            services_by_ip: services.index("dns-ip", |s| s.spec.as_ref().and_then(|s| s.cluster_ip.clone()).into_iter().collect()),
            slices_by_ip: slices.index("dns-ip", |slice| slice.endpoints.iter().flatten().flat_map(|e| e.addresses.clone()).collect()),
            services,
            slices,
        }
    }

    /// Waits until everything that there is has been read.
    pub async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.namespaces.synced().await;
    }
}

fn service_name(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name").map(String::as_str)
}

fn service_key(slice: &EndpointSlice) -> Option<String> {
    Some(format!("{}/{}", slice.metadata.namespace.as_deref()?, service_name(slice)?))
}

fn is_headless(service: &core::Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok()
}

fn protocol(text: Option<&str>) -> String {
    text.unwrap_or("TCP").to_ascii_lowercase()
}

fn service_ports(spec: &core::ServiceSpec) -> Vec<Port> {
    let read = |p: &core::ServicePort| {
        Some(Port { name: p.name.clone().unwrap_or_default(), protocol: protocol(p.protocol.as_deref()), number: number(p.port)? })
    };
    spec.ports.iter().flatten().filter_map(read).collect()
}

/// The name that an endpoint has under its Service.
fn host_of(endpoint: &SliceEndpoint, ip: Ipv4Addr) -> String {
    endpoint.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| ip.to_string().replace('.', "-"))
}

fn endpoints(slice: &EndpointSlice) -> Vec<Endpoint> {
    let read_port = |p: &tiphys_types::api::discovery::v1::EndpointPort| {
        Some(Port { name: p.name.clone().unwrap_or_default(), protocol: protocol(p.protocol.as_deref()), number: number(p.port?)? })
    };
    let ports: Vec<Port> = slice.ports.iter().flatten().filter_map(read_port).collect();
    let ready = |e: &&SliceEndpoint| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    let read = |e: &SliceEndpoint| {
        let ips: Vec<Ipv4Addr> = e.addresses.iter().filter_map(|a| a.parse().ok()).collect();
        ips.into_iter().map(|ip| Endpoint { host: host_of(e, ip), ip, ports: ports.clone() }).collect::<Vec<_>>()
    };
    slice.endpoints.iter().flatten().filter(ready).flat_map(read).collect()
}

impl Zone for ClusterZone {
    fn service(&self, namespace: &str, name: &str) -> Option<Service> {
        let service = self.services.get(namespace, name)?;
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return Some(Service::External(spec.external_name.clone()?));
        }
        if is_headless(&service) {
            let slices = self.slices_by_service.get(&format!("{namespace}/{name}"));
            let mut endpoints: Vec<Endpoint> = slices.iter().flat_map(|s| endpoints(s)).collect();
            endpoints.sort_by_key(|e| (e.ip, e.host.clone()));
            endpoints.dedup_by(|later, kept| {
                let same = later.ip == kept.ip && later.host == kept.host;
                if same {
                    kept.ports.extend(later.ports.drain(..).filter(|p| !kept.ports.contains(p)).collect::<Vec<_>>());
                }
                same
            });
            return Some(Service::Headless { endpoints, ports: service_ports(spec) });
        }
        let ip = spec.cluster_ip.as_deref()?.parse().ok()?;
        Some(Service::Address { ip, ports: service_ports(spec) })
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get("", namespace).is_some()
    }

    fn by_address(&self, address: Ipv4Addr) -> Vec<String> {
        let text = address.to_string();
        let of_service =
            |s: &std::sync::Arc<core::Service>| Some(format!("{}.{}", s.metadata.name.as_deref()?, s.metadata.namespace.as_deref()?));
        let mut names: Vec<String> = self.services_by_ip.get(&text).iter().filter_map(of_service).collect();
        if names.is_empty() {
            for slice in self.slices_by_ip.get(&text) {
                names.extend(self.host_names(&slice, address));
            }
            names.sort();
            names.dedup();
        }
        names
    }
}

impl ClusterZone {
    /// `host.service.namespace` of a headless Service's endpoint.
    fn host_names(&self, slice: &EndpointSlice, address: Ipv4Addr) -> Vec<String> {
        let (Some(namespace), Some(name)) = (slice.metadata.namespace.as_deref(), service_name(slice)) else { return Vec::new() };
        if !self.services.get(namespace, name).is_some_and(|s| is_headless(&s)) {
            return Vec::new();
        }
        endpoints(slice).iter().filter(|e| e.ip == address).map(|e| format!("{}.{name}.{namespace}", e.host)).collect()
    }
}
