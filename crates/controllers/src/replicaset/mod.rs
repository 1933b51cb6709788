//! ReplicaSets and ReplicationControllers keep a number of pods running.
//!
//! Watches ReplicaSets (or ReplicationControllers) and Pods; owns the pods; writes pods and its own status. Both kinds differ in their types
//! alone, so one plan serves them through [`Replicated`].

mod kinds;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tiphys_client::{Index, Informer, ObjectKey, Plan, Planner, WorkQueue, controller_of};
use tiphys_types::api::apps::v1::ReplicaSet;
use tiphys_types::api::core::v1::{Pod, ReplicationController};
use tiphys_types::pods;

use crate::Context;
use crate::shared::watch::{self, PodsOf};
pub(crate) use kinds::Replicated;
use plan::Observed;

pub(crate) fn start(context: &Context) {
    start_kind::<ReplicaSet>(context, "replicaset-controller");
}

pub(crate) fn start_replication_controllers(context: &Context) {
    start_kind::<ReplicationController>(context, "replication-controller");
}

fn start_kind<K: Replicated>(context: &Context, name: &'static str) {
    let (sets, pods) = (context.informers.of::<K>(), context.informers.of::<Pod>());
    let queue = WorkQueue::new();
    watch::own(&sets, &queue);
    watch::owned(&pods, K::KIND, &queue);
    watch::orphaned_pods(&pods, &sets, &queue, K::selector);
    let planner = Sets { sets_of: sets.index_by_controller(), pods_of: PodsOf::new(&pods), sets: sets.clone() };
    let executor = context.executor(name).reading(sets).reading(pods);
    context.run(name, 5, queue, planner, executor);
}

struct Sets<K: Replicated> {
    sets: Informer<K>,
    sets_of: Index<K>,
    pods_of: PodsOf,
}

impl<K: Replicated> Planner for Sets<K> {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        match self.sets.by_key(key) {
            Some(set) => plan::plan(&self.observe(set), now),
            None => Plan::default(),
        }
    }
}

impl<K: Replicated> Sets<K> {
    fn observe(&self, set: Arc<K>) -> Observed<K> {
        Observed { crowd: self.crowd(&set), candidates: self.pods_of.candidates(set.metadata()), set }
    }

    /// How many active pods each node has of this set and of its sisters under the same owner.
    fn crowd(&self, set: &K) -> HashMap<String, usize> {
        let sisters = match controller_of(set.metadata()) {
            Some(owner) => self.sets_of.get(&owner.uid),
            None => self.sets.by_key(&ObjectKey::of(set)).into_iter().collect(),
        };
        let mut crowd = HashMap::new();
        for uid in sisters.iter().filter_map(|s| s.metadata().uid.as_deref()) {
            for pod in self.pods_of.get(uid).iter().filter(|p| pods::is_active(p)) {
                *crowd.entry(pods::node_name(pod).to_owned()).or_insert(0) += 1;
            }
        }
        crowd
    }
}

#[cfg(test)]
mod tests;
