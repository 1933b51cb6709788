//! WATCH: where it starts, and one client's stream from then on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tiphys_meta::{ApiError, Reason};
use tiphys_store::{EventKind, KeyRange, StoreError};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Call;
use super::list::reached;
use crate::answer::Answer;
use crate::cache::{Event, EventType, Framing, Scope, WatchEvent, WatchStream, Watcher};
use crate::chance;
use crate::negotiate::Format;
use crate::options::ListOptions;
use crate::registry::Registry;
use crate::render::{Renderer, document};
use crate::resource::{Resource, Served};
use crate::select::Selection;
use crate::storage::{Entry, keys};

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Objects of the initial state that are made at once.
const BATCH: usize = 128;

impl Call<'_> {
    pub(crate) async fn watch(&mut self) -> Result<Answer, ApiError> {
        let options = ListOptions::parse(&self.query, true)?;
        let selection = Selection::new(self.resource, self.served, &self.info.namespace, &self.info.name, &options)?;
        let renderer = self.renderer()?;
        let content_type = format!("{};stream=watch", renderer.content_type());
        let content_type = if renderer.output.format == Format::Json { "application/json".into() } else { content_type.into() };
        let framing = if renderer.output.format == Format::Protobuf { Framing::Protobuf } else { Framing::Json };
        // Upstream finds out in its cache, where no such error is expected.
        options.revision().map_err(|error| ApiError::new(Reason::Unknown, error.message))?;
        let start = start(self.registry, self.resource, self.served, &selection, &options).await?;
        let client = Client::new(self.registry, renderer, selection, start, &options);
        let events = futures_util::stream::unfold(client, |mut client| async move { client.next().await.map(|batch| (batch, client)) });
        Ok(Answer::Watch(WatchStream::new(content_type, std::mem::take(&mut self.warnings), Box::pin(events), framing)))
    }
}

/// Where a watch begins.
struct Start {
    watcher: Arc<Watcher>,
    initial: Vec<Arc<Entry>>,
    /// The initial state is of this revision.
    revision: i64,
    /// A bookmark closes the initial state.
    bookmark: bool,
    events: Vec<Arc<Event>>,
    /// From here on the store's history is read first.
    history: Option<(i64, i64)>,
}

async fn start(
    registry: &Arc<Registry>,
    resource: &Arc<Resource>,
    served: &Served,
    selection: &Selection,
    options: &ListOptions,
) -> Result<Start, ApiError> {
    let revision = options.revision()?;
    let listing = options.send_initial_events == Some(true);
    if options.resource_version.is_empty() {
        registry.catch_up().await;
    } else if revision > 0 {
        reached(registry, revision).await?;
    }
    if revision > 0 && !listing {
        let resumed = resource.cache.watch_after(&selection.scope, revision);
        let history = (resumed.missing_up_to > revision).then_some((revision, resumed.missing_up_to));
        return Ok(Start { watcher: resumed.watcher, initial: Vec::new(), revision, bookmark: false, events: resumed.events, history });
    }
    // Taken before the content, for the reason given in `list`.
    let applied = registry.applied.revision();
    let (watcher, entries, changed) = resource.cache.watch(&selection.scope, &selection.prefix);
    let silent = options.send_initial_events == Some(false);
    let entries = if silent { Vec::new() } else { registry.views(served, entries).await? };
    let initial = entries.into_iter().filter(|e| selection.matches(e)).collect();
    let bookmark = listing && options.bookmarks;
    Ok(Start { watcher, initial, revision: applied.max(changed), bookmark, events: Vec::new(), history: None })
}

/// One client's watch.
struct Client {
    registry: Arc<Registry>,
    renderer: Renderer,
    selection: Selection,
    watcher: Arc<Watcher>,
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// A bookmark is due as soon as everything else is sent; true for the one that closes the initial state.
    due: Option<bool>,
    history: Option<(i64, i64)>,
    queue: VecDeque<Arc<Event>>,
    /// Everything up to here was sent or did not concern the client.
    seen: i64,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    /// Both are kept from event to event: to begin waiting anew takes locks that all watches share.
    timer: Pin<Box<Sleep>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
    started: Instant,
    /// An object was sent.
    begun: AtomicBool,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.renderer.resource.cache.forget(&self.selection.scope, &self.watcher);
    }
}

impl Client {
    fn new(registry: &Arc<Registry>, renderer: Renderer, selection: Selection, start: Start, options: &ListOptions) -> Client {
        let least = registry.config.min_watch_timeout;
        let timeout = match options.timeout_seconds {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
            // Spread, so that clients do not all come back at once.
            _ => least + least.mul_f64(chance::fraction()),
        };
        let now = Instant::now();
        Client {
            registry: registry.clone(),
            renderer,
            selection,
            watcher: start.watcher,
            initial: start.initial.into_iter(),
            due: start.bookmark.then_some(true),
            history: start.history,
            queue: start.events.into(),
            seen: start.revision,
            bookmarks: options.bookmarks,
            next_bookmark: now + BOOKMARK_EVERY,
            deadline: now + timeout,
            timer: Box::pin(tokio::time::sleep_until(now + timeout)),
            stopping: Box::pin(registry.stopping.clone().cancelled_owned()),
            over: false,
            started: now,
            begun: AtomicBool::new(false),
        }
    }

    /// The next events, at least one; none when the watch is over.
    async fn next(&mut self) -> Option<Vec<WatchEvent>> {
        loop {
            if self.over {
                return None;
            }
            let batch = match self.ready().await {
                Ok(batch) => batch,
                Err(error) => {
                    self.over = true;
                    vec![WatchEvent { kind: EventType::Error, object: self.error(&error), shared: None }]
                }
            };
            if !batch.is_empty() {
                return Some(batch);
            }
            self.wait().await;
        }
    }

    /// What can be sent now.
    async fn ready(&mut self) -> Result<Vec<WatchEvent>, ApiError> {
        let initial: Vec<Arc<Entry>> = self.initial.by_ref().take(BATCH).collect();
        if !initial.is_empty() {
            return initial.iter().map(|entry| self.event(EventType::Added, entry)).collect();
        }
        if self.due == Some(true) {
            self.due = None;
            let gvr = &self.renderer.served().gvr;
            self.registry.meters.watch_list(gvr, self.selection.scope.name(), self.started.elapsed());
            return Ok(vec![self.bookmark(true)?]);
        }
        if let Some((after, up_to)) = self.history.take() {
            let events = history(&self.registry, &self.renderer.resource, &self.selection, after, up_to).await?;
            self.queue.extend(events);
        }
        // Read before the queue: everything up to here has been pushed by now.
        let applied = self.registry.applied.revision();
        match self.watcher.take() {
            Ok(events) => self.queue.extend(events),
            Err(_) => {
                self.over = true;
                return Ok(Vec::new());
            }
        }
        let mut batch = Vec::new();
        for event in std::mem::take(&mut self.queue) {
            if event.revision() > self.seen {
                let event = self.registry.event_view(self.renderer.served(), event).await?;
                batch.extend(self.shown(&event)?);
            }
        }
        self.seen = self.seen.max(applied);
        if self.due.take().is_some() {
            batch.push(self.bookmark(false)?);
        }
        Ok(batch)
    }

    async fn wait(&mut self) {
        if self.over {
            return;
        }
        let due = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        tokio::select! {
            () = self.watcher.ready() => {}
            () = self.timer.as_mut() => self.time_passed(),
            () = self.stopping.as_mut() => self.over = true,
        }
    }

    fn time_passed(&mut self) {
        let now = Instant::now();
        if now >= self.deadline {
            self.over = true;
        } else if now >= self.next_bookmark {
            self.next_bookmark = now + BOOKMARK_EVERY;
            self.due = Some(false);
        }
    }

    /// The event as this client sees it: objects that enter its selection are added to it, those that leave it are deleted from it.
    fn shown(&self, event: &Arc<Event>) -> Result<Option<WatchEvent>, ApiError> {
        let before = event.previous.as_ref().is_some_and(|previous| self.selection.matches(previous));
        let after = !event.deleted && self.selection.matches(&event.entry);
        let (kind, entry) = match (before, after) {
            (true, true) => (EventType::Modified, &event.entry),
            (false, true) => (EventType::Added, &event.entry),
            (true, false) => (EventType::Deleted, event.gone()),
            (false, false) => return Ok(None),
        };
        if !self.renderer.shows_what_is_kept() {
            return self.event(kind, entry).map(Some);
        }
        let protobuf = self.renderer.output.format == Format::Protobuf;
        let object = if protobuf { event.protobuf(kind)? } else { entry.json().clone() };
        Ok(Some(WatchEvent { kind, object, shared: Some(event.clone()) }))
    }

    fn event(&self, kind: EventType, entry: &Entry) -> Result<WatchEvent, ApiError> {
        let first = !self.begun.swap(true, Ordering::Relaxed);
        Ok(WatchEvent { kind, object: self.renderer.event(entry, first)?, shared: None })
    }

    fn bookmark(&self, initial_end: bool) -> Result<WatchEvent, ApiError> {
        Ok(WatchEvent { kind: EventType::Bookmark, object: self.renderer.bookmark(self.seen, initial_end)?, shared: None })
    }

    fn error(&self, error: &ApiError) -> Bytes {
        let gvk = tiphys_meta::Gvk::new("", "v1", "Status");
        document(&gvk, &error.to_status(), self.renderer.output.format).unwrap_or_default()
    }
}

/// Events after one revision up to another, from the store.
async fn history(
    registry: &Registry,
    resource: &Arc<Resource>,
    selection: &Selection,
    after: i64,
    up_to: i64,
) -> Result<Vec<Arc<Event>>, ApiError> {
    let range = match &selection.scope {
        Scope::One(key) => KeyRange { start: key.clone(), end: Bytes::new() },
        _ => keys::everything_under(&selection.prefix),
    };
    let mut watch = registry.engine.watch(range.clone(), after + 1).await.map_err(|error| too_old(&error, after))?;
    // The history of a narrow range may end before `up_to`: a progress note then says that nothing more comes.
    registry.engine.request_progress(&range);
    let mut events = Vec::new();
    let mut reached = after;
    while reached < up_to {
        let batch = watch.next().await.map_err(|error| too_old(&error, after))?;
        reached = batch.revision;
        events.extend(batch.events.iter().filter(|e| e.kv.mod_revision <= up_to).map(|e| Arc::new(from_store(resource, e))));
    }
    Ok(events)
}

fn from_store(resource: &Arc<Resource>, event: &tiphys_store::Event) -> Event {
    let entry = |kv: &tiphys_store::KeyValue| Entry::new(resource.shape.clone(), kv.key.clone(), kv.value.clone(), kv.mod_revision);
    let previous = event.prev.as_ref().map(|prev| Arc::new(entry(prev)));
    match (event.kind, &previous) {
        (EventKind::Delete, Some(last)) => Event::new(Arc::new(last.at_revision(event.kv.mod_revision)), previous, true),
        (kind, _) => Event::new(Arc::new(entry(&event.kv)), previous, kind == EventKind::Delete),
    }
}

fn too_old(error: &StoreError, revision: i64) -> ApiError {
    match error {
        StoreError::Compacted { compacted } => {
            ApiError::new(Reason::Expired, format!("too old resource version: {revision} ({compacted})"))
        }
        other => crate::registry::store_error(other),
    }
}
