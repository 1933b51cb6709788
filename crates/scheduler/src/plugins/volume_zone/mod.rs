//! A bound volume that says in its labels where it is (as those of the old in-tree plugins do) keeps its pod there.

use tiphys_types::api::core::v1::PersistentVolume;

use crate::framework::{ClusterEvent, CycleState, NodeInfo, Plugin, PodInfo, Point, PreFiltered, Refusal, Snapshot};
use crate::plugins::volume_binding::Volumes;

const NAME: &str = "VolumeZone";
/// The labels' old names, and those that nodes have now.
const LABELS: [(&str, &str); 2] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
];

pub struct VolumeZone {
    volumes: Volumes,
}

/// A label and the values that will do.
struct Places(Vec<(&'static str, Vec<String>)>);

impl VolumeZone {
    pub fn new(volumes: Volumes) -> Self {
        VolumeZone { volumes }
    }
}

/// Several zones are joined by two underscores.
fn places(volume: &PersistentVolume) -> impl Iterator<Item = (&'static str, Vec<String>)> + '_ {
    let labels = volume.metadata.labels.as_ref();
    LABELS.iter().filter_map(move |(old, new)| {
        let value = labels?.get(*new).or_else(|| labels?.get(*old))?;
        Some((*new, value.split("__").map(str::to_owned).collect()))
    })
}

fn value<'a>(node: &'a NodeInfo, label: &str) -> Option<&'a str> {
    let old = LABELS.iter().find(|(_, new)| *new == label).map(|(old, _)| *old);
    node.label(label).or_else(|| node.label(old?))
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        NAME
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter]
    }

    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> Result<PreFiltered, Refusal> {
        let all: Vec<_> = self.volumes.bound_volumes(pod).iter().flat_map(|v| places(v).collect::<Vec<_>>()).collect();
        if all.is_empty() {
            return Ok(PreFiltered::Skip);
        }
        state.put(Places(all));
        Ok(PreFiltered::Ok)
    }

    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let Some(Places(wanted)) = state.get::<Places>() else { return Ok(()) };
        // A cluster whose nodes say nothing of zones has one.
        let placed = LABELS.iter().any(|(_, label)| value(node, label).is_some());
        let fits = wanted.iter().all(|(label, values)| value(node, label).is_some_and(|v| values.iter().any(|w| w == v)));
        if placed && !fits { Err(Refusal::unresolvable(NAME, "node(s) had no available volume zone")) } else { Ok(()) }
    }

    fn may_help(&self, event: &ClusterEvent, _: &PodInfo) -> bool {
        match event {
            ClusterEvent::NodeUpdated { old, new } => old.metadata.labels != new.metadata.labels,
            ClusterEvent::StorageChanged | ClusterEvent::NodeAdded(_) | ClusterEvent::PodChanged { .. } | ClusterEvent::Forced => true,
            _ => false,
        }
    }
}
