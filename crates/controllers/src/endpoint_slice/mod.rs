//! EndpointSlices say where the pods of a Service are, at most 100 in one.
//!
//! Watches Services, Pods, Nodes and EndpointSlices; owns the slices that it labels as its own. Services without a selector are left to whoever
//! writes their endpoints.
//!
//! `spec.trafficDistribution` becomes hints (KEP-4444, KEP-3015): each ready endpoint is for its own zone, and for its own node where that is asked.
//! Absent: the annotation `service.kubernetes.io/topology-mode`, which shares endpoints out by the zones' CPUs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use tiphys_client::{Delta, Index, Informer, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{Node, Pod, Service};
use tiphys_types::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone};
use tiphys_types::owners::controller_reference;
use tiphys_types::{pods, services as rules};

use crate::Context;
use crate::shared::slices::{Frame, Group, MANAGED_BY, SERVICE_NAME, reconcile};
use crate::shared::{services, watch};

const NAME: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
const PER_SLICE: usize = 100;

pub(crate) fn start(context: &Context) {
    let (all, pods) = (context.informers.of::<Service>(), context.informers.of::<Pod>());
    let (nodes, slices) = (context.informers.of::<Node>(), context.informers.of::<EndpointSlice>());
    let queue = WorkQueue::new();
    watch::own(&all, &queue);
    services::of_pods(&pods, &all, &queue);
    watch_slices(&slices, &queue);
    watch_zones(&nodes, &all, &queue);
    let executor = context
        .executor("endpoint-slice-controller")
        .reading(all.clone())
        .reading(pods.clone())
        .reading(slices.clone())
        .reading(nodes.clone());
    let slices_of = slices
        .index("service", |s: &EndpointSlice| if is_ours(s) { key_of(s).map(|k| k.to_string()).into_iter().collect() } else { Vec::new() });
    context.run("endpointslice-controller", 5, queue, Slices { services: all, pods, nodes, slices_of }, executor);
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|m| m == NAME)
}

fn key_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(slice.metadata.namespace.as_deref().unwrap_or(""), service))
}

fn watch_slices(slices: &Informer<EndpointSlice>, queue: &WorkQueue<ObjectKey>) {
    let queue = queue.clone();
    slices.on_change(move |delta| {
        let was_ours = matches!(delta, Delta::Updated { old, .. } if is_ours(old));
        if was_ours || is_ours(delta.object()) {
            queue_slice(&queue, delta);
        }
        true
    });
}

fn queue_slice(queue: &WorkQueue<ObjectKey>, delta: &Delta<EndpointSlice>) {
    if let Delta::Updated { old, .. } = delta {
        key_of(old).into_iter().for_each(|k| queue.add(k));
    }
    key_of(delta.object()).into_iter().for_each(|k| queue.add(k));
}

fn watch_zones(nodes: &Informer<Node>, services: &Informer<Service>, queue: &WorkQueue<ObjectKey>) {
    let (services, queue) = (services.clone(), queue.clone());
    nodes.on_change(move |delta| {
        let moved = match delta {
            Delta::Updated { old, new } => zone(old) != zone(new),
            Delta::Added(node) => zone(node).is_some(),
            Delta::Deleted(_) => false,
        };
        if moved {
            services.list().iter().for_each(|s| queue.add(ObjectKey::of(&**s)));
        }
        true
    });
}

fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get(ZONE).cloned()
}

struct Slices {
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices_of: Index<EndpointSlice>,
}

impl Planner for Slices {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(service) = self.services.by_key(key).filter(|s| services::has_selector(s) && s.metadata.deletion_timestamp.is_none())
        else {
            return plan;
        };
        if rules::is_external_name(&service) {
            return plan;
        }
        let pods: Vec<Arc<Pod>> = self.pods.list_namespace(&key.namespace).into_iter().filter(|p| rules::selects(&service, p)).collect();
        let zone_of = |name: &str| self.nodes.get("", name).and_then(|n| zone(&n));
        let families = families(&service);
        let groups = groups(&service, &pods, &families, zone_of);
        for action in reconcile(&frame(&service), &self.slices_of.get(&key.to_string()), groups, &families) {
            plan.act(action);
        }
        plan
    }
}

fn families(service: &Service) -> Vec<&'static str> {
    let named = service.spec.iter().flat_map(|s| s.ip_families.iter().flatten());
    let known: Vec<&'static str> = named.filter_map(|f| ["IPv4", "IPv6"].into_iter().find(|k| k == f)).collect();
    if known.is_empty() { vec!["IPv4"] } else { known }
}

fn frame(service: &Service) -> Frame {
    let meta = &service.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let mut labels: BTreeMap<String, String> = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), NAME.into());
    labels.remove(HEADLESS);
    if rules::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    Frame {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name,
        labels,
        owner: controller_reference::<Service>(meta),
        per_slice: PER_SLICE,
    }
}

/// Pods by family and by the numbers that their ports have.
fn groups(service: &Service, pods: &[Arc<Pod>], families: &[&'static str], zone_of: impl Fn(&str) -> Option<String>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for pod in pods.iter().filter(|p| services::may_be_endpoint(p)) {
        let ports = ports(service, pod);
        for family in families {
            let Some(ip) = services::ips(pod).find(|ip| family_of(ip) == Some(family)) else { continue };
            let endpoint = endpoint(service, pod, ip, zone_of(pods::node_name(pod)));
            match groups.iter_mut().find(|g| g.address_type == *family && g.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group { address_type: family, ports: ports.clone(), endpoints: vec![endpoint] }),
            }
        }
    }
    groups
}

fn family_of(ip: &str) -> Option<&'static str> {
    match ip.parse().ok()? {
        IpAddr::V4(_) => Some("IPv4"),
        IpAddr::V6(_) => Some("IPv6"),
    }
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let resolved = services::ports(service).iter().filter_map(|p| Some((p, services::target(pod, p)?)));
    let ports = resolved.map(|(p, number)| EndpointPort {
        name: Some(p.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(services::protocol(p).to_owned()),
        app_protocol: p.app_protocol.clone(),
    });
    ports.collect()
}

fn endpoint(service: &Service, pod: &Pod, ip: &str, zone: Option<String>) -> Endpoint {
    let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
    let ready = services::publishes_not_ready(service) || (serving && !terminating);
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    Endpoint {
        hints: hints(service, zone.as_deref(), node.as_deref()).filter(|_| ready),
        addresses: vec![ip.to_owned()],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) }),
        hostname: services::hostname(pod, service),
        node_name: node,
        target_ref: Some(services::reference(pod)),
        zone,
        ..Default::default()
    }
}

fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let per_node = match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => false,
        "PreferSameNode" => true,
        _ => return None,
    };
    let for_zones = zone.map(|z| vec![ForZone { name: z.to_owned() }]);
    let for_nodes = node.filter(|_| per_node).map(|n| vec![ForNode { name: n.to_owned() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_zones, for_nodes })
}

#[cfg(test)]
mod tests;
