//! A CSI driver says in its CSINode how many of its volumes a node can have.
//!
//! Absent: claims that are not bound yet (their driver is known by their class, but a volume that is shared would count twice), migrated in-tree volumes.

use std::collections::{BTreeMap, BTreeSet};

use crate::framework::{ClusterEvent, CycleState, NodeInfo, Plugin, PodInfo, Point, PreFiltered, Refusal, Snapshot};
use crate::plugins::volume_binding::Volumes;

const NAME: &str = "NodeVolumeLimits";

pub struct NodeVolumeLimits {
    volumes: Volumes,
}

/// Volumes by driver.
type Attached = BTreeMap<String, BTreeSet<String>>;

struct Wanted(Attached);

impl NodeVolumeLimits {
    pub fn new(volumes: Volumes) -> Self {
        NodeVolumeLimits { volumes }
    }

    fn of(&self, pod: &PodInfo) -> Attached {
        let mut attached = Attached::new();
        for volume in self.volumes.bound_volumes(pod) {
            if let Some(csi) = volume.spec.as_ref().and_then(|s| s.csi.as_ref()) {
                attached.entry(csi.driver.clone()).or_default().insert(csi.volume_handle.clone());
            }
        }
        attached
    }

    fn limit(&self, node: &str, driver: &str) -> Option<usize> {
        let node = self.volumes.csi_nodes.get("", node)?;
        let found = node.spec.drivers.iter().find(|d| d.name == driver)?;
        found.allocatable.as_ref()?.count.and_then(|c| usize::try_from(c).ok())
    }
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        NAME
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter]
    }

    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> Result<PreFiltered, Refusal> {
        let wanted = self.of(pod);
        if wanted.is_empty() {
            return Ok(PreFiltered::Skip);
        }
        state.put(Wanted(wanted));
        Ok(PreFiltered::Ok)
    }

    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let Some(Wanted(wanted)) = state.get::<Wanted>() else { return Ok(()) };
        let limits: Vec<(&String, usize)> = wanted.keys().filter_map(|d| Some((d, self.limit(node.name(), d)?))).collect();
        if limits.is_empty() {
            return Ok(());
        }
        let mut all = wanted.clone();
        for there in node.pods.iter().map(|p| self.of(p)) {
            for (driver, volumes) in there {
                if let Some(known) = all.get_mut(&driver) {
                    known.extend(volumes);
                }
            }
        }
        if limits.iter().any(|(driver, limit)| all[*driver].len() > *limit) {
            return Err(Refusal::unschedulable(NAME, "node(s) exceed max volume count"));
        }
        Ok(())
    }

    fn may_help(&self, event: &ClusterEvent, _: &PodInfo) -> bool {
        matches!(
            event,
            ClusterEvent::AssignedPodDeleted(_)
                | ClusterEvent::StorageChanged
                | ClusterEvent::NodeAdded(_)
                | ClusterEvent::PodChanged { .. }
                | ClusterEvent::Forced
        )
    }
}
