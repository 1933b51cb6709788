//! Work by namespace.

use tiphys_client::{Delta, Informer, Kube, WorkQueue};
use tiphys_types::api::core::v1::Namespace;

pub(crate) fn each(spaces: &Informer<Namespace>, queue: &WorkQueue<String>) {
    let queue = queue.clone();
    spaces.on_change(move |delta| {
        queue.add(delta.object().metadata.name.clone().unwrap_or_default());
        true
    });
}

/// A change of the object of this name is work for its namespace.
pub(crate) fn of_named<K: Kube>(informer: &Informer<K>, name: &'static str, queue: &WorkQueue<String>) {
    let queue = queue.clone();
    informer.on_change(move |delta| {
        let meta = delta.object().metadata();
        if meta.name.as_deref() == Some(name) && !matches!(delta, Delta::Added(_)) {
            queue.add(meta.namespace.clone().unwrap_or_default());
        }
        true
    });
}

pub(crate) fn is_active(spaces: &Informer<Namespace>, name: &str) -> bool {
    spaces.get("", name).is_some_and(|n| n.metadata.deletion_timestamp.is_none())
}
