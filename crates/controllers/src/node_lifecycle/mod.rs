//! What a node's condition means for its pods, as taints.
//!
//! Watches Nodes, their Leases and Pods; writes node conditions (`Unknown`, once a kubelet has been silent for the grace period), taints by
//! condition, and the Ready condition of pods on nodes that are not ready. Silence is measured on our own clock since the last change was seen, so
//! clocks may differ. When no node is ready at all the fault is likely ours: then no pod is driven away (upstream's full disruption).
//!
//! Absent: the eviction rates by zone.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tiphys_client::{Delta, Index, Informer, Plan, Planner, WorkQueue};
use tiphys_types::api::coordination::v1::Lease;
use tiphys_types::api::core::v1::{Node, Pod};

use crate::Context;
use crate::shared::nodes;
use plan::{Observed, Seen};

pub(crate) fn start(context: &Context) {
    let (all, pods) = (context.informers.of::<Node>(), context.informers.of::<Pod>());
    let leases = context.informers.of::<Lease>();
    let queue = WorkQueue::new();
    nodes::each(&all, &queue);
    let seen: Arc<Mutex<HashMap<String, Seen>>> = Arc::default();
    let (signs, clock) = (Arc::clone(&seen), Arc::clone(&context.config.clock));
    leases.on_change(move |delta| {
        let meta = &delta.object().metadata;
        if meta.namespace.as_deref() == Some("kube-node-lease") && !matches!(delta, Delta::Deleted(_)) {
            signs.lock().entry(meta.name.clone().unwrap_or_default()).or_default().lease = Some(clock.now());
        }
        true
    });
    // A pod that reports ready from a node that is silent is put right.
    let executor = context.executor("node-controller").reading(all.clone()).reading(leases.clone()).reading(pods.clone());
    let grace = i64::try_from(context.config.node_monitor_grace_period.as_secs()).unwrap_or(50);
    let pods_on = nodes::pods_by_node(&pods);
    context.run("node-lifecycle-controller", 2, queue, Lifecycle { nodes: all, pods_on, seen, grace }, executor);
}

struct Lifecycle {
    nodes: Informer<Node>,
    pods_on: Index<Pod>,
    /// By node: when it last gave a sign of life.
    seen: Arc<Mutex<HashMap<String, Seen>>>,
    grace: i64,
}

impl Planner for Lifecycle {
    type Key = String;

    fn plan(&self, name: &String, now: Timestamp) -> Plan {
        let Some(node) = self.nodes.get("", name) else {
            self.seen.lock().remove(name);
            return Plan::default();
        };
        let seen = self.seen.lock().entry(name.clone()).or_default().at(plan::heartbeat(&node), now);
        let any_ready = self.nodes.list().iter().any(|n| nodes::condition(n, "Ready").is_some_and(|c| c.status == "True"));
        plan::plan(&Observed { node, pods: self.pods_on.get(name), seen, any_ready, grace: self.grace }, now)
    }
}

#[cfg(test)]
mod tests;
