//! StatefulSets run pods with names, storage and an order.
//!
//! Watches StatefulSets, Pods, claims and ControllerRevisions; owns pods and revisions; writes them, claims, and its own status. With `OrderedReady`
//! one pod is made, replaced or removed at a time, each only when all before it run and are ready; with `Parallel` none waits for another.
//!
//! Absent: `maxUnavailable` (its gate is off in v1.36).

mod identity;
mod plan;
mod status;

use std::sync::Arc;

use jiff::Timestamp;
use tiphys_client::{Index, Informer, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_meta::LabelSelector;
use tiphys_types::api::apps::v1::{ControllerRevision, StatefulSet};
use tiphys_types::api::core::v1::{PersistentVolumeClaim, Pod};
use tiphys_types::selector;

use crate::Context;
use crate::shared::watch::{self, PodsOf};
use plan::Observed;

pub(crate) fn start(context: &Context) {
    let (sets, pods) = (context.informers.of::<StatefulSet>(), context.informers.of::<Pod>());
    let (claims, revisions) = (context.informers.of::<PersistentVolumeClaim>(), context.informers.of::<ControllerRevision>());
    let queue = WorkQueue::new();
    watch::own(&sets, &queue);
    watch::owned(&pods, "StatefulSet", &queue);
    watch::owned(&revisions, "StatefulSet", &queue);
    let selector_of = |s: &StatefulSet| selector::from_typed(s.spec.as_ref().map(|s| &s.selector)).unwrap_or(LabelSelector::Nothing);
    watch::orphaned_pods(&pods, &sets, &queue, selector_of);
    let executor = context
        .executor("statefulset-controller")
        .reading(sets.clone())
        .reading(pods.clone())
        .reading(claims.clone())
        .reading(revisions.clone());
    let planner = Sets { pods_of: PodsOf::new(&pods), revisions_of: revisions.index_by_controller(), sets, claims, revisions };
    context.run("statefulset-controller", 5, queue, planner, executor);
}

struct Sets {
    sets: Informer<StatefulSet>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Informer<ControllerRevision>,
    pods_of: PodsOf,
    revisions_of: Index<ControllerRevision>,
}

impl Planner for Sets {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(set) = self.sets.by_key(key) else { return Plan::default() };
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let observed = Observed {
            candidates: self.pods_of.candidates(&set.metadata),
            claims: self.claims.list_namespace(&key.namespace),
            revisions: self.revisions_of.get(&uid),
            neighbours: self.revisions.list_namespace(&key.namespace),
            set: Arc::clone(&set),
        };
        plan::plan(&observed, now)
    }
}

#[cfg(test)]
mod tests;
