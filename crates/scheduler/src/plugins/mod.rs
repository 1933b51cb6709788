//! One folder per plugin; the slice of the default profile in upstream's order, which decides whose words a refused node speaks in.
//!
//! Absent: dynamic resources, gang scheduling, features that nodes declare.

pub mod balanced_allocation;
pub mod default_binder;
pub mod default_preemption;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod node_volume_limits;
pub mod pod_topology_spread;
pub mod scheduling_gates;
pub mod taint_toleration;
pub mod volume_binding;
pub mod volume_restrictions;
pub mod volume_zone;

use std::sync::Arc;

use tiphys_client::Client;

use crate::framework::Plugin;

/// What the plugins of a profile may keep.
pub struct Context {
    pub client: Client,
    pub volumes: volume_binding::Volumes,
    pub companions: pod_topology_spread::Companions,
}

/// The default profile. PrioritySort is the queue's own order; DefaultPreemption is `default_preemption::find`, which the driver calls.
pub fn defaults(context: &Context) -> Vec<Arc<dyn Plugin>> {
    vec![
        Arc::new(scheduling_gates::SchedulingGates),
        Arc::new(node_unschedulable::NodeUnschedulable),
        Arc::new(node_name::NodeName),
        Arc::new(taint_toleration::TaintToleration),
        Arc::new(node_affinity::NodeAffinity),
        Arc::new(node_ports::NodePorts),
        Arc::new(node_resources_fit::Fit),
        Arc::new(volume_restrictions::VolumeRestrictions::new(context.volumes.clone())),
        Arc::new(node_volume_limits::NodeVolumeLimits::new(context.volumes.clone())),
        Arc::new(volume_binding::VolumeBinding::new(context.client.clone(), context.volumes.clone())),
        Arc::new(volume_zone::VolumeZone::new(context.volumes.clone())),
        Arc::new(pod_topology_spread::PodTopologySpread::new(context.companions.clone())),
        Arc::new(inter_pod_affinity::InterPodAffinity),
        Arc::new(balanced_allocation::BalancedAllocation),
        Arc::new(image_locality::ImageLocality),
        Arc::new(default_binder::DefaultBinder::new(context.client.clone())),
    ]
}
