//! The server's end of a watch: a queue of shared events. The cache pushes only what lies in the watcher's scope; matching selectors is the
//! watcher's own work, on its own task. A client that reads too slowly is cut off, as upstream does, and resumes by its last revision.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Event;

/// Events that a client may lag behind before it is cut off, and what they may take. They are shared: what a laggard costs is what it alone
/// keeps alive.
const MOST_PENDING: usize = 10_000;
const MOST_PENDING_BYTES: usize = 64 << 20;

/// What part of a resource is watched, as far as the cache can tell without looking into objects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    All,
    /// A key prefix: a namespace.
    Under(Bytes),
    /// One key.
    One(Bytes),
    /// `spec.nodeName` is this: every kubelet watches its own pods so.
    Node(Box<str>),
}

impl Scope {
    /// As metrics name it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Scope::All | Scope::Node(_) => "cluster",
            Scope::Under(_) => "namespace",
            Scope::One(_) => "resource",
        }
    }
}

pub(crate) struct Watcher {
    queue: Mutex<Queue>,
    ready: Notify,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    /// What they take, about.
    bytes: usize,
    overrun: bool,
}

/// The watcher fell too far behind.
pub(crate) struct Overrun;

impl Watcher {
    fn new() -> Arc<Watcher> {
        Arc::new(Watcher { queue: Mutex::default(), ready: Notify::new() })
    }

    fn push(&self, event: &Arc<Event>) {
        let mut queue = self.queue.lock();
        queue.bytes += event.entry.size();
        // One event is always taken, however large.
        if queue.events.len() >= MOST_PENDING || (queue.bytes > MOST_PENDING_BYTES && !queue.events.is_empty()) {
            queue.overrun = true;
            queue.events = VecDeque::new();
        } else if !queue.overrun {
            queue.events.push_back(event.clone());
        }
        drop(queue);
        self.ready.notify_one();
    }

    fn end(&self) {
        let mut queue = self.queue.lock();
        queue.overrun = true;
        queue.events = VecDeque::new();
        drop(queue);
        self.ready.notify_one();
    }

    /// Waits until there may be something to take.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    pub(crate) fn take(&self) -> Result<VecDeque<Arc<Event>>, Overrun> {
        let mut queue = self.queue.lock();
        if queue.overrun {
            return Err(Overrun);
        }
        queue.bytes = 0;
        Ok(std::mem::take(&mut queue.events))
    }
}

/// The watchers of one resource, by scope.
#[derive(Default)]
pub(crate) struct Watchers {
    by_scope: HashMap<Scope, Vec<Arc<Watcher>>>,
    nodes: usize,
    namespaces: usize,
    names: usize,
}

impl Watchers {
    pub(crate) fn add(&mut self, scope: &Scope) -> Arc<Watcher> {
        let watcher = Watcher::new();
        self.by_scope.entry(scope.clone()).or_default().push(watcher.clone());
        *self.count(scope) += 1;
        watcher
    }

    pub(crate) fn remove(&mut self, scope: &Scope, watcher: &Arc<Watcher>) {
        let Some(watchers) = self.by_scope.get_mut(scope) else { return };
        watchers.retain(|w| !Arc::ptr_eq(w, watcher));
        if watchers.is_empty() {
            self.by_scope.remove(scope);
        }
        *self.count(scope) -= 1;
    }

    fn count(&mut self, scope: &Scope) -> &mut usize {
        match scope {
            Scope::All | Scope::Under(_) => &mut self.namespaces,
            Scope::One(_) => &mut self.names,
            Scope::Node(_) => &mut self.nodes,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_scope.is_empty()
    }

    pub(crate) fn end_all(&self) {
        self.by_scope.values().flatten().for_each(|w| w.end());
    }

    pub(crate) fn push(&self, event: &Arc<Event>) {
        let to = |scope: &Scope| self.by_scope.get(scope).into_iter().flatten().for_each(|w| w.push(event));
        if self.namespaces > 0 {
            to(&Scope::All);
            let key = event.entry.key();
            let end = key.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
            to(&Scope::Under(key.slice(..end)));
        }
        if self.names > 0 {
            to(&Scope::One(event.entry.key().clone()));
        }
        if self.nodes > 0 {
            let now = event.entry.field("spec.nodeName").unwrap_or("");
            to(&Scope::Node(now.into()));
            let before = event.previous.as_ref().and_then(|p| p.field("spec.nodeName")).unwrap_or(now);
            if before != now {
                to(&Scope::Node(before.into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_meta::Gvr;

    use super::*;
    use crate::resource::Resources;
    use crate::storage::{Draft, Forms};

    fn event(bytes: usize) -> Arc<Event> {
        let resources = Resources::builtin(&crate::Encryption::default(), Forms::new(usize::MAX));
        let (resource, _) = resources.find(&Gvr::new("", "v1", "configmaps")).expect("configmaps are kept");
        let tree = json!({"metadata": {"name": "a", "namespace": "b"}, "data": {"a": "x".repeat(bytes)}});
        let draft = Draft::new(&resource.shape, resource.key("b", "a"), tree).expect("it can be encoded");
        Arc::new(Event::new(draft.entry(2), None, false))
    }

    #[test]
    fn a_laggard_is_cut_off_by_number_and_by_size() {
        for (event, most) in
            [(event(10), MOST_PENDING), (event(1 << 20), MOST_PENDING_BYTES / (3 << 20)), (event(MOST_PENDING_BYTES / 2), 1)]
        {
            let watcher = Watcher::new();
            for round in 0..2 {
                (0..most).for_each(|_| watcher.push(&event));
                assert_eq!(watcher.take().map(|events| events.len()).ok(), Some(most), "round {round}");
            }
            (0..=most).for_each(|_| watcher.push(&event));
            assert!(watcher.take().is_err());
        }
    }
}
