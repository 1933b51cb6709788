//! What a pod asks for and may use, summed over its containers: the scheduler, the kubelet, quota and `kubectl describe node` must agree.
//!
//! Sidecars (restartable init containers, KEP-753) run beside everything after them; other init containers run alone, one after another.
//! A pod's own `resources` (KEP-2837) outweigh its containers'. With a resize under way (KEP-1287) the larger of wanted, given and allocated counts.

use std::collections::BTreeMap;

use tiphys_meta::Quantity;

use crate::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use crate::apimachinery::pkg::api::resource::Quantity as TypedQuantity;

pub const CPU: &str = "cpu";
pub const MEMORY: &str = "memory";
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
pub const PODS: &str = "pods";
pub const HUGE_PAGES_PREFIX: &str = "hugepages-";

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;
type TypedList = BTreeMap<String, TypedQuantity>;

#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// Count what the kubelet reports (in-place resize) beside what the spec says.
    pub use_status: bool,
    pub exclude_overhead: bool,
    /// Requests that a container without them is taken to have (the scheduler's scoring).
    pub non_missing: Option<&'a ResourceList>,
}

/// A typed quantity; one that cannot be read counts as nothing (the API server admits none).
pub fn quantity(typed: &TypedQuantity) -> Quantity {
    Quantity::parse(&typed.0).unwrap_or(Quantity::ZERO)
}

pub fn list(typed: Option<&TypedList>) -> ResourceList {
    typed.into_iter().flatten().map(|(name, q)| (name.clone(), quantity(q))).collect()
}

/// The typed form again.
pub fn to_typed(list: &ResourceList) -> TypedList {
    list.iter().map(|(name, q)| (name.clone(), TypedQuantity(q.to_string()))).collect()
}

pub fn add(to: &mut ResourceList, other: &ResourceList) {
    for (name, amount) in other {
        *to.entry(name.clone()).or_insert(Quantity::ZERO) += *amount;
    }
}

pub fn subtract(from: &mut ResourceList, other: &ResourceList) {
    for (name, amount) in other {
        *from.entry(name.clone()).or_insert(Quantity::ZERO) -= *amount;
    }
}

pub fn raise_to(to: &mut ResourceList, other: &ResourceList) {
    for (name, amount) in other {
        let entry = to.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Resources that a pod may set for itself.
pub fn is_pod_level(name: &str) -> bool {
    name == CPU || name == MEMORY || name.starts_with(HUGE_PAGES_PREFIX)
}

pub fn requests(pod: &Pod) -> ResourceList {
    requests_with(pod, Options::default())
}

pub fn limits(pod: &Pod) -> ResourceList {
    limits_with(pod, Options::default())
}

pub fn requests_with(pod: &Pod, options: Options<'_>) -> ResourceList {
    let mut sum = aggregate(pod, options, Side::Requests);
    let Some(spec) = &pod.spec else { return sum };
    if let Some(own) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        sum.extend(list(Some(own)).into_iter().filter(|(name, _)| is_pod_level(name)));
    }
    if !options.exclude_overhead {
        add(&mut sum, &list(spec.overhead.as_ref()));
    }
    sum
}

pub fn limits_with(pod: &Pod, options: Options<'_>) -> ResourceList {
    let mut sum = aggregate(pod, options, Side::Limits);
    let Some(spec) = &pod.spec else { return sum };
    if let Some(own) = spec.resources.as_ref().and_then(|r| r.limits.as_ref()) {
        sum.extend(list(Some(own)).into_iter().filter(|(name, _)| is_pod_level(name)));
    }
    if !options.exclude_overhead {
        // Overhead adds to a limit that is set; it never makes one.
        for (name, amount) in list(spec.overhead.as_ref()) {
            if let Some(limit) = sum.get_mut(&name).filter(|l| !l.is_zero()) {
                *limit += amount;
            }
        }
    }
    sum
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Requests,
    Limits,
}

fn aggregate(pod: &Pod, options: Options<'_>, side: Side) -> ResourceList {
    let Some(spec) = &pod.spec else { return ResourceList::new() };
    let infeasible = resize_infeasible(pod);
    let amounts = |container: &Container, running: bool| -> ResourceList {
        let mut own = of_side(container.resources.as_ref(), side);
        let status = if options.use_status && running { status_of(pod, &container.name) } else { None };
        if let Some(status) = status.filter(|s| s.resources.is_some()) {
            own = effective(own, status, side, infeasible);
        }
        if let (Side::Requests, Some(missing)) = (side, options.non_missing) {
            for (name, amount) in missing {
                own.entry(name.clone()).or_insert(*amount);
            }
        }
        own
    };
    let mut sum = ResourceList::new();
    for container in &spec.containers {
        add(&mut sum, &amounts(container, true));
    }
    let (mut sidecars, mut init) = (ResourceList::new(), ResourceList::new());
    for container in spec.init_containers.iter().flatten() {
        let mut own = amounts(container, is_sidecar(container));
        if is_sidecar(container) {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise_to(&mut init, &sidecars);
        } else {
            add(&mut own, &sidecars);
            raise_to(&mut init, &own);
        }
    }
    raise_to(&mut sum, &init);
    sum
}

fn of_side(resources: Option<&ResourceRequirements>, side: Side) -> ResourceList {
    list(resources.and_then(|r| if side == Side::Requests { r.requests.as_ref() } else { r.limits.as_ref() }))
}

fn effective(spec: ResourceList, status: &ContainerStatus, side: Side, infeasible: bool) -> ResourceList {
    let mut result = if infeasible { ResourceList::new() } else { spec };
    raise_to(&mut result, &of_side(status.resources.as_ref(), side));
    if side == Side::Requests {
        raise_to(&mut result, &list(status.allocated_resources.as_ref()));
    }
    result
}

fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.into_iter().find(|s| s.name == name)
}

/// A resize that the node can never give (condition `PodResizePending`, reason `Infeasible`).
pub fn resize_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
    let mut pending = conditions.filter(|c| c.type_ == "PodResizePending");
    pending.next().is_some_and(|c| c.reason.as_deref() == Some("Infeasible"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn container(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    fn sidecar(name: &str, cpu: &str) -> Value {
        let mut c = container(name, cpu);
        c["restartPolicy"] = json!("Always");
        c
    }

    fn cpu(list: &ResourceList) -> String {
        list.get(CPU).copied().unwrap_or_default().to_string()
    }

    #[test]
    fn containers_inits_sidecars_overhead() {
        let plain = pod(json!({"containers": [container("a", "1"), container("b", "500m")]}));
        assert_eq!(cpu(&requests(&plain)), "1500m");
        let init = pod(json!({"containers": [container("a", "1")], "initContainers": [container("i", "3"), container("j", "2")]}));
        assert_eq!(cpu(&requests(&init)), "3");
        // KEP-753's example: a sidecar counts with what runs after it.
        let mixed = pod(json!({"containers": [container("a", "1")],
            "initContainers": [container("i", "2"), sidecar("s", "1"), container("j", "3")], "overhead": {"cpu": "100m"}}));
        assert_eq!(cpu(&requests(&mixed)), "4100m");
        assert_eq!(cpu(&limits(&mixed)), "4100m");
        let no_limit = pod(json!({"containers": [{"name": "a"}], "overhead": {"cpu": "100m"}}));
        assert!(limits(&no_limit).is_empty());
        assert_eq!(cpu(&requests(&no_limit)), "100m");
    }

    #[test]
    fn pod_level_wins() {
        let p = pod(json!({"containers": [container("a", "1")], "resources": {"requests": {"cpu": "4"}}}));
        assert_eq!(cpu(&requests(&p)), "4");
        assert_eq!(cpu(&limits(&p)), "1");
    }

    #[test]
    fn resize_counts_the_larger() {
        let mut p = pod(json!({"containers": [container("a", "1")]}));
        p.status = serde_json::from_value(json!({"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "resources": {"requests": {"cpu": "2"}}, "allocatedResources": {"cpu": "3"}}]}))
        .unwrap();
        assert_eq!(cpu(&requests(&p)), "1");
        assert_eq!(cpu(&requests_with(&p, Options { use_status: true, ..Options::default() })), "3");
    }
}
