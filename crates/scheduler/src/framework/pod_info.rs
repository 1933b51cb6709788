use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tiphys_meta::{LabelSelector, Quantity};
use tiphys_types::api::core::v1::{Pod, PodAffinityTerm, PodSpec, Toleration, WeightedPodAffinityTerm};
use tiphys_types::resources::{self, CPU, MEMORY, ResourceList};
use tiphys_types::{pods, selector};

use super::resources::Resources;

/// Upstream's stand-ins for containers that request nothing, in scores only.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

/// A pod with what the plugins ask of it, worked out once when it is seen.
#[derive(Debug, Clone)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub requests: Resources,
    /// CPU and memory with defaults where a container requests none.
    pub scored_requests: (i64, i64),
    pub host_ports: Vec<HostPort>,
    pub required_affinity: Vec<AffinityTerm>,
    pub required_anti_affinity: Vec<AffinityTerm>,
    pub preferred_affinity: Vec<(i64, AffinityTerm)>,
    pub preferred_anti_affinity: Vec<(i64, AffinityTerm)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub ip: Box<str>,
    pub protocol: Box<str>,
    pub port: i32,
}

impl HostPort {
    /// The same port on the same or on all addresses.
    pub fn collides(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || &*self.ip == "0.0.0.0" || &*other.ip == "0.0.0.0")
    }
}

#[derive(Debug, Clone)]
pub struct AffinityTerm {
    pub namespaces: BTreeSet<String>,
    pub namespace_selector: Option<LabelSelector>,
    pub selector: LabelSelector,
    pub topology_key: Box<str>,
}

pub type Labels = BTreeMap<String, String>;

impl AffinityTerm {
    /// The term, which a pod of `own` namespace carries, speaks of this pod.
    pub fn matches(&self, pod: &Pod, namespace_labels: Option<&Labels>) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let in_namespace =
            self.namespaces.contains(namespace) || self.namespace_selector.as_ref().is_some_and(|s| s.matches_map(namespace_labels));
        in_namespace && self.selector.matches_map(pod.metadata.labels.as_ref())
    }

    fn new(term: &PodAffinityTerm, own_namespace: &str) -> Option<Self> {
        // A selector that cannot be read matches nothing; the API server admits none. An absent one matches nothing either.
        let chosen = selector::from_typed(Some(term.label_selector.as_ref()?)).ok()?;
        let namespace_selector = match &term.namespace_selector {
            Some(s) => Some(selector::from_typed(Some(s)).ok()?),
            None => None,
        };
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.insert(own_namespace.to_owned());
        }
        Some(AffinityTerm { namespaces, namespace_selector, selector: chosen, topology_key: term.topology_key.as_str().into() })
    }
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
        let with = affinity.and_then(|a| a.pod_affinity.as_ref());
        let without = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let required =
            |terms: Option<&Vec<PodAffinityTerm>>| terms.into_iter().flatten().filter_map(|t| AffinityTerm::new(t, &namespace)).collect();
        let preferred = |terms: Option<&Vec<WeightedPodAffinityTerm>>| {
            let terms = terms.into_iter().flatten();
            terms.filter_map(|t| Some((i64::from(t.weight), AffinityTerm::new(&t.pod_affinity_term, &namespace)?))).collect()
        };
        PodInfo {
            requests: Resources::from_list(&resources::requests_with(&pod, resources::Options { use_status: true, ..Default::default() })),
            scored_requests: scored_requests(&pod),
            host_ports: host_ports(&pod),
            required_affinity: required(with.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            required_anti_affinity: required(without.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred_affinity: preferred(with.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())),
            preferred_anti_affinity: preferred(without.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())),
            pod,
        }
    }

    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or("")
    }

    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("")
    }

    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or("")
    }

    pub fn node_name(&self) -> &str {
        pods::node_name(&self.pod)
    }

    pub fn nominated_node(&self) -> &str {
        self.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()).unwrap_or("")
    }

    pub fn priority(&self) -> i32 {
        pods::priority(&self.pod)
    }

    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    pub fn tolerations(&self) -> &[Toleration] {
        self.spec().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
    }

    pub fn has_affinity(&self) -> bool {
        !(self.required_affinity.is_empty()
            && self.required_anti_affinity.is_empty()
            && self.preferred_affinity.is_empty()
            && self.preferred_anti_affinity.is_empty())
    }

    /// The pod as it will stand once bound.
    pub fn assumed_on(&self, node: &str) -> PodInfo {
        let mut pod = Pod::clone(&self.pod);
        pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
        PodInfo { pod: Arc::new(pod), ..self.clone() }
    }
}

fn scored_requests(pod: &Pod) -> (i64, i64) {
    let missing: ResourceList =
        [(CPU.to_owned(), Quantity::from_milli(DEFAULT_MILLI_CPU)), (MEMORY.to_owned(), Quantity::from(DEFAULT_MEMORY))].into();
    let list = resources::requests_with(pod, resources::Options { use_status: true, non_missing: Some(&missing), ..Default::default() });
    (list.get(CPU).map_or(0, Quantity::milli), list.get(MEMORY).map_or(0, Quantity::value))
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let ports = pods::long_running(pod).flat_map(|c| c.ports.iter().flatten());
    let taken = ports.filter_map(|p| {
        let port = p.host_port.filter(|n| *n > 0)?;
        let ip = p.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
        Some(HostPort { ip: ip.into(), protocol: pods::port_protocol(p).into(), port })
    });
    taken.collect()
}
