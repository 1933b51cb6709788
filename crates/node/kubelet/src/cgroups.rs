//! The cgroups above containers: one per pod, below one per quality-of-service class, so that classes share the CPU as asked for.

use crate::agent::Agent;
use crate::pod::spec;
use crate::resources;
use std::sync::Arc;
use tiphys_cgroups::{Cgroup, Hierarchy, Limits};
use tiphys_cri::LinuxContainerResources;
use tiphys_types::api::core::v1::Pod;
use tiphys_types::{qos, resources as shared};

/// None where the machine has no cgroups that we may use.
pub(crate) struct PodGroups {
    hierarchy: Option<Arc<Hierarchy>>,
    root: String,
}

impl PodGroups {
    /// `enabled` is upstream's cgroupsPerQOS.
    pub(crate) fn new(enabled: bool, root: &str) -> Self {
        let hierarchy = enabled.then(Hierarchy::detect).and_then(|found| {
            found.inspect_err(|error| tracing::warn!(%error, "no cgroups: pods run without limits of their own")).ok().map(Arc::new)
        });
        PodGroups { hierarchy, root: root.to_owned() }
    }

    fn group(&self, path: &str) -> Option<Cgroup> {
        Some(Cgroup::new(self.hierarchy.clone()?, path))
    }

    /// Makes the pod's cgroup if it is not there, with its limits.
    pub(crate) fn ensure(&self, pod: &Pod) -> Result<(), String> {
        let Some(group) = self.group(&resources::cgroup_parent(&self.root, pod)) else { return Ok(()) };
        if group.exists() {
            return Ok(());
        }
        let made = group.create().and_then(|()| group.apply(&limits(&resources::of_pod(pod))));
        made.map_err(|e| format!("failed to ensure that the pod: {} cgroups exist and are correctly applied: {e}", spec::uid(pod)))
    }

    /// After a resize.
    pub(crate) fn apply(&self, pod: &Pod) -> Result<(), String> {
        let Some(group) = self.group(&resources::cgroup_parent(&self.root, pod)) else { return Ok(()) };
        let mut wanted = resources::of_pod(pod);
        // What has no limit any more must be told so.
        wanted.cpu_quota = if wanted.cpu_quota == 0 { -1 } else { wanted.cpu_quota };
        wanted.memory_limit_in_bytes = if wanted.memory_limit_in_bytes == 0 { -1 } else { wanted.memory_limit_in_bytes };
        group.apply(&limits(&wanted)).map_err(|e| e.to_string())
    }

    pub(crate) fn remove(&self, pod: &Pod) -> Result<(), String> {
        let Some(group) = self.group(&resources::cgroup_parent(&self.root, pod)) else { return Ok(()) };
        group.remove().map_err(|e| e.to_string())
    }

    /// Best-effort pods share what is left; burstable ones what they ask for together.
    pub(crate) fn share_cpu(&self, agent: &Agent) {
        let root = format!("{}/kubepods", self.root.trim_end_matches('/'));
        let pods = agent.workers.list();
        let asked: i64 = pods
            .iter()
            .filter(|s| !s.over && resources::qos_class(&s.pod) == qos::BURSTABLE)
            .map(|s| shared::requests(&s.pod).get(shared::CPU).map_or(0, |q| q.milli()))
            .sum();
        for (path, milli) in
            [(format!("{root}/besteffort"), 0), (format!("{root}/burstable"), asked), (root.clone(), agent.machine.cpus * 1000)]
        {
            let Some(group) = self.group(&path) else { return };
            let wanted = Limits { cpu_shares: Some(resources::shares(milli) as u64), ..Limits::default() };
            if let Err(error) = group.create().and_then(|()| group.apply(&wanted)) {
                tracing::debug!(%error, path, "no CPU share set");
            }
        }
    }
}

fn limits(resources: &LinuxContainerResources) -> Limits {
    let set = |value: i64| (value != 0).then_some(value);
    Limits {
        cpu_shares: set(resources.cpu_shares).map(|shares| shares as u64),
        cpu_quota: set(resources.cpu_quota),
        cpu_period: set(resources.cpu_period).map(|period| period as u64),
        memory: set(resources.memory_limit_in_bytes),
        ..Limits::default()
    }
}
