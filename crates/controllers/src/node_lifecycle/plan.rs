use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tiphys_client::{Action, Note, Patch, Plan};
use tiphys_types::api::core::v1::{Node, NodeCondition, Pod, Taint};
use tiphys_types::metav1::Time;
use tiphys_types::pods;
use tiphys_types::taints::{NO_EXECUTE, NO_SCHEDULE};

use crate::shared::nodes::{condition, taints};
use crate::shared::pod::about;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// (condition, its status, taint): NoSchedule.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(super) struct Observed {
    pub(super) node: Arc<Node>,
    pub(super) pods: Vec<Arc<Pod>>,
    /// When the last sign of life was seen.
    pub(super) seen: Timestamp,
    pub(super) any_ready: bool,
    pub(super) grace: i64,
}

/// When signs of life came, on our clock.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) lease: Option<Timestamp>,
    heartbeat: Option<(String, Timestamp)>,
}

impl Seen {
    /// Takes note of the heartbeat and says when the last sign of any sort came.
    pub(super) fn at(&mut self, heartbeat: String, now: Timestamp) -> Timestamp {
        let since = match &self.heartbeat {
            Some((old, since)) if *old == heartbeat => *since,
            _ => now,
        };
        self.heartbeat = Some((heartbeat, since));
        self.lease.map_or(since, |l| l.max(since))
    }
}

/// What a living kubelet changes in its node's status now and then.
pub(super) fn heartbeat(node: &Node) -> String {
    let ready = condition(node, "Ready").filter(|c| c.status != "Unknown");
    let beat = ready.and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0);
    format!("{beat:?} {:?}", ready.map(|c| c.status.as_str()))
}

pub(super) fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if observed.node.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let left = observed.seen.as_second() + observed.grace - now.as_second();
    let silent = left <= 0;
    if silent {
        // Looked at again, in case a lease comes back without a change of the node.
        plan.again_after(Duration::from_secs(5));
    } else {
        plan.again_after(Duration::from_secs(left as u64 + 1));
    }
    let node = if silent { fallen_silent(&observed.node, now) } else { Node::clone(&observed.node) };
    if node != *observed.node {
        plan.act(Action::update_status(&node));
        if condition(&observed.node, "Ready").is_some_and(|c| c.status == "True") {
            let name = node.metadata.name.as_deref().unwrap_or("");
            plan.note(Note::normal(&about(&node), "NodeNotReady", format!("Node {name} status is now: NodeNotReady")));
        }
        // The taints follow when the new conditions are seen.
        return plan;
    }
    let wanted = wanted_taints(&node, observed.any_ready, now);
    if wanted != taints(&observed.node) {
        plan.act(Action::patch(&node, "", taint_patch(&node, &wanted)));
    }
    if condition(&node, "Ready").is_some_and(|c| c.status != "True") {
        for pod in observed.pods.iter().filter(|p| pods::is_ready(p)) {
            plan.act(not_ready(pod, now));
        }
    }
    plan
}

fn fallen_silent(node: &Node, now: Timestamp) -> Node {
    let mut next = node.clone();
    let status = next.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(old) if old.status == "Unknown" => {}
            Some(old) => {
                old.status = "Unknown".into();
                old.reason = Some("NodeStatusUnknown".into());
                old.message = Some("Kubelet stopped posting node status.".into());
                old.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    next
}

fn is_ours(taint: &Taint) -> bool {
    let known = taint.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(.., key)| *key == taint.key);
    match taint.effect.as_str() {
        NO_SCHEDULE => known,
        NO_EXECUTE => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    }
}

/// Others' taints as they stand, then ours.
fn wanted_taints(node: &Node, any_ready: bool, now: Timestamp) -> Vec<Taint> {
    let current = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = BY_CONDITION
        .iter()
        .filter(|(kind, status, _)| condition(node, kind).is_some_and(|c| c.status == *status))
        .map(|(.., key)| (*key, NO_SCHEDULE))
        .collect();
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    match condition(node, "Ready").map(|c| c.status.as_str()) {
        Some("False") if any_ready => wanted.push((NOT_READY, NO_EXECUTE)),
        Some("Unknown") if any_ready => wanted.push((UNREACHABLE, NO_EXECUTE)),
        // Registered with the taint, and not known yet: it stays until the node has said something.
        None => wanted.extend(current.iter().filter(|t| is_ours(t)).map(|t| (static_key(&t.key), static_effect(&t.effect)))),
        _ => {}
    }
    let mut next: Vec<Taint> =
        current.iter().filter(|t| !is_ours(t) || wanted.contains(&(t.key.as_str(), t.effect.as_str()))).cloned().collect();
    for (key, effect) in wanted {
        if !next.iter().any(|t| t.key == key && t.effect == effect) {
            next.push(Taint { key: key.into(), effect: effect.into(), value: None, time_added: Some(Time(now)) });
        }
    }
    next
}

fn static_key(key: &str) -> &'static str {
    BY_CONDITION.iter().map(|(.., k)| *k).chain([UNSCHEDULABLE]).find(|k| *k == key).unwrap_or(NOT_READY)
}

fn static_effect(effect: &str) -> &'static str {
    if effect == NO_EXECUTE { NO_EXECUTE } else { NO_SCHEDULE }
}

/// Taints are one list to the API: the patch says which version of it was read.
fn taint_patch(node: &Node, taints: &[Taint]) -> Patch {
    let list = if taints.is_empty() { serde_json::Value::Null } else { json!(taints) };
    Patch::Merge(json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": list}}))
}

fn not_ready(pod: &Pod, now: Timestamp) -> Action {
    let condition = json!({"type": pods::READY, "status": "False", "lastTransitionTime": Time(now)});
    let patch = Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}));
    Action::patch(pod, "status", patch).or_settled().say_when_done(Note::warning(&about(pod), "NodeNotReady", "Node is not ready"))
}
