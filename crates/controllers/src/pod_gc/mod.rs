//! Deletes pods that no kubelet will: finished ones beyond a number, those on nodes that are gone, those that were being deleted before they
//! had a node, and those on nodes that were declared out of service.
//!
//! Watches Pods and Nodes; deletes pods, marking unfinished ones Failed first (KEP-3329). A node must be gone for 40 s, upstream's quarantine,
//! for a cache may be late.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tiphys_client::{Action, DeleteOptions, Delta, Informer, Patch, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{Node, Pod};
use tiphys_types::metav1::Time;
use tiphys_types::pods;

use crate::Context;

const QUARANTINE: Duration = Duration::from_secs(40);
const ROUND: Duration = Duration::from_secs(20);

pub(crate) fn start(context: &Context) {
    let (pods, nodes) = (context.informers.of::<Pod>(), context.informers.of::<Node>());
    let queue = WorkQueue::new();
    queue.add(());
    let again = queue.clone();
    nodes.on_change(move |delta| {
        if let Delta::Deleted(_) = delta {
            again.add_after((), QUARANTINE);
        }
        true
    });
    let again = queue.clone();
    pods.on_change(move |delta| {
        let pod = delta.object();
        // Others wait for the regular round.
        if !matches!(delta, Delta::Deleted(_)) && pods::is_terminating(pod) && pods::node_name(pod).is_empty() {
            again.add_after((), Duration::from_millis(50));
        }
        true
    });
    let executor = context.executor("pod-garbage-collector").reading(pods.clone()).reading(nodes.clone());
    let collector =
        Collector { pods, nodes, threshold: context.config.terminated_pod_gc_threshold, missing: parking_lot::Mutex::default() };
    context.run("pod-garbage-collector-controller", 1, queue, collector, executor);
}

struct Collector {
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    threshold: usize,
    /// Since when a node is known to be missing.
    missing: parking_lot::Mutex<std::collections::HashMap<String, Timestamp>>,
}

impl Planner for Collector {
    type Key = ();

    fn plan(&self, (): &(), now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        plan.again_after(ROUND);
        let pods = self.pods.list();
        surplus(&pods, self.threshold, &mut plan);
        self.orphaned(&pods, now, &mut plan);
        for pod in pods.iter().filter(|p| pods::is_terminating(p) && pods::node_name(p).is_empty() && !has_finalizers(p)) {
            plan.act(remove(pod));
        }
        self.out_of_service(&pods, now, &mut plan);
        plan
    }
}

fn has_finalizers(pod: &Pod) -> bool {
    pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty())
}

fn surplus(pods: &[Arc<Pod>], threshold: usize, plan: &mut Plan) {
    if threshold == 0 {
        return;
    }
    let mut finished: Vec<&Arc<Pod>> = pods.iter().filter(|p| pods::is_terminal(p)).collect();
    let many = finished.len().saturating_sub(threshold);
    finished.sort_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
    for pod in finished.into_iter().take(many) {
        plan.act(remove(pod));
    }
}

impl Collector {
    fn orphaned(&self, pods: &[Arc<Pod>], now: Timestamp, plan: &mut Plan) {
        let mut missing = self.missing.lock();
        missing.retain(|name, _| self.nodes.get("", name).is_none());
        for pod in pods.iter().filter(|p| !pods::node_name(p).is_empty()) {
            let node = pods::node_name(pod);
            if self.nodes.get("", node).is_some() {
                continue;
            }
            let since = *missing.entry(node.to_owned()).or_insert(now);
            let left = QUARANTINE.as_secs() as i64 - (now.as_second() - since.as_second());
            if left > 0 {
                plan.again_after(Duration::from_secs(left as u64));
                continue;
            }
            fail(pod, "DeletionByPodGC", "PodGC: node no longer exists", now, plan);
            plan.act(remove(pod));
        }
    }

    fn out_of_service(&self, pods: &[Arc<Pod>], now: Timestamp, plan: &mut Plan) {
        let is_out = |name: &str| {
            let node = self.nodes.get("", name);
            node.is_some_and(|n| {
                !is_ready(&n) && n.spec.iter().flat_map(|s| s.taints.iter().flatten()).any(|t| t.key == "node.kubernetes.io/out-of-service")
            })
        };
        for pod in pods.iter().filter(|p| pods::is_terminating(p) && is_out(pods::node_name(p))) {
            fail(pod, "DeletionByPodGC", "PodGC: node is out of service", now, plan);
            plan.act(remove(pod));
        }
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn fail(pod: &Pod, reason: &str, message: &str, now: Timestamp, plan: &mut Plan) {
    if pods::is_terminal(pod) {
        return;
    }
    let condition =
        json!({"type": pods::DISRUPTION_TARGET, "status": "True", "reason": reason, "message": message, "lastTransitionTime": Time(now)});
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": [condition]}});
    plan.act(Action::patch(pod, "status", Patch::Strategic(patch)).or_settled());
}

fn remove(pod: &Pod) -> Action {
    Action::delete_with(pod, DeleteOptions::grace(0))
}
