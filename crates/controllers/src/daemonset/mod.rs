//! DaemonSets run one pod on every node that fits.
//!
//! Watches DaemonSets, Pods, Nodes and ControllerRevisions; owns pods and revisions; writes them and its own status. The scheduler binds: each pod
//! carries an affinity to its one node. Old pods are replaced as the strategy allows: `rolling.rs`.

mod plan;
mod pods_for;
mod rolling;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tiphys_client::{Delta, Index, Informer, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_meta::LabelSelector;
use tiphys_types::api::apps::v1::{ControllerRevision, DaemonSet};
use tiphys_types::api::core::v1::{Node, Pod};
use tiphys_types::selector;

use crate::Context;
use crate::shared::watch::{self, PodsOf};
use plan::{Observed, Tries};

pub(crate) fn start(context: &Context) {
    let (sets, pods) = (context.informers.of::<DaemonSet>(), context.informers.of::<Pod>());
    let (nodes, revisions) = (context.informers.of::<Node>(), context.informers.of::<ControllerRevision>());
    let queue = WorkQueue::new();
    watch::own(&sets, &queue);
    watch::owned(&pods, "DaemonSet", &queue);
    watch::owned(&revisions, "DaemonSet", &queue);
    let selector_of = |s: &DaemonSet| selector::from_typed(s.spec.as_ref().map(|s| &s.selector)).unwrap_or(LabelSelector::Nothing);
    watch::orphaned_pods(&pods, &sets, &queue, selector_of);
    watch_nodes(&nodes, &sets, &queue);
    let executor = context
        .executor("daemonset-controller")
        .reading(sets.clone())
        .reading(pods.clone())
        .reading(nodes.clone())
        .reading(revisions.clone());
    let planner = Sets {
        pods_of: PodsOf::new(&pods),
        revisions_of: revisions.index_by_controller(),
        sets,
        nodes,
        revisions,
        tries: Mutex::default(),
    };
    context.run("daemonset-controller", 2, queue, planner, executor);
}

/// Only labels, taints and cordons decide where pods go.
fn watch_nodes(nodes: &Informer<Node>, sets: &Informer<DaemonSet>, queue: &WorkQueue<ObjectKey>) {
    let (sets, queue) = (sets.clone(), queue.clone());
    nodes.on_change(move |delta| {
        let matters = match delta {
            Delta::Updated { old, new } => old.metadata.labels != new.metadata.labels || old.spec != new.spec,
            Delta::Added(_) | Delta::Deleted(_) => true,
        };
        if matters {
            sets.list().iter().for_each(|s| queue.add(ObjectKey::of(&**s)));
        }
        true
    });
}

struct Sets {
    sets: Informer<DaemonSet>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    pods_of: PodsOf,
    revisions_of: Index<ControllerRevision>,
    tries: Mutex<HashMap<(String, String), Tries>>,
}

impl Planner for Sets {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(set) = self.sets.by_key(key) else { return Plan::default() };
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let observed = Observed {
            candidates: self.pods_of.candidates(&set.metadata),
            nodes: self.nodes.list(),
            revisions: self.revisions_of.get(&uid),
            neighbours: self.revisions.list_namespace(&key.namespace),
            set: Arc::clone(&set),
        };
        plan::plan(&observed, &mut self.tries.lock(), now)
    }
}

#[cfg(test)]
mod tests;
