//! A pod with `spec.schedulingGates` is not tried at all (KEP-3521).

use crate::framework::{ClusterEvent, Plugin, PodInfo, Point, Refusal};

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreEnqueue]
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Refusal> {
        let gates = pod.spec().and_then(|s| s.scheduling_gates.as_deref()).unwrap_or_default();
        if gates.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = gates.iter().map(|g| g.name.as_str()).collect();
        Err(Refusal::unresolvable(self.name(), format!("waiting for scheduling gates: [{}]", names.join(" "))))
    }

    fn may_help(&self, event: &ClusterEvent, _: &PodInfo) -> bool {
        matches!(event, ClusterEvent::PodChanged { .. } | ClusterEvent::Forced)
    }
}
