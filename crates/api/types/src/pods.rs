//! What is true of a pod: ready, available, finished, its conditions and ports.

use crate::api::core::v1::{Container, ContainerPort, ContainerStatus, Pod, PodCondition, PodStatus};
use crate::apimachinery::pkg::util::intstr::IntOrString;
use crate::jiff::Timestamp;

pub const READY: &str = "Ready";
pub const CONTAINERS_READY: &str = "ContainersReady";
pub const INITIALIZED: &str = "Initialized";
pub const POD_SCHEDULED: &str = "PodScheduled";
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

/// Succeeded or Failed: it will not run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

pub fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
}

pub fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

pub fn condition_is_true(pod: &Pod, kind: &str) -> bool {
    pod.status.as_ref().and_then(|s| condition(s, kind)).is_some_and(|c| c.status == "True")
}

pub fn is_ready(pod: &Pod) -> bool {
    condition_is_true(pod, READY)
}

/// Ready for `min_ready_seconds` at least. Otherwise the seconds to wait, where time alone can make it available.
pub fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    let Some(ready) = pod.status.as_ref().and_then(|s| condition(s, READY)).filter(|c| c.status == "True") else {
        return Availability::NotReady;
    };
    if min_ready_seconds <= 0 {
        return Availability::Available;
    }
    let Some(since) = &ready.last_transition_time else { return Availability::NotReady };
    let left = since.0.as_second() + i64::from(min_ready_seconds) - now.as_second();
    if left <= 0 { Availability::Available } else { Availability::In(left) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    Available,
    NotReady,
    /// In so many seconds, if it stays ready.
    In(i64),
}

pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    availability(pod, min_ready_seconds, now) == Availability::Available
}

/// Sets a condition; the transition time moves only when the status does. True if anything changed.
pub fn set_condition(status: &mut PodStatus, mut condition: PodCondition) -> bool {
    let conditions = status.conditions.get_or_insert_with(Vec::new);
    let Some(old) = conditions.iter_mut().find(|c| c.type_ == condition.type_) else {
        conditions.push(condition);
        return true;
    };
    if old.status == condition.status {
        condition.last_transition_time = old.last_transition_time.clone();
    }
    let changed = *old != condition;
    *old = condition;
    changed
}

/// The containers that run for the pod's whole life: sidecars and main ones.
pub fn long_running(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let sidecars = spec.and_then(|s| s.init_containers.as_ref()).into_iter().flatten().filter(|c| crate::resources::is_sidecar(c));
    spec.into_iter().flat_map(|s| &s.containers).chain(sidecars)
}

pub fn container_status<'a>(statuses: Option<&'a Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    statuses.into_iter().flatten().find(|s| s.name == name)
}

/// The number of a port named (or given) by a Service or a probe: named ports are looked up in main containers and sidecars, with the protocol.
pub fn resolve_port(pod: &Pod, port: &IntOrString, protocol: &str) -> Option<i32> {
    match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = long_running(pod).flat_map(|c| c.ports.iter().flatten());
            ports.find(|p| p.name.as_deref() == Some(name) && port_protocol(p) == protocol).map(|p| p.container_port)
        }
    }
}

/// A probe's or hook's port within one container, whatever the protocol; text that is a number counts as one.
pub fn container_port(container: &Container, port: &IntOrString) -> Option<i32> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    number.filter(|n| (1..=65535).contains(n))
}

pub fn port_protocol(port: &ContainerPort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn readiness_and_availability() {
        let p = pod(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]}}));
        let at = |seconds: i64| Timestamp::from_second(1_704_067_200 + seconds).unwrap();
        assert!(is_ready(&p));
        assert!(is_available(&p, 0, at(0)));
        assert_eq!(availability(&p, 10, at(4)), Availability::In(6));
        assert!(is_available(&p, 10, at(10)));
        assert_eq!(availability(&Pod::default(), 0, at(0)), Availability::NotReady);
    }

    #[test]
    fn conditions_keep_their_transition_time() {
        let mut status = PodStatus::default();
        let ready = |status: &str, time: &str| PodCondition {
            type_: READY.into(),
            status: status.into(),
            last_transition_time: Some(serde_json::from_value(json!(time)).unwrap()),
            ..PodCondition::default()
        };
        assert!(set_condition(&mut status, ready("True", "2024-01-01T00:00:00Z")));
        assert!(!set_condition(&mut status, ready("True", "2024-01-02T00:00:00Z")));
        assert!(set_condition(&mut status, ready("False", "2024-01-03T00:00:00Z")));
        assert_eq!(status.conditions.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn ports() {
        let p = pod(json!({"spec": {"containers": [{"name": "a", "ports": [
            {"name": "web", "containerPort": 8080}, {"name": "web", "containerPort": 53, "protocol": "UDP"}]}],
            "initContainers": [{"name": "i", "ports": [{"name": "x", "containerPort": 1}]},
                {"name": "s", "restartPolicy": "Always", "ports": [{"name": "y", "containerPort": 2}]}]}}));
        let named = |n: &str| IntOrString::String(n.into());
        assert_eq!(resolve_port(&p, &named("web"), "TCP"), Some(8080));
        assert_eq!(resolve_port(&p, &named("web"), "UDP"), Some(53));
        assert_eq!(resolve_port(&p, &named("x"), "TCP"), None);
        assert_eq!(resolve_port(&p, &named("y"), "TCP"), Some(2));
        assert_eq!(resolve_port(&p, &IntOrString::Int(9), "TCP"), Some(9));
        let container = &p.spec.as_ref().unwrap().containers[0];
        assert_eq!(container_port(container, &named("81")), Some(81));
        assert_eq!(container_port(container, &named("nope")), None);
    }
}
