//! From informers' changes to keys in queues.

use tiphys_client::{Delta, Informer, Kube, ObjectKey, WorkQueue, controller_of};
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
