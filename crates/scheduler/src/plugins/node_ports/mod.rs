//! Host ports: an address, protocol and port of a node belong to one pod.

use crate::framework::{ClusterEvent, CycleState, NodeInfo, Plugin, PodInfo, Point, PreFiltered, Refusal, Snapshot};

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter]
    }

    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> Result<PreFiltered, Refusal> {
        Ok(if pod.host_ports.is_empty() { PreFiltered::Skip } else { PreFiltered::Ok })
    }

    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let taken = |wanted| node.pods.iter().flat_map(|p| &p.host_ports).any(|p| p.collides(wanted));
        if pod.host_ports.iter().any(taken) {
            return Err(Refusal::unschedulable(self.name(), "node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }

    fn may_help(&self, event: &ClusterEvent, pod: &PodInfo) -> bool {
        match event {
            ClusterEvent::AssignedPodDeleted(gone) => gone.host_ports.iter().any(|g| pod.host_ports.iter().any(|w| w.collides(g))),
            ClusterEvent::NodeAdded(_) | ClusterEvent::Forced => true,
            _ => false,
        }
    }
}
