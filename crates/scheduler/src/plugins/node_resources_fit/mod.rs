//! A node must have room for what the pod requests; nodes with more room left score higher (LeastAllocated over CPU and memory, equal weights).

use crate::framework::plugin::MAX_SCORE;
use crate::framework::{ClusterEvent, Code, CycleState, NodeInfo, Plugin, PodInfo, Point, Refusal, Resources};

pub struct Fit;

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Filter, Point::Score]
    }

    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let missing = missing(&pod.requests, node);
        if missing.is_empty() {
            return Ok(());
        }
        // More than the whole node: removing pods would not help.
        let code = if missing.iter().any(|m| m.hopeless) { Code::Unresolvable } else { Code::Unschedulable };
        let reasons = missing.into_iter().map(|m| m.reason.into()).collect();
        Err(Refusal { code, reasons, plugin: self.name() })
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let shares = [
            (node.scored_requested.0 + pod.scored_requests.0, node.allocatable.milli_cpu),
            (node.scored_requested.1 + pod.scored_requests.1, node.allocatable.memory),
        ];
        let known = shares.iter().filter(|(_, capacity)| *capacity > 0);
        let scores = known.map(|(used, capacity)| if used > capacity { 0 } else { (capacity - used) * MAX_SCORE / capacity });
        let (sum, count) = scores.fold((0, 0), |(sum, count), s| (sum + s, count + 1));
        if count == 0 { 0 } else { sum / count }
    }

    fn may_help(&self, event: &ClusterEvent, pod: &PodInfo) -> bool {
        match event {
            ClusterEvent::AssignedPodDeleted(_) | ClusterEvent::PodChanged { .. } | ClusterEvent::Forced => true,
            // A pod that shrinks in place gives room back.
            ClusterEvent::AssignedPodUpdated { old, new } => shrinks(&old.requests, &new.requests),
            ClusterEvent::NodeAdded(node) => could_fit(pod, node),
            ClusterEvent::NodeUpdated { old, new } => {
                let allocatable = |n: &tiphys_types::api::core::v1::Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
                allocatable(old) != allocatable(new) && could_fit(pod, new)
            }
            ClusterEvent::AssignedPodAdded(_) | ClusterEvent::StorageChanged | ClusterEvent::NamespaceChanged => false,
        }
    }
}

struct Missing {
    reason: String,
    hopeless: bool,
}

fn missing(wanted: &Resources, node: &NodeInfo) -> Vec<Missing> {
    let (has, used) = (&node.allocatable, &node.requested);
    let mut missing = Vec::new();
    if node.pods.len() as i64 + 1 > has.pods {
        missing.push(Missing { reason: "Too many pods".into(), hopeless: false });
    }
    let plain = [
        ("cpu", wanted.milli_cpu, has.milli_cpu, used.milli_cpu),
        ("memory", wanted.memory, has.memory, used.memory),
        ("ephemeral-storage", wanted.ephemeral_storage, has.ephemeral_storage, used.ephemeral_storage),
    ];
    let scalar = wanted.scalar.iter().map(|(name, amount)| (&**name, *amount, has.scalar(name), used.scalar(name)));
    for (name, wanted, has, used) in plain.into_iter().chain(scalar) {
        if wanted > 0 && wanted > has - used {
            missing.push(Missing { reason: format!("Insufficient {name}"), hopeless: wanted > has });
        }
    }
    missing
}

fn could_fit(pod: &PodInfo, node: &std::sync::Arc<tiphys_types::api::core::v1::Node>) -> bool {
    missing(&pod.requests, &NodeInfo::new(std::sync::Arc::clone(node))).is_empty()
}

fn shrinks(old: &Resources, new: &Resources) -> bool {
    new.milli_cpu < old.milli_cpu || new.memory < old.memory || old.scalar.iter().any(|(name, amount)| new.scalar(name) < *amount)
}
