//! From the store to the caches: one watch over all of `/registry/`, applied in order by one task.
//!
//! A writer leaves what it made from its tree (`Pending`), so that its own event needs no decoding.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tiphys_store::{Engine, Event as StoreEvent, EventKind, KeyRange, StoreError, Watch};
use tokio::sync::{Notify, watch};

use crate::custom::follow as custom;
use crate::hooks::Hooks;
use crate::registry::load;
use crate::resource::Resources;
use crate::storage::{Draft, Entry};

/// How far the caches are.
pub(crate) struct Applied(watch::Sender<i64>);

impl Applied {
    pub(crate) fn new(revision: i64) -> Applied {
        Applied(watch::Sender::new(revision))
    }

    pub(crate) fn revision(&self) -> i64 {
        *self.0.borrow()
    }

    /// Waits until the caches show `revision`.
    pub(crate) async fn reached(&self, revision: i64) {
        if self.revision() < revision {
            // The sender lives in `self`, so waiting cannot fail.
            let _ = self.0.subscribe().wait_for(|applied| *applied >= revision).await;
        }
    }

    fn advance(&self, revision: i64) {
        self.0.send_if_modified(|applied| {
            let later = revision > *applied;
            *applied = revision.max(*applied);
            later
        });
    }
}

/// Writes under way, by key.
#[derive(Default)]
pub(crate) struct Pending(Mutex<HashMap<Bytes, Vec<Arc<Draft>>>>);

impl Pending {
    pub(crate) fn add(&self, key: &Bytes, draft: Arc<Draft>) {
        self.0.lock().entry(key.clone()).or_default().push(draft);
    }

    /// The write came to nothing.
    pub(crate) fn forget(&self, key: &[u8], draft: &Arc<Draft>) {
        self.remove(key, |d| Arc::ptr_eq(d, draft));
    }

    fn remove(&self, key: &[u8], is_it: impl Fn(&Arc<Draft>) -> bool) -> Option<Arc<Draft>> {
        let mut writes = self.0.lock();
        let drafts = writes.get_mut(key)?;
        let draft = drafts.iter().position(is_it).map(|i| drafts.swap_remove(i));
        if drafts.is_empty() {
            writes.remove(key);
        }
        draft
    }

    fn take(&self, key: &[u8], stored: &Bytes) -> Option<Arc<Draft>> {
        self.remove(key, |d| d.stored == *stored)
    }
}

/// Applies events as long as there are any. When the store ends the watch, it is begun again where it ended.
pub(crate) async fn feed(
    engine: Arc<dyn Engine>,
    resources: Arc<Resources>,
    pending: Arc<Pending>,
    applied: Arc<Applied>,
    hooks: Arc<Hooks>,
    history: Arc<History>,
    mut watch: Box<dyn Watch>,
) {
    // Not only what the registry writes: so that every revision of the store is heard of.
    let everything = KeyRange { start: Bytes::from_static(&[0]), end: Bytes::from_static(&[0]) };
    loop {
        match watch.next().await {
            Ok(batch) => {
                for event in batch.events.iter() {
                    if event.kv.key.starts_with(custom::PREFIX)
                        && let Err(error) = custom::changed(&*engine, &resources, event).await
                    {
                        tracing::error!(%error, "a definition could not take effect");
                    }
                    apply_safely(&resources, &pending, &hooks, event);
                    history.grew(event);
                }
                applied.advance(batch.revision);
                trim(&resources);
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "the store ended the watch of everything; beginning again");
                match resume(&*engine, &resources, &applied, everything.clone()).await {
                    Ok(again) => watch = again,
                    Err(error) => {
                        tracing::error!(%error, "the store cannot be watched any more: caches stand still");
                        return;
                    }
                }
            }
        }
    }
}

/// Where forms take more than they may, some of those go that nobody has read for a while.
fn trim(resources: &Resources) {
    if !resources.forms.have_room() {
        resources.all().iter().for_each(|resource| resource.cache.trim(|| resources.forms.have_ample_room()));
    }
}

/// What the store keeps of states that are over, for reads at old revisions and for watches that resume.
pub(crate) struct History {
    bytes: AtomicUsize,
    limit: usize,
    full: Notify,
}

/// What a superseded state costs beside its bytes.
const SUPERSEDED: usize = 128;

impl History {
    pub(crate) fn new(limit: usize) -> Arc<History> {
        Arc::new(History { bytes: AtomicUsize::new(0), limit, full: Notify::new() })
    }

    /// Compaction goes in steps of half the limit, so that what remains is never more than all of it.
    fn grew(&self, event: &StoreEvent) {
        let more = event.prev.as_ref().map_or(0, |prev| prev.value.len() + SUPERSEDED);
        let before = self.bytes.fetch_add(more, Ordering::Relaxed);
        if before < self.limit / 2 && before + more >= self.limit / 2 {
            self.full.notify_one();
        }
    }

    /// Waits until half the limit has gathered since this was asked last.
    pub(crate) async fn half_full(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.full.notified().await;
    }
}

/// Goes on where the watch ended; where the store has forgotten that, everything is read anew and every client's watch ends.
async fn resume(engine: &dyn Engine, resources: &Resources, applied: &Applied, everything: KeyRange) -> Result<Box<dyn Watch>, StoreError> {
    match engine.watch(everything.clone(), applied.revision() + 1).await {
        Err(StoreError::Compacted { .. }) => {}
        other => return other,
    }
    resources.all().iter().for_each(|resource| resource.cache.end_watches());
    let revision = load(engine, resources).await?;
    let watch = engine.watch(everything, revision + 1).await?;
    applied.advance(revision);
    Ok(watch)
}

/// One event that cannot be applied must not stand in the way of all others.
fn apply_safely(resources: &Resources, pending: &Pending, hooks: &Hooks, event: &StoreEvent) {
    let applying = std::panic::AssertUnwindSafe(|| apply(resources, pending, hooks, event));
    if std::panic::catch_unwind(applying).is_err() {
        tracing::error!(key = %String::from_utf8_lossy(&event.kv.key), "an event could not be applied to the cache");
    }
}

fn apply(resources: &Resources, pending: &Pending, hooks: &Hooks, event: &StoreEvent) {
    let Some(resource) = resources.of_key(&event.kv.key) else { return };
    match event.kind {
        EventKind::Delete => {
            if let Some(last) = resource.cache.delete(&event.kv.key, event.kv.mod_revision) {
                hooks.deleted(&resource, &last);
            }
        }
        EventKind::Put => {
            let entry = match pending.take(&event.kv.key, &event.kv.value) {
                Some(draft) => draft.entry(event.kv.mod_revision),
                None => {
                    let kv = &event.kv;
                    Arc::new(Entry::new(resource.shape.clone(), kv.key.clone(), kv.value.clone(), kv.mod_revision))
                }
            };
            let previous = resource.cache.put(entry.clone());
            hooks.written(&resource, previous.as_deref(), &entry);
        }
    }
}
