//! NoSchedule and NoExecute taints keep pods off that do not tolerate them; PreferNoSchedule taints lower a node's score.

use std::sync::Arc;

use tiphys_types::taints::{self, NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE};

use crate::framework::plugin::normalize_by_max;
use crate::framework::{ClusterEvent, CycleState, NodeInfo, Plugin, PodInfo, Point, Refusal};

pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Filter, Point::Score]
    }

    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        match taints::untolerated(node.taints(), pod.tolerations(), &[NO_SCHEDULE, NO_EXECUTE]) {
            None => Ok(()),
            Some(_) => Err(Refusal::unresolvable(self.name(), "node(s) had untolerated taint(s)")),
        }
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let soft = node.taints().iter().filter(|t| t.effect == PREFER_NO_SCHEDULE);
        soft.filter(|t| !taints::tolerated(pod.tolerations(), t)).count() as i64
    }

    fn normalize(&self, _: &CycleState, _: &PodInfo, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        normalize_by_max(scores, true);
    }

    fn weight(&self) -> i64 {
        3
    }

    fn may_help(&self, event: &ClusterEvent, _: &PodInfo) -> bool {
        match event {
            ClusterEvent::NodeUpdated { old, new } => {
                let taints = |n: &tiphys_types::api::core::v1::Node| n.spec.as_ref().and_then(|s| s.taints.clone());
                taints(old) != taints(new)
            }
            ClusterEvent::NodeAdded(_) | ClusterEvent::PodChanged { .. } | ClusterEvent::Forced => true,
            _ => false,
        }
    }
}
