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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use tiphys_meta::ApiError;

pub(crate) use feed::{Applied, History, Pending, feed};
pub(crate) use stream::Framing;
pub use stream::{WatchEvent, WatchStream};
pub use tiphys_meta::EventType;
pub(crate) use watcher::{Scope, Watcher, Watchers};

use crate::storage::Entry;

/// Events kept for those who resume: so many, and not more than so many bytes. What is older is read from the store.
const RING: usize = 256;
const RING_BYTES: usize = 2 << 20;
/// In caches of fewer objects a list by label looks at every one.
const INDEXED_FROM: usize = 256;
/// Entries that are looked at under one lock when forms are dropped.
const TRIMMED_AT_ONCE: usize = 512;

/// One change of one object.
pub(crate) struct Event {
    /// The state after the change; of a deletion the last state under the deletion's revision.
    pub(crate) entry: Arc<Entry>,
    /// The state before.
    pub(crate) previous: Option<Arc<Entry>>,
    pub(crate) deleted: bool,
    /// The state before under this event's revision, for those whose selector the object left.
    gone: OnceLock<Arc<Entry>>,
    /// What several watchers read is made once; events do not live long.
    encoded: OnceLock<Box<Encoded>>,
}

/// An event as it goes to clients.
#[derive(Default)]
struct Encoded {
    /// The object, now and gone.
    protobuf: [OnceLock<Bytes>; 2],
    /// Frames in JSON and in protobuf, of each type.
    frames: [[OnceLock<Bytes>; 3]; 2],
}

impl Event {
    pub(crate) fn new(entry: Arc<Entry>, previous: Option<Arc<Entry>>, deleted: bool) -> Event {
        Event { entry, previous, deleted, gone: OnceLock::new(), encoded: OnceLock::new() }
    }

    /// The object in protobuf, as those see it who have it and as those see it whom it left.
    pub(crate) fn protobuf(&self, kind: EventType) -> Result<Bytes, ApiError> {
        let gone = kind == EventType::Deleted;
        let made = &self.encoded.get_or_init(Box::default).protobuf[usize::from(gone)];
        if let Some(made) = made.get() {
            return Ok(made.clone());
        }
        let bytes = if gone { self.gone().protobuf()? } else { self.entry.protobuf()? };
        Ok(made.get_or_init(|| bytes).clone())
    }

    /// The frame of this event, which `make` makes the first time.
    fn frame(&self, kind: EventType, protobuf: bool, make: impl FnOnce() -> Bytes) -> Bytes {
        let at = match kind {
            EventType::Added => 0,
            EventType::Modified => 1,
            EventType::Deleted => 2,
            EventType::Bookmark | EventType::Error => return make(),
        };
        self.encoded.get_or_init(Box::default).frames[usize::from(protobuf)][at].get_or_init(make).clone()
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
    /// Changes since the start.
    received: AtomicU64,
}

struct State {
    entries: BTreeMap<Bytes, Arc<Entry>>,
    labels: labels::Labels,
    /// Where trimming goes on.
    trimmed_to: Option<Bytes>,
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
            labels: labels::Labels::default(),
            trimmed_to: None,
            ring: VecDeque::new(),
            ring_bytes: 0,
            complete_after: 0,
            changed: 0,
            watchers: Watchers::default(),
        };
        Cache { state: RwLock::new(state), lean, received: AtomicU64::new(0) }
    }

    /// The content at start.
    pub(crate) fn load(&self, entries: Vec<Arc<Entry>>, revision: i64) {
        let mut state = self.state.write();
        state.entries = entries.into_iter().map(|e| (e.key().clone(), e)).collect();
        state.labels = labels::Labels::default();
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
        self.received.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.write();
        let kept = if self.lean { Arc::new(entry.lean()) } else { entry.clone() };
        let previous = state.entries.insert(entry.key().clone(), kept);
        state.labels.put(previous.as_deref(), &entry);
        state.happened(Event::new(entry, previous.clone(), false));
        previous
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The last state, if there was one.
    pub(crate) fn delete(&self, key: &[u8], revision: i64) -> Option<Arc<Entry>> {
        self.received.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.write();
        let previous = state.entries.remove(key)?;
        state.labels.remove(&previous);
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
        let (name, _) = label;
        let state = self.state.read();
        if state.labels.has(name) {
            return (state.labels.under(label, prefix, start).cloned().collect(), state.changed);
        }
        if self.lean || state.entries.len() < INDEXED_FROM || state.labels.is_full() {
            return (state.under(prefix, start).cloned().collect(), state.changed);
        }
        // Decoding takes long after a start: not while writers wait.
        let all: Vec<Arc<Entry>> = state.entries.values().cloned().collect();
        drop(state);
        for entry in &all {
            entry.form();
        }
        let mut guard = self.state.write();
        let state = &mut *guard;
        if !state.labels.has(name) {
            state.labels.index(name, &state.entries);
        }
        (state.labels.under(label, prefix, start).cloned().collect(), state.changed)
    }

    /// Drops forms that nobody has read since this came by last, until it is `enough` or all have been looked at.
    pub(crate) fn trim(&self, enough: impl Fn() -> bool) {
        while !enough() {
            let mut guard = self.state.write();
            let state = &mut *guard;
            let from = state.trimmed_to.take().map_or(Bound::Unbounded, Bound::Excluded);
            for (seen, (key, entry)) in state.entries.range_mut::<Bytes, _>((from, Bound::Unbounded)).enumerate() {
                if seen == TRIMMED_AT_ONCE {
                    break;
                }
                if entry.is_idle() {
                    let lean = Arc::new(entry.lean());
                    // The old one knows its labels.
                    state.labels.replace(entry, &lean);
                    *entry = lean;
                }
                state.trimmed_to = Some(key.clone());
            }
            if state.trimmed_to.as_ref() == state.entries.last_key_value().map(|(key, _)| key) {
                state.trimmed_to = None;
                return;
            }
        }
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
