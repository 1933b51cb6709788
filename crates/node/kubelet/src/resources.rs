//! From the resources of a spec to cgroup numbers and back, and what a resize needs (KEP-1287). Pure.

use crate::pod::spec;
use crate::pod::view::Run;
use std::collections::BTreeMap;
use tiphys_cri as cri;
use tiphys_meta::Quantity;
use tiphys_meta::quantity::Format;
use tiphys_types::api::core::v1::{Container, Pod, PodStatus, ResourceRequirements};
use tiphys_types::apimachinery::pkg::api::resource::Quantity as Typed;
use tiphys_types::resources::{CPU, HUGE_PAGES_PREFIX, MEMORY, ResourceList};
use tiphys_types::{qos, resources as shared};

const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1_000;

pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    qos::compute(pod)
}

/// A change of it restarts the container: upstream counts the name and the image, the rest cannot change.
pub(crate) fn container_hash(container: &Container) -> String {
    let text = format!("{}\0{}", container.name, container.image.as_deref().unwrap_or_default());
    format!("{:x}", fnv(text.as_bytes()))
}

pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

type TypedList = BTreeMap<String, Typed>;

fn amount(list: Option<&TypedList>, name: &str) -> Option<Quantity> {
    list?.get(name).map(shared::quantity)
}

fn requests(container: &Container) -> Option<&TypedList> {
    container.resources.as_ref()?.requests.as_ref()
}

fn limits(container: &Container) -> Option<&TypedList> {
    container.resources.as_ref()?.limits.as_ref()
}

pub(crate) fn shares(milli: i64) -> i64 {
    if milli == 0 { MIN_SHARES } else { (milli * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES) }
}

fn quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli * PERIOD / 1000).max(MIN_QUOTA) }
}

fn pod_limits(pod: &Pod) -> Option<&TypedList> {
    spec::spec(pod).resources.as_ref()?.limits.as_ref()
}

/// The container's limit; where it has none, the pod's (KEP-2837).
fn limit_of(pod: &Pod, container: &Container, name: &str) -> Option<Quantity> {
    amount(limits(container), name).filter(|q| !q.is_zero()).or_else(|| amount(pod_limits(pod), name))
}

/// The cgroup numbers of a container.
pub(crate) fn of_container(pod: &Pod, container: &Container, memory_capacity: i64) -> cri::LinuxContainerResources {
    let cpu_limit = limit_of(pod, container, CPU).map_or(0, |q| q.milli());
    // Without a request the limit is the request, as the API server defaults it; unset and limited is asked for.
    let cpu_request = amount(requests(container), CPU).map_or(cpu_limit, |q| q.milli());
    let memory = limit_of(pod, container, MEMORY).map_or(0, |q| q.value());
    let mut resources = cri::LinuxContainerResources {
        cpu_shares: shares(cpu_request),
        cpu_period: PERIOD,
        cpu_quota: quota(cpu_limit),
        memory_limit_in_bytes: memory,
        // Memory and swap together: a limit is a limit, nothing of it is swapped out (upstream's NoSwap).
        memory_swap_limit_in_bytes: memory,
        oom_score_adj: oom_score_adj(pod, container, memory_capacity),
        ..cri::LinuxContainerResources::default()
    };
    // One process killed in a container takes the container with it (cgroup v2, KubeletConfiguration.singleProcessOOMKill).
    resources.unified.insert("memory.oom.group".into(), "1".into());
    // The container's own outweigh the pod's.
    let mut pages = std::collections::BTreeMap::new();
    for (name, quantity) in pod_limits(pod).into_iter().flatten().chain(limits(container).into_iter().flatten()) {
        if let Some(size) = name.strip_prefix(HUGE_PAGES_PREFIX) {
            pages.insert(size, shared::quantity(quantity).value().max(0) as u64);
        }
    }
    resources.hugepage_limits = pages.into_iter().map(|(size, limit)| cri::HugepageLimit { page_size: size.into(), limit }).collect();
    resources
}

/// Who is killed first when memory runs out: those that use more than they asked for.
fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    const SYSTEM_NODE_CRITICAL: i32 = 2_000_001_000;
    const GUARANTEED: i64 = -997;
    if spec::spec(pod).priority.is_some_and(|p| p >= SYSTEM_NODE_CRITICAL) || spec::is_static(pod) {
        return GUARANTEED;
    }
    match qos_class(pod) {
        qos::GUARANTEED => GUARANTEED,
        qos::BEST_EFFORT => 1000,
        _ => {
            let own = |c: &Container| amount(requests(c), MEMORY).map_or(0, |q| q.value());
            let mut request = own(container);
            if spec::is_sidecar(container) {
                // A sidecar is not to go before those that it serves.
                request = request.max(spec::containers(pod).iter().map(own).min().unwrap_or(0));
            }
            request += unallocated_memory(pod);
            let adjusted = 1000 - (i128::from(request) * 1000 / i128::from(memory_capacity.max(1))) as i64;
            adjusted.clamp(1000 + GUARANTEED, 999)
        }
    }
}

/// Each container's share of what the pod requests beyond its containers' requests (KEP-2837).
fn unallocated_memory(pod: &Pod) -> i64 {
    let own = spec::spec(pod).resources.as_ref().and_then(|r| r.requests.as_ref());
    let Some(whole) = amount(own, MEMORY).map(|q| q.value()) else { return 0 };
    let mut bare = pod.clone();
    if let Some(spec) = &mut bare.spec {
        spec.resources = None;
        spec.overhead = None;
    }
    let asked = shared::requests(&bare).get(MEMORY).map_or(0, |q| q.value());
    let containers = spec::containers(pod).len() + spec::init_containers(pod).len();
    (whole - asked).max(0) / (containers.max(1) as i64)
}

/// The cgroup numbers of the whole pod: sums, and limits only where every container has one.
pub(crate) fn of_pod(pod: &Pod) -> cri::LinuxContainerResources {
    let (requests, limits) = (shared::requests(pod), shared::limits(pod));
    let milli = |list: &ResourceList, name: &str| list.get(name).map_or(0, |q| q.milli());
    let all = || spec::containers(pod).iter().chain(spec::init_containers(pod));
    let own = spec::spec(pod).resources.as_ref().and_then(|r| r.limits.as_ref());
    let every = |name: &str| amount(own, name).is_some() || all().all(|c| amount(self::limits(c), name).is_some_and(|q| !q.is_zero()));
    let cpu_limit = if every(CPU) { milli(&limits, CPU) } else { 0 };
    let mut resources = cri::LinuxContainerResources {
        cpu_shares: shares(milli(&requests, CPU).max(cpu_limit * i64::from(milli(&requests, CPU) == 0))),
        ..Default::default()
    };
    if qos_class(pod) == qos::BEST_EFFORT {
        resources.cpu_shares = MIN_SHARES;
        return resources;
    }
    if cpu_limit > 0 {
        (resources.cpu_period, resources.cpu_quota) = (PERIOD, quota(cpu_limit));
    }
    if every(MEMORY) {
        resources.memory_limit_in_bytes = limits.get(MEMORY).map_or(0, |q| q.value());
    }
    resources
}

pub(crate) fn overhead(pod: &Pod) -> Option<cri::LinuxContainerResources> {
    let overhead = spec::spec(pod).overhead.as_ref()?;
    let cpu = amount(Some(overhead), CPU).map_or(0, |q| q.milli());
    Some(cri::LinuxContainerResources {
        cpu_shares: shares(cpu),
        cpu_period: PERIOD,
        cpu_quota: quota(cpu),
        memory_limit_in_bytes: amount(Some(overhead), MEMORY).map_or(0, |q| q.value()),
        ..Default::default()
    })
}

/// `/kubepods/burstable/pod<uid>`, below the node's own cgroup root.
pub(crate) fn cgroup_parent(root: &str, pod: &Pod) -> String {
    let root = root.trim_end_matches('/');
    let uid = spec::uid(pod);
    match qos_class(pod) {
        qos::GUARANTEED => format!("{root}/kubepods/pod{uid}"),
        qos::BEST_EFFORT => format!("{root}/kubepods/besteffort/pod{uid}"),
        _ => format!("{root}/kubepods/burstable/pod{uid}"),
    }
}

fn same_resources(a: &Pod, b: &Pod) -> bool {
    let of = |pod: &Pod| -> Vec<(String, Option<ResourceRequirements>)> {
        let all = spec::containers(pod).iter().chain(spec::init_containers(pod));
        all.map(|c| (c.name.clone(), c.resources.clone().filter(|r| *r != ResourceRequirements::default()))).collect()
    };
    of(a) == of(b) && spec::spec(a).resources == spec::spec(b).resources
}

/// `wanted` with the resources that `allocated` has; None when they do not differ.
pub(crate) fn with_resources_of(wanted: &Pod, allocated: &Pod) -> Option<Pod> {
    if same_resources(wanted, allocated) {
        return None;
    }
    let mut pod = wanted.clone();
    let new = pod.spec.get_or_insert_default();
    new.resources = spec::spec(allocated).resources.clone();
    for container in new.containers.iter_mut().chain(new.init_containers.iter_mut().flatten()) {
        if let Some(old) = spec::container(allocated, &container.name) {
            container.resources = old.resources;
        }
    }
    Some(pod)
}

/// The pod with what its status says it was given: what a kubelet that starts anew goes on with.
pub(crate) fn as_allocated(pod: &Pod) -> Pod {
    let mut allocated = pod.clone();
    let Some(status) = &pod.status else { return allocated };
    let shown: Vec<_> = status.container_statuses.iter().chain(&status.init_container_statuses).flatten().collect();
    let new = allocated.spec.get_or_insert_default();
    for container in new.containers.iter_mut().chain(new.init_containers.iter_mut().flatten()) {
        let Some(one) = shown.iter().find(|s| s.name == container.name && s.state.as_ref().is_some_and(|s| s.running.is_some())) else {
            continue;
        };
        if let (Some(given), Some(in_force)) = (&one.allocated_resources, &one.resources) {
            let claims = container.resources.as_ref().and_then(|r| r.claims.clone());
            container.resources = Some(ResourceRequirements { requests: Some(given.clone()), limits: in_force.limits.clone(), claims });
        }
    }
    allocated
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResizeNeed {
    None,
    InPlace,
    Restart,
}

/// Does a running container have other limits than the spec says now?
pub(crate) fn resize_needed(pod: &Pod, container: &Container, run: &Run) -> ResizeNeed {
    let Some(has) = &run.resources else { return ResizeNeed::None };
    if spec::is_static(pod) {
        return ResizeNeed::None;
    }
    let wants = of_container(pod, container, 1);
    let quota_of = |r: &cri::LinuxContainerResources| if r.cpu_quota > 0 { r.cpu_quota } else { 0 };
    let shares_of = |r: &cri::LinuxContainerResources| r.cpu_shares.max(MIN_SHARES);
    let memory_of = |r: &cri::LinuxContainerResources| r.memory_limit_in_bytes.max(0);
    let cpu = quota_of(has) != quota_of(&wants) || shares_of(has) != shares_of(&wants);
    let memory = memory_of(has) != memory_of(&wants);
    let restarts = |name: &str| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|p| p.resource_name == name && p.restart_policy == "RestartContainer")
    };
    match (cpu, memory) {
        (false, false) => ResizeNeed::None,
        _ if (cpu && restarts(CPU)) || (memory && restarts(MEMORY)) => ResizeNeed::Restart,
        _ => ResizeNeed::InPlace,
    }
}

/// `resources` and `allocatedResources` of a container's status: what is in force, and what was promised.
pub(crate) fn container_status(pod: &Pod, container: &Container, run: &Run) -> (Option<ResourceRequirements>, Option<TypedList>) {
    let allocated = requests(container).cloned().filter(|r| !r.is_empty());
    let mut shown = container.resources.clone().unwrap_or_default();
    shown.claims = None;
    if run.state == crate::pod::view::State::Running
        && resize_needed(pod, container, run) != ResizeNeed::None
        && let Some(has) = &run.resources
    {
        overlay(&mut shown, has);
    }
    (Some(shown), allocated)
}

fn overlay(shown: &mut ResourceRequirements, has: &cri::LinuxContainerResources) {
    let typed = |q: Quantity| Typed(q.to_string());
    if let Some(limits) = &mut shown.limits {
        if has.cpu_quota > 0 && has.cpu_period > 0 && limits.contains_key(CPU) {
            limits.insert(CPU.into(), typed(Quantity::from_milli(has.cpu_quota * 1000 / has.cpu_period)));
        }
        if has.memory_limit_in_bytes > 0 && limits.contains_key(MEMORY) {
            limits.insert(MEMORY.into(), typed(Quantity::new(has.memory_limit_in_bytes, Format::BinarySi)));
        }
    }
    if let Some(requests) = &mut shown.requests
        && has.cpu_shares > MIN_SHARES
        && requests.contains_key(CPU)
    {
        let milli = (has.cpu_shares * 1000 + 1023) / 1024;
        requests.insert(CPU.into(), typed(Quantity::from_milli(milli)));
    }
}

/// `resources` and `allocatedResources` of the pod's status (KEP-5419): shown when the pod asks for anything.
pub(crate) fn pod_level_status(pod: &Pod, status: &mut PodStatus) {
    let requests = shared::requests(pod);
    let limits = shared::limits(pod);
    let typed = |list: &ResourceList| Some(shared::to_typed(list)).filter(|l| !l.is_empty());
    status.allocated_resources = typed(&requests);
    let shown = ResourceRequirements { requests: typed(&requests), limits: typed(&limits), claims: None };
    status.resources = Some(shown).filter(|r| r.requests.is_some() || r.limits.is_some());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(resources: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "c", "resources": resources}]}}))
            .expect("a pod")
    }

    fn numbers(resources: Value) -> (i64, i64, i64, i64) {
        let pod = pod(resources);
        let r = of_container(&pod, &spec::containers(&pod)[0], 1 << 30);
        (r.cpu_shares, r.cpu_quota, r.memory_limit_in_bytes, r.oom_score_adj)
    }

    #[test]
    fn cgroup_numbers() {
        for (resources, expected) in [
            (json!({}), (2, 0, 0, 1000)),
            (json!({"requests": {"cpu": "100m"}}), (102, 0, 0, 999)),
            (json!({"limits": {"cpu": "1m"}}), (2, 1000, 0, 999)),
            (json!({"requests": {"memory": "512Mi"}}), (2, 0, 0, 500)),
            (json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}), (2048, 200_000, 1 << 30, -997)),
        ] {
            assert_eq!(numbers(resources.clone()), expected, "{resources}");
        }
    }

    #[test]
    fn what_a_pod_asks_for_as_a_whole() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"resources": {"requests": {"memory": "512Mi", "cpu": "1"},
            "limits": {"memory": "600Mi", "cpu": "2", "hugepages-2Mi": "4Mi"}},
            "initContainers": [{"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"memory": "256Mi"}, "limits": {"memory": "300Mi", "hugepages-2Mi": "2Mi"}}}]}}))
        .expect("a pod");
        let of = |c: &Container| of_container(&pod, c, 1 << 30);
        let (a, b) = (of(&spec::containers(&pod)[0]), of(&spec::containers(&pod)[1]));
        assert_eq!((a.memory_limit_in_bytes, a.cpu_quota), (600 << 20, 200_000));
        assert_eq!((b.memory_limit_in_bytes, b.cpu_quota), (300 << 20, 200_000));
        assert_eq!((a.hugepage_limits[0].limit, b.hugepage_limits[0].limit), (4 << 20, 2 << 20));
        assert_eq!((a.oom_score_adj, b.oom_score_adj), (917, 667));
    }

    #[test]
    fn the_pods_cgroup_has_limits_only_when_all_containers_have() {
        let both: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "a", "resources": {"limits": {"memory": "1Mi", "cpu": "1"}, "requests": {"cpu": "1"}}},
            {"name": "b", "resources": {"limits": {"memory": "2Mi"}}}]}}))
        .expect("a pod");
        let r = of_pod(&both);
        assert_eq!((r.memory_limit_in_bytes, r.cpu_quota, r.cpu_shares), (3 << 20, 0, 1024));
    }
}
