//! Hands committed events to the watchers, once for all watchers of a range.
//!
//! A watcher has a bounded queue; one that does not keep up is ended, reads what it has and then gets `SlowWatcher`, so that it can
//! come back from the revision it reached. Nobody waits for a watcher.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::Shared;
use crate::types::{Event, KeyRange, Revision, StoreError, Watch, WatchBatch};

/// Changes that a replay visits under one lock.
const REPLAY_CHUNK: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Slow,
    Closed,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<WatchBatch>,
    events: usize,
    /// The newest revision that was put in, as events or as a note.
    revision: Revision,
    end: Option<End>,
}

#[derive(Debug)]
struct Mailbox {
    /// Events before this revision are not for this watcher.
    from: Revision,
    queue: Mutex<Queue>,
    filled: Notify,
}

impl Mailbox {
    fn post(&self, batch: WatchBatch, limit: usize) {
        let mut queue = self.queue.lock();
        if queue.end.is_some() {
            return;
        }
        if queue.events + batch.events.len() > limit && !queue.batches.is_empty() {
            queue.end = Some(End::Slow);
        } else {
            queue.events += batch.events.len();
            queue.revision = batch.revision;
            queue.batches.push_back(batch);
        }
        drop(queue);
        self.filled.notify_one();
    }

    fn note(&self, revision: Revision) {
        let mut queue = self.queue.lock();
        if queue.end.is_some() || queue.revision >= revision || self.from > revision + 1 {
            return;
        }
        queue.revision = revision;
        queue.batches.push_back(WatchBatch { events: Arc::from([]), revision });
        drop(queue);
        self.filled.notify_one();
    }

    fn close(&self) {
        self.queue.lock().end.get_or_insert(End::Closed);
        self.filled.notify_one();
    }

    fn take(&self) -> Result<Option<WatchBatch>, StoreError> {
        let mut queue = self.queue.lock();
        if let Some(batch) = queue.batches.pop_front() {
            queue.events -= batch.events.len();
            return Ok(Some(batch));
        }
        match queue.end {
            None => Ok(None),
            Some(End::Slow) => Err(StoreError::SlowWatcher),
            Some(End::Closed) => Err(StoreError::Closed),
        }
    }

    async fn next(&self) -> Result<WatchBatch, StoreError> {
        loop {
            if let Some(batch) = self.take()? {
                return Ok(batch);
            }
            self.filled.notified().await;
        }
    }
}

#[derive(Debug, Default)]
struct Groups {
    by_range: HashMap<KeyRange, Vec<Arc<Mailbox>>>,
    closed: bool,
}

#[derive(Debug)]
pub(crate) struct Hub {
    groups: Mutex<Groups>,
    /// The newest revision that readers may see. Raised only under the lock, so that a new watcher misses nothing and sees nothing twice.
    revision: AtomicI64,
    /// Events that a watcher's queue holds at most.
    limit: usize,
}

impl Hub {
    pub(crate) fn new(revision: Revision, limit: usize) -> Self {
        Hub { groups: Mutex::default(), revision: AtomicI64::new(revision), limit }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    pub(crate) fn publish(&self, events: Vec<Event>, revision: Revision) {
        let mut groups = self.groups.lock();
        self.revision.store(revision, Ordering::Release);
        if events.is_empty() {
            return;
        }
        let all: Arc<[Event]> = events.into();
        for (range, mailboxes) in &mut groups.by_range {
            let Some(events) = select(&all, |event| range.contains(&event.kv.key)) else { continue };
            for mailbox in mailboxes {
                let Some(events) = select(&events, |event| event.kv.mod_revision >= mailbox.from) else { continue };
                mailbox.post(WatchBatch { events, revision }, self.limit);
            }
        }
    }

    pub(crate) fn note(&self, range: &KeyRange) {
        let groups = self.groups.lock();
        let revision = self.revision();
        for mailbox in groups.by_range.get(range).into_iter().flatten() {
            mailbox.note(revision);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.groups.lock().closed
    }

    pub(crate) fn close(&self) {
        let mut groups = self.groups.lock();
        groups.closed = true;
        groups.by_range.values().flatten().for_each(|mailbox| mailbox.close());
    }

    /// A watcher of `range` from revision `from` on; what happened before now it will read from the index.
    pub(crate) fn subscribe(shared: &Arc<Shared>, range: KeyRange, from: Revision) -> Result<Watcher, StoreError> {
        let mut groups = shared.hub.groups.lock();
        if groups.closed {
            return Err(StoreError::Closed);
        }
        let now = shared.hub.revision();
        let from = if from == 0 { now + 1 } else { from };
        let compacted = shared.compacted();
        if from <= compacted {
            return Err(StoreError::Compacted { compacted });
        }
        let mailbox = Arc::new(Mailbox { from, queue: Mutex::default(), filled: Notify::new() });
        groups.by_range.entry(range.clone()).or_default().push(mailbox.clone());
        drop(groups);
        let replay = (from <= now).then_some(Replay { next: from, until: now });
        Ok(Watcher { shared: shared.clone(), range, mailbox, replay })
    }

    fn unsubscribe(&self, range: &KeyRange, mailbox: &Arc<Mailbox>) {
        let mut groups = self.groups.lock();
        if let Some(mailboxes) = groups.by_range.get_mut(range) {
            mailboxes.retain(|other| !Arc::ptr_eq(other, mailbox));
            if mailboxes.is_empty() {
                groups.by_range.remove(range);
            }
        }
    }
}

/// The events that `wanted` says; the very same slice when it wants all of them.
fn select(events: &Arc<[Event]>, wanted: impl Fn(&Event) -> bool) -> Option<Arc<[Event]>> {
    match events.iter().filter(|event| wanted(event)).count() {
        0 => None,
        count if count == events.len() => Some(events.clone()),
        _ => Some(events.iter().filter(|event| wanted(event)).cloned().collect()),
    }
}

#[derive(Debug, Clone, Copy)]
struct Replay {
    next: Revision,
    until: Revision,
}

pub(crate) struct Watcher {
    shared: Arc<Shared>,
    range: KeyRange,
    mailbox: Arc<Mailbox>,
    replay: Option<Replay>,
}

impl Watcher {
    /// The next piece of history; none when the replay is over.
    fn replayed(&mut self) -> Result<Option<WatchBatch>, StoreError> {
        while let Some(Replay { next, until }) = self.replay {
            let index = self.shared.index.read();
            let compacted = self.shared.compacted();
            if next <= compacted {
                return Err(StoreError::Compacted { compacted });
            }
            let (events, reached) = index.events(&self.range, next, until, REPLAY_CHUNK);
            drop(index);
            self.replay = (reached < until).then_some(Replay { next: reached + 1, until });
            if !events.is_empty() {
                return Ok(Some(WatchBatch { events: events.into(), revision: reached }));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Watch for Watcher {
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        match self.replayed()? {
            Some(batch) => Ok(batch),
            None => self.mailbox.next().await,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.hub.unsubscribe(&self.range, &self.mailbox);
    }
}
