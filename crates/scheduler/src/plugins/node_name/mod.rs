//! `spec.nodeName` of a pod that has not been bound names the only node it may go to.

use crate::framework::{ClusterEvent, CycleState, NodeInfo, Plugin, PodInfo, Point, Refusal};

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Filter]
    }

    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        if pod.node_name().is_empty() || pod.node_name() == node.name() {
            return Ok(());
        }
        Err(Refusal::unresolvable(self.name(), "node(s) didn't match the requested node name"))
    }

    fn may_help(&self, event: &ClusterEvent, _: &PodInfo) -> bool {
        matches!(event, ClusterEvent::NodeAdded(_) | ClusterEvent::Forced)
    }
}
