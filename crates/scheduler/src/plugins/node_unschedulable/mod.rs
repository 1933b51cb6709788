//! A cordoned node takes only pods that tolerate `node.kubernetes.io/unschedulable`.

use tiphys_types::api::core::v1::{Node, Taint};
use tiphys_types::taints;

use crate::framework::{ClusterEvent, CycleState, NodeInfo, Plugin, PodInfo, Point, Refusal};

pub struct NodeUnschedulable;

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false)
}

fn tolerates(pod: &PodInfo) -> bool {
    let taint = Taint { key: "node.kubernetes.io/unschedulable".into(), effect: taints::NO_SCHEDULE.into(), value: None, time_added: None };
    taints::tolerated(pod.tolerations(), &taint)
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Filter]
    }

    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        if !is_cordoned(&node.node) || tolerates(pod) {
            return Ok(());
        }
        Err(Refusal::unresolvable(self.name(), "node(s) were unschedulable"))
    }

    fn may_help(&self, event: &ClusterEvent, pod: &PodInfo) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => !is_cordoned(node) || tolerates(pod),
            ClusterEvent::NodeUpdated { old, new } => is_cordoned(old) && !is_cordoned(new),
            ClusterEvent::PodChanged { .. } | ClusterEvent::Forced => true,
            _ => false,
        }
    }
}
