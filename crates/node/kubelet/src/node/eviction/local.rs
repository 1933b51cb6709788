//! Limits on local storage: a pod that has written more than it may is evicted (upstream's localStorageEviction).
//!
//! Only pods that have such a limit are looked at, so a node without them walks no folder.

use crate::agent::Agent;
use crate::pod::spec;
use crate::pod::worker::Shown;
use std::path::Path;
use tiphys_cri as cri;
use tiphys_meta::Quantity;
use tiphys_types::api::core::v1::{Container, Pod};

const STORAGE: &str = "ephemeral-storage";

fn limit(container: &Container) -> Option<Quantity> {
    let amount = container.resources.as_ref()?.limits.as_ref()?.get(STORAGE)?;
    Quantity::parse(&amount.0).ok().filter(|limit| !limit.is_zero())
}

/// An emptyDir on disk and how much it may hold.
fn bounded_volumes(pod: &Pod) -> impl Iterator<Item = (&str, Quantity)> {
    let volumes = spec::spec(pod).volumes.iter().flatten();
    volumes.filter_map(|volume| {
        let source = volume.empty_dir.as_ref().filter(|source| source.medium.as_deref().unwrap_or_default().is_empty())?;
        let limit = Quantity::parse(&source.size_limit.as_ref()?.0).ok().filter(|limit| limit.value() > 0)?;
        Some((volume.name.as_str(), limit))
    })
}

/// Whether the pod has any limit to be held to.
pub(super) fn is_bounded(pod: &Pod) -> bool {
    bounded_volumes(pod).next().is_some() || spec::containers(pod).iter().any(|c| limit(c).is_some())
}

/// What a pod's files take, in bytes.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Writable layer and logs, by container.
    pub(super) containers: Vec<(String, u64)>,
    /// Its emptyDirs on disk, by name.
    pub(super) volumes: Vec<(String, u64)>,
}

impl Usage {
    pub(super) fn total(&self) -> u64 {
        self.containers.iter().chain(&self.volumes).map(|(_, bytes)| bytes).sum()
    }
}

/// Walks the pod's volumes and logs; may block.
pub(super) fn usage(agent: &Agent, shown: &Shown, stats: Option<&cri::PodSandboxStats>) -> Usage {
    let pod = &shown.pod;
    let logs = crate::pod::sandbox::log_directory(&agent.config.pod_logs_dir, pod);
    let below = |path: &Path| tiphys_sys::fs::usage_below(path).0;
    let containers = stats.iter().flat_map(|s| &s.containers).map(|c| {
        let name = c.attributes.metadata.name.clone();
        let layer = c.writable_layer.as_ref().map_or(0, |f| f.used_bytes);
        let logs = below(&logs.join(&name));
        (name, layer + logs)
    });
    let on_disk = spec::spec(pod).volumes.iter().flatten().filter(|v| {
        let medium = v.empty_dir.as_ref().map(|source| source.medium.as_deref().unwrap_or_default());
        medium == Some("")
    });
    let folder = |name: &str| agent.volumes.layout().volume(spec::uid(pod), "empty-dir", name);
    Usage { containers: containers.collect(), volumes: on_disk.map(|v| (v.name.clone(), below(&folder(&v.name)))).collect() }
}

/// Which limit is exceeded, in upstream's words.
pub(super) fn excess(pod: &Pod, usage: &Usage) -> Option<String> {
    let over = |bytes: u64, limit: &Quantity| i64::try_from(bytes).is_ok_and(|bytes| bytes > limit.value());
    for (name, limit) in bounded_volumes(pod) {
        if usage.volumes.iter().any(|(n, bytes)| n == name && over(*bytes, &limit)) {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", limit.to_string()));
        }
    }
    let containers = spec::containers(pod);
    let all: Option<Vec<Quantity>> = containers.iter().map(limit).collect();
    if let Some(sum) = all.map(|list| list.into_iter().fold(Quantity::ZERO, |a, b| a + b)).filter(|_| !containers.is_empty())
        && over(usage.total(), &sum)
    {
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {sum}. "));
    }
    containers.iter().find_map(|container| {
        let limit = limit(container)?;
        let used = usage.containers.iter().find(|(name, _)| *name == container.name)?.1;
        over(used, &limit)
            .then(|| format!("Container {} exceeded its local ephemeral storage limit {:?}. ", container.name, limit.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
    }

    #[test]
    fn what_is_held_to_a_limit() {
        let bound = |size: &str| json!({"limits": {"ephemeral-storage": size}});
        let both = pod(json!({"containers": [{"name": "a", "resources": bound("10")}, {"name": "b", "resources": bound("20")}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "5"}}, {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1"}}]}));
        let one = pod(json!({"containers": [{"name": "a", "resources": bound("10")}, {"name": "b"}]}));
        let none = pod(json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]}));
        assert!(is_bounded(&both) && is_bounded(&one) && !is_bounded(&none));
        let use_of = |a, b, v| Usage { containers: vec![("a".into(), a), ("b".into(), b)], volumes: vec![("v".into(), v)] };
        let why = |pod: &Pod, usage| excess(pod, &usage).unwrap_or_default();
        assert_eq!(why(&both, use_of(10, 15, 5)), "");
        assert_eq!(why(&both, use_of(0, 0, 6)), "Usage of EmptyDir volume \"v\" exceeds the limit \"5\". ");
        assert_eq!(why(&both, use_of(11, 0, 0)), "Container a exceeded its local ephemeral storage limit \"10\". ");
        assert_eq!(why(&both, use_of(10, 20, 5)), "Pod ephemeral local storage usage exceeds the total limit of containers 30. ");
        assert_eq!(why(&one, use_of(10, 999, 0)), "", "who has no limit makes the pod's sum meaningless");
        assert_eq!(why(&none, use_of(999, 999, 999)), "");
    }
}
