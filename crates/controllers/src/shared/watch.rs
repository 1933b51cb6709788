//! From informers' changes to keys in queues.

use std::sync::Arc;

use tiphys_client::{Delta, Index, Informer, Kube, ObjectKey, WorkQueue, controller_of};
use tiphys_meta::LabelSelector;
use tiphys_types::api::core::v1::Pod;
use tiphys_types::metav1::ObjectMeta;

/// Every change of an object is its own work.
pub(crate) fn own<K: Kube>(informer: &Informer<K>, queue: &WorkQueue<ObjectKey>) {
    let queue = queue.clone();
    informer.on_change(move |delta| {
        queue.add(ObjectKey::of(&**delta.object()));
        true
    });
}

/// Every change of an object is work for its controller, if that is a `kind`; also for the one it had before.
pub(crate) fn owned<K: Kube>(informer: &Informer<K>, kind: &'static str, queue: &WorkQueue<ObjectKey>) {
    let queue = queue.clone();
    informer.on_change(move |delta| {
        if let Delta::Updated { old, .. } = delta {
            add_owner(old.metadata(), kind, &queue);
        }
        add_owner(delta.object().metadata(), kind, &queue);
        true
    });
}

fn add_owner(meta: &ObjectMeta, kind: &str, queue: &WorkQueue<ObjectKey>) {
    if let Some(owner) = controller_of(meta).filter(|r| r.kind == kind) {
        queue.add(ObjectKey::new(meta.namespace.as_deref().unwrap_or(""), &owner.name));
    }
}

/// Pods without a controller are work for the sets of their namespace whose selector they match.
pub(crate) fn orphaned_pods<K: Kube>(
    pods: &Informer<Pod>,
    sets: &Informer<K>,
    queue: &WorkQueue<ObjectKey>,
    selector_of: impl Fn(&K) -> LabelSelector + Send + Sync + 'static,
) {
    let sets = sets.clone();
    orphans(pods, queue, move |pod| {
        let there = sets.list_namespace(pod.namespace.as_deref().unwrap_or(""));
        there.iter().filter(|s| selector_of(s).matches_map(pod.labels.as_ref())).map(|s| ObjectKey::of(&**s)).collect()
    });
}

/// Pods by their controller, and those that have none.
pub(crate) struct PodsOf {
    controlled: Index<Pod>,
    orphans: Index<Pod>,
}

impl PodsOf {
    pub(crate) fn new(pods: &Informer<Pod>) -> Self {
        let orphans = pods.index("orphans-in", |pod: &Pod| {
            let namespace = pod.metadata.namespace.clone().filter(|_| controller_of(&pod.metadata).is_none());
            namespace.into_iter().collect()
        });
        PodsOf { controlled: pods.index_by_controller(), orphans }
    }

    pub(crate) fn get(&self, owner_uid: &str) -> Vec<Arc<Pod>> {
        self.controlled.get(owner_uid)
    }

    /// The owner's pods, and those of its namespace that nobody controls: it may adopt them.
    pub(crate) fn candidates(&self, owner: &ObjectMeta) -> Vec<Arc<Pod>> {
        let mut found = self.get(owner.uid.as_deref().unwrap_or(""));
        found.extend(self.orphans.get(owner.namespace.as_deref().unwrap_or("")));
        found
    }
}

/// An object without a controller may be what some owner's selector now matches: `owners_for` names them.
pub(crate) fn orphans<K: Kube>(
    informer: &Informer<K>,
    queue: &WorkQueue<ObjectKey>,
    owners_for: impl Fn(&ObjectMeta) -> Vec<ObjectKey> + Send + Sync + 'static,
) {
    let queue = queue.clone();
    informer.on_change(move |delta| {
        let (meta, changed) = match delta {
            Delta::Added(new) => (new.metadata(), true),
            Delta::Updated { old, new } => {
                let (old, new) = (old.metadata(), new.metadata());
                (new, old.labels != new.labels || old.owner_references != new.owner_references)
            }
            Delta::Deleted(_) => return true,
        };
        if changed && meta.deletion_timestamp.is_none() && controller_of(meta).is_none() {
            owners_for(meta).into_iter().for_each(|key| queue.add(key));
        }
        true
    });
}
