//! The watch cache of one resource: every object as an `Entry`, the newest events for those who resume, and the watchers.
//!
//! One task applies the store's events in order to all caches (`feed`); everything here happens under one short lock.
//! What is older than the ring is read from the store's own history, so a resume fails only after compaction.

mod feed;
mod labels;
mod stream;
mod watcher;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

pub(crate) use feed::{Applied, Pending, feed};
pub use stream::{WatchEvent, WatchStream};
pub use tiphys_meta::EventType;
pub(crate) use watcher::{Scope, Watcher, Watchers};

use crate::storage::Entry;

/// Events kept for those who resume: so many, and not more than so many bytes. What is older is read from the store.
const RING: usize = 256;
const RING_BYTES: usize = 2 << 20;
/// In caches of fewer objects a list by label looks at every one.
const INDEXED_FROM: usize = 256;

/// One change of one object.
pub(crate) struct Event {
    /// The state after the change; of a deletion the last state under the deletion's revision.
    pub(crate) entry: Arc<Entry>,
    /// The state before.
    pub(crate) previous: Option<Arc<Entry>>,
    pub(crate) deleted: bool,
    /// The state before under this event's revision, for those whose selector the object left.
    gone: std::sync::OnceLock<Arc<Entry>>,
}

impl Event {
    pub(crate) fn new(entry: Arc<Entry>, previous: Option<Arc<Entry>>, deleted: bool) -> Event {
        Event { entry, previous, deleted, gone: std::sync::OnceLock::new() }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.entry.revision()
    }

    pub(crate) fn gone(&self) -> &Arc<Entry> {
        self.gone.get_or_init(|| match &self.previous {
            Some(previous) if !self.deleted => Arc::new(previous.at_revision(self.revision())),
            _ => self.entry.clone(),
        })
    }
}

/// The cache of one resource.
pub(crate) struct Cache {
    state: RwLock<State>,
    /// Keep entries without the form that readers see.
    lean: bool,
}

struct State {
    entries: BTreeMap<Bytes, Arc<Entry>>,
    /// Since the first list by label.
    labels: Option<labels::Labels>,
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// The ring holds every event after this revision.
    complete_after: i64,
    /// The revision of the last event.
    changed: i64,
    watchers: Watchers,
}

impl Cache {
    pub(crate) fn new(lean: bool) -> Cache {
        let state = State {
            entries: BTreeMap::new(),
            labels: None,
            ring: VecDeque::new(),
            ring_bytes: 0,
            complete_after: 0,
            changed: 0,
            watchers: Watchers::default(),
        };
        Cache { state: RwLock::new(state), lean }
    }

    /// The content at start.
    pub(crate) fn load(&self, entries: Vec<Arc<Entry>>, revision: i64) {
        let mut state = self.state.write();
        state.entries = entries.into_iter().map(|e| (e.key().clone(), e)).collect();
        state.labels = None;
        state.ring.clear();
        state.ring_bytes = 0;
        state.complete_after = revision;
        state.changed = revision;
    }

    /// Cuts everybody off; they come back and begin anew.
    pub(crate) fn end_watches(&self) {
        self.state.write().watchers.end_all();
    }

    /// The state before, if there was one.
    pub(crate) fn put(&self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let mut state = self.state.write();
        let kept = if self.lean { Arc::new(entry.lean()) } else { entry.clone() };
        let previous = state.entries.insert(entry.key().clone(), kept);
        if let Some(labels) = &mut state.labels {
            labels.put(previous.as_deref(), &entry);
        }
        state.happened(Event::new(entry, previous.clone(), false));
        previous
    }

    /// The last state, if there was one.
    pub(crate) fn delete(&self, key: &[u8], revision: i64) -> Option<Arc<Entry>> {
        let mut state = self.state.write();
        let previous = state.entries.remove(key)?;
        if let Some(labels) = &mut state.labels {
            labels.remove(&previous);
        }
        let last = Arc::new(previous.at_revision(revision));
        state.happened(Event::new(last, Some(previous.clone()), true));
        Some(previous)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.state.read().entries.get(key).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.state.read().entries.len()
    }

    /// All entries from `start` on whose keys begin with `prefix`, in order, and the revision of the last change.
    pub(crate) fn list(&self, prefix: &[u8], start: &[u8]) -> (Vec<Arc<Entry>>, i64) {
        let state = self.state.read();
        (state.under(prefix, start).cloned().collect(), state.changed)
    }

    /// The same of objects that have a label, and perhaps more where that is as quick.
    pub(crate) fn list_labelled(&self, prefix: &[u8], start: &[u8], label: (&str, &str)) -> (Vec<Arc<Entry>>, i64) {
        let small = |state: &State| self.lean || state.entries.len() < INDEXED_FROM;
        let indexed = |state: &State| {
            let labels = state.labels.as_ref()?;
            let entries = labels.under(label, prefix, start).filter_map(|key| state.entries.get(key).cloned()).collect();
            Some((entries, state.changed))
        };
        let state = self.state.read();
        if small(&state) {
            return (state.under(prefix, start).cloned().collect(), state.changed);
        }
        if let Some(found) = indexed(&state) {
            return found;
        }
        // Decoding takes long after a start: not while writers wait.
        let all: Vec<Arc<Entry>> = state.entries.values().cloned().collect();
        drop(state);
        for entry in &all {
            entry.form();
        }
        let mut state = self.state.write();
        if state.labels.is_none() {
            state.labels = Some(labels::Labels::of(&state.entries));
        }
        indexed(&state).unwrap_or_default()
    }

    /// A watcher of everything from now on, beside the content and the revision of the last change at this moment.
    pub(crate) fn watch(&self, scope: &Scope, prefix: &[u8]) -> (Arc<Watcher>, Vec<Arc<Entry>>, i64) {
        let mut state = self.state.write();
        let watcher = state.watchers.add(scope);
        let entries = state.under(prefix, prefix).cloned().collect();
        (watcher, entries, state.changed)
    }

    /// A watcher of everything after `revision`.
    pub(crate) fn watch_after(&self, scope: &Scope, revision: i64) -> Resumed {
        let mut state = self.state.write();
        let watcher = state.watchers.add(scope);
        if revision < state.complete_after {
            return Resumed { watcher, events: Vec::new(), missing_up_to: state.changed };
        }
        let first = state.ring.partition_point(|e| e.revision() <= revision);
        Resumed { watcher, events: state.ring.range(first..).cloned().collect(), missing_up_to: 0 }
    }

    pub(crate) fn forget(&self, scope: &Scope, watcher: &Arc<Watcher>) {
        self.state.write().watchers.remove(scope, watcher);
    }
}

/// A watch that goes on from an earlier revision.
pub(crate) struct Resumed {
    pub(crate) watcher: Arc<Watcher>,
    /// What happened since.
    pub(crate) events: Vec<Arc<Event>>,
    /// Not 0: the ring does not reach back; events up to this revision are to be read from the store.
    pub(crate) missing_up_to: i64,
}

impl State {
    fn happened(&mut self, event: Event) {
        let event = Arc::new(event);
        self.changed = event.revision();
        if !self.watchers.is_empty() {
            self.watchers.push(&event);
        }
        self.ring_bytes += event.entry.size();
        self.ring.push_back(event);
        while (self.ring.len() > RING || self.ring_bytes > RING_BYTES)
            && let Some(oldest) = self.ring.pop_front()
        {
            self.ring_bytes = self.ring_bytes.saturating_sub(oldest.entry.size());
            self.complete_after = oldest.revision();
        }
    }

    fn under<'a>(&'a self, prefix: &'a [u8], start: &[u8]) -> impl Iterator<Item = &'a Arc<Entry>> {
        let from = Bound::Included(start.max(prefix));
        self.entries.range::<[u8], _>((from, Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry)
    }
}
