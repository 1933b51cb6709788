//! Deployments move pods from one template to the next by ReplicaSets: one per template, scaled against each other.
//!
//! Watches Deployments, ReplicaSets and Pods; owns the ReplicaSets; writes them, the Deployment's status, and its revision annotation. One plan
//! makes one move (a new ReplicaSet, a scaling, a clean-up) and the status; the change of the ReplicaSets brings the next.
//!
//! - `sets.rs` which ReplicaSet is whose, revisions, annotations, the new one
//! - `rolling.rs`, `recreate.rs` the strategies · `scale.rs` proportional scaling · `status.rs` counts and conditions · `rollback.rs` the old annotation

mod observe;
mod plan;
mod recreate;
mod rollback;
mod rolling;
mod scale;
mod sets;
mod status;

use jiff::Timestamp;
use tiphys_client::{Index, Informer, ObjectKey, Plan, Planner, WorkQueue, controller_of};
use tiphys_types::api::apps::v1::{Deployment, ReplicaSet};
use tiphys_types::api::core::v1::Pod;
use tiphys_types::selector;

use crate::Context;
use crate::shared::watch;

pub(crate) fn start(context: &Context) {
    let (deployments, sets, pods) =
        (context.informers.of::<Deployment>(), context.informers.of::<ReplicaSet>(), context.informers.of::<Pod>());
    let queue = WorkQueue::new();
    watch::own(&deployments, &queue);
    watch::owned(&sets, "Deployment", &queue);
    let all = deployments.clone();
    watch::orphans(&sets, &queue, move |set| {
        let matches = |d: &Deployment| {
            let chosen = selector::from_typed(d.spec.as_ref().map(|s| &s.selector));
            chosen.is_ok_and(|s| s.matches_map(set.labels.as_ref()))
        };
        let all = all.list_namespace(set.namespace.as_deref().unwrap_or(""));
        all.iter().filter(|d| matches(d)).map(|d| ObjectKey::of(&**d)).collect()
    });
    watch_last_pods(&pods, &sets, &queue);
    let executor = context.executor("deployment-controller").reading(deployments.clone()).reading(sets.clone()).reading(pods.clone());
    let planner = Deployments { sets_of: sets.index_by_controller(), pods_of: pods.index_by_controller(), deployments, sets };
    context.run("deployment-controller", 5, queue, planner, executor);
}

/// Recreate waits for the last old pod to go.
fn watch_last_pods(pods: &Informer<Pod>, sets: &Informer<ReplicaSet>, queue: &WorkQueue<ObjectKey>) {
    let (sets, queue) = (sets.clone(), queue.clone());
    pods.on_change(move |delta| {
        let meta = &delta.object().metadata;
        let namespace = meta.namespace.as_deref().unwrap_or("");
        let gone = matches!(delta, tiphys_client::Delta::Deleted(_)) || tiphys_types::pods::is_terminal(delta.object());
        if let Some(set) = controller_of(meta).filter(|r| gone && r.kind == "ReplicaSet").and_then(|r| sets.get(namespace, &r.name))
            && let Some(owner) = controller_of(&set.metadata).filter(|r| r.kind == "Deployment")
        {
            queue.add(ObjectKey::new(namespace, &owner.name));
        }
        true
    });
}

struct Deployments {
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    sets_of: Index<ReplicaSet>,
    pods_of: Index<Pod>,
}

impl Planner for Deployments {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        match self.deployments.by_key(key) {
            Some(deployment) => plan::plan(&self.observe(deployment), now),
            None => Plan::default(),
        }
    }
}

#[cfg(test)]
mod tests;
