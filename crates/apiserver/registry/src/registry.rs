//! The door to objects: start, reads of the caches, and conditional writes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::RwLock;
use serde_json::Value;
use tiphys_base::meters::head;
use tiphys_meta::{ApiError, Gvr, Reason};
use tiphys_store::{Compare, Engine, KeyRange, KeyValue, Op, OpResponse, Ordering, RangeRequest, StoreError, Txn};
use tokio_util::sync::CancellationToken;

use crate::admission::{Chain, Policies};
use crate::answer::{Answer, Document};
use crate::cache::{Applied, History, Pending, Scope, Watcher, feed};
use crate::config::{Authorizer, Question, RegistryConfig, Webhooks};
use crate::custom::follow as custom;
use crate::hooks::Hooks;
use crate::meters::Meters;
use crate::negotiate::Output;
use crate::request::{RequestInfo, UserInfo};
use crate::resource::{Resource, Resources};
use crate::storage::{Draft, Entry, Forms, keys};
use crate::trees::Trees;
use crate::verbs;

/// Pairs read at once when the caches are filled.
const LOAD_PAGE: usize = 20_000;

pub struct Registry {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) config: RegistryConfig,
    pub(crate) resources: Arc<Resources>,
    pub(crate) applied: Arc<Applied>,
    pending: Arc<Pending>,
    pub(crate) admission: Chain,
    pub(crate) policies: Policies,
    pub(crate) meters: Meters,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) trees: Trees,
    pub(crate) stopping: CancellationToken,
    authorizer: RwLock<Option<Arc<dyn Authorizer>>>,
    webhooks: RwLock<Option<Arc<dyn Webhooks>>>,
}

/// A conditional write that did not happen.
pub(crate) enum WriteError {
    /// The object is not what the condition says: what it is, or none.
    Conflict(Option<Arc<Entry>>),
    Failed(ApiError),
}

impl Registry {
    /// Reads the store once and keeps the caches from then on.
    pub async fn new(engine: Arc<dyn Engine>, config: RegistryConfig) -> Result<Arc<Registry>, StoreError> {
        let resources = Arc::new(Resources::builtin(&config.encryption, Forms::new(config.forms_limit)));
        let revision = load(&*engine, &resources).await?;
        let watch = engine.watch(everything(), revision + 1).await?;
        let hooks = Arc::new(Hooks::new(&config, &resources));
        let admission = Chain::builtin();
        let registry = Arc::new(Registry {
            meters: Meters::new(admission.each(|plugin| plugin.name())),
            applied: Arc::new(Applied::new(revision)),
            pending: Arc::default(),
            admission,
            policies: Policies::default(),
            hooks,
            trees: Trees::default(),
            stopping: config.tasks.token(),
            authorizer: RwLock::new(None),
            webhooks: RwLock::new(None),
            resources,
            engine,
            config,
        });
        let definitions = crate::custom::lifecycle::run(registry.clone());
        registry.config.tasks.spawn("custom resource definitions", definitions);
        let history = History::new(registry.config.history_limit);
        let feeding = feed(
            registry.engine.clone(),
            registry.resources.clone(),
            registry.pending.clone(),
            registry.applied.clone(),
            registry.hooks.clone(),
            history.clone(),
            watch,
        );
        registry.config.tasks.spawn("watch cache", feeding);
        let compacting = compact(registry.engine.clone(), registry.config.compaction_interval, history);
        registry.config.tasks.spawn("compaction", compacting);
        Ok(registry)
    }

    /// Admission that asks "may this user …" asks this one; until it is set the answer is no.
    pub fn set_authorizer(&self, authorizer: Arc<dyn Authorizer>) {
        *self.authorizer.write() = Some(authorizer);
    }

    /// Until it is set, no webhook is called.
    pub fn set_webhooks(&self, webhooks: Arc<dyn Webhooks>) {
        *self.webhooks.write() = Some(webhooks);
    }

    /// Who answers "may this user …", where it is set.
    pub fn authorizer(&self) -> Option<Arc<dyn Authorizer>> {
        self.authorizer.read().clone()
    }

    pub(crate) fn webhooks(&self) -> Option<Arc<dyn Webhooks>> {
        self.webhooks.read().clone()
    }

    pub(crate) async fn allowed(&self, user: &UserInfo, question: &Question<'_>) -> bool {
        let authorizer = self.authorizer.read().clone();
        match authorizer {
            Some(authorizer) => authorizer.allowed(user, question).await,
            None => false,
        }
    }

    /// What only the authorizer can judge of a write. Without one nothing is refused here.
    pub(crate) fn check_write(
        &self,
        attributes: &crate::admission::Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(authorizer) = self.authorizer.read().clone() else { return Ok(()) };
        let crate::admission::Attributes { operation, gvr, requested, subresource, namespace, name, user, .. } = attributes;
        let write = crate::config::Write { operation: *operation, gvr, requested, subresource, namespace, name, object, old };
        authorizer.check_write(user, &write)
    }

    /// Answers one authorized request. A panic ends only the request.
    pub async fn handle(self: &Arc<Self>, info: &RequestInfo, body: Bytes) -> Result<Answer, ApiError> {
        // Pinned where it is made, for it is large, and what is put around it would move it.
        let handling = pin!(verbs::handle(self, info, body));
        let answer = AssertUnwindSafe(handling).catch_unwind().await;
        answer.unwrap_or_else(|_| {
            tracing::error!(verb = info.verb.as_str(), path = %info.path, "a request panicked");
            Err(ApiError::new(Reason::InternalError, "This request caused apiserver to panic. Look in the logs for details."))
        })
    }

    /// Reads of one resource from memory, for authorizers and admission.
    pub fn cached(&self, gvr: &Gvr) -> Option<Cached<'_>> {
        let (resource, _) = self.resources.find(gvr)?;
        Some(Cached { registry: self, resource })
    }

    /// An object from memory as a tree, in its stored version.
    pub fn get_value(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Value> {
        Some(self.cached(gvr)?.get(namespace, name)?.to_value())
    }

    /// The revision that the caches show.
    pub fn revision(&self) -> i64 {
        self.applied.revision()
    }

    /// Why the store takes no writes any more, if that is so.
    pub fn refusal(&self) -> Option<String> {
        self.engine.refusal()
    }

    /// The custom resources there are now.
    pub fn extensions(&self) -> Arc<crate::custom::Extensions> {
        self.resources.extensions()
    }

    /// How many objects each stored resource has.
    pub fn object_counts(&self) -> Vec<(Gvr, usize)> {
        self.resources.all().iter().map(|r| (r.gvr.clone(), r.cache.len())).collect()
    }

    /// What the registry measures of itself, in Prometheus' text form.
    pub fn metrics(&self, out: &mut String) {
        self.meters.write(out);
        const RECEIVED: &str = "apiserver_storage_events_received_total";
        head(out, RECEIVED, "counter", "Changes that the watch cache has seen.");
        for resource in self.resources.all() {
            let Gvr { group, resource: name, .. } = &resource.gvr;
            let _ = writeln!(out, "{RECEIVED}{{group={group:?},resource={name:?}}} {}", resource.cache.received());
        }
        const SIZE: &str = "apiserver_storage_size_bytes";
        head(out, SIZE, "gauge", "Bytes of the store on disk.");
        let _ = writeln!(out, "{SIZE}{{storage_cluster_id=\"embedded\"}} {}", self.engine.size());
    }

    /// Waits until the caches show everything that has been acknowledged: a linearizable read follows.
    pub async fn catch_up(&self) {
        self.applied.reached(self.engine.revision()).await;
    }

    /// Writes if the object is at revision `expected` (0: if there is none).
    pub(crate) async fn write(&self, resource: &Resource, draft: &Arc<Draft>, expected: i64) -> Result<Arc<Entry>, WriteError> {
        let key = draft.key();
        let lease = if resource.expires { self.event_lease().await? } else { 0 };
        let old = if expected == 0 { None } else { resource.cache.get(key) };
        let beside = self.hooks.beside(resource, old.as_deref(), || Some(draft.preview()), &self.config).map_err(WriteError::Failed)?;
        let drafts: Vec<&Arc<Draft>> = std::iter::once(draft).chain(&beside.puts).collect();
        let put = |d: &&Arc<Draft>, lease| Op::Put { key: d.key().clone(), value: d.stored.clone(), lease };
        let mut txn = conditional(key, expected, put(&draft, lease));
        for other in &beside.puts {
            txn.compare.push(Compare::ModRevision(other.key().clone(), Ordering::Equal, 0));
            txn.success.push(put(&other, 0));
        }
        txn.success.extend(beside.deletes.iter().map(|key| Op::Delete(KeyRange { start: key.clone(), end: Bytes::new() })));
        drafts.iter().for_each(|d| self.pending.add(d.key(), (*d).clone()));
        let forget = || drafts.iter().for_each(|d| self.pending.forget(d.key(), d));
        let response = self.engine.txn(txn).await;
        let response = response.inspect_err(|_| forget()).map_err(|e| WriteError::Failed(store_error(&e)))?;
        if response.succeeded {
            return Ok(draft.entry(response.revision));
        }
        forget();
        let present = present(resource, response.responses);
        if !beside.puts.is_empty() && present.as_ref().map_or(0, |e| e.revision()) == expected {
            return Err(WriteError::Failed(ApiError::internal("failed to allocate IP: provided IP is already allocated")));
        }
        Err(WriteError::Conflict(present))
    }

    /// Deletes if the object is still this one; the revision of the deletion.
    pub(crate) async fn remove(&self, resource: &Resource, entry: &Entry) -> Result<i64, WriteError> {
        let delete = |key: &Bytes| Op::Delete(KeyRange { start: key.clone(), end: Bytes::new() });
        let beside = self.hooks.beside(resource, Some(entry), || None, &self.config).map_err(WriteError::Failed)?;
        let mut txn = conditional(entry.key(), entry.revision(), delete(entry.key()));
        txn.success.extend(beside.deletes.iter().map(delete));
        let response = self.engine.txn(txn).await;
        let response = response.map_err(|e| WriteError::Failed(store_error(&e)))?;
        if response.succeeded { Ok(response.revision) } else { Err(WriteError::Conflict(present(resource, response.responses))) }
    }

    /// One lease serves the events of a minute: a lease per event would be most of the work.
    async fn event_lease(&self) -> Result<i64, WriteError> {
        let now = self.config.clock.now().as_second();
        if let Some(lease) = self.hooks.lease(now) {
            return Ok(lease);
        }
        let ttl = i64::try_from(self.config.event_ttl.as_secs()).unwrap_or(i64::MAX) + crate::hooks::LEASE_SHARED_FOR;
        let lease = self.engine.grant_lease(0, ttl).await.map_err(|e| WriteError::Failed(store_error(&e)))?;
        self.hooks.set_lease(lease, now);
        Ok(lease)
    }
}

/// Memory's view of one resource.
#[derive(Clone)]
pub struct Cached<'a> {
    registry: &'a Registry,
    resource: Arc<Resource>,
}

impl Cached<'_> {
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.resource.cache.get(&self.resource.key(namespace, name))
    }

    /// Everything in a namespace, or everything where it is empty.
    pub fn list(&self, namespace: &str) -> Vec<Arc<Entry>> {
        let prefix = self.resource.prefix_of(namespace);
        self.resource.cache.list(&prefix, &prefix).0
    }

    pub fn len(&self) -> usize {
        self.resource.cache.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The content now, and every change from now on.
    pub fn subscribe(&self) -> Subscription {
        let (watcher, entries, _) = self.resource.cache.watch(&Scope::All, self.resource.prefix());
        Subscription { resource: self.resource.clone(), watcher, initial: entries, stopping: self.registry.stopping.clone() }
    }
}

/// A change, as in-process subscribers see it.
#[derive(Clone)]
pub enum Change {
    Put(Arc<Entry>),
    Deleted(Arc<Entry>),
}

pub struct Subscription {
    resource: Arc<Resource>,
    watcher: Arc<Watcher>,
    initial: Vec<Arc<Entry>>,
    stopping: CancellationToken,
}

impl Subscription {
    /// The content at the time of subscribing; empty when asked again.
    pub fn initial(&mut self) -> Vec<Arc<Entry>> {
        std::mem::take(&mut self.initial)
    }

    /// The next changes, at least one. None when the registry stops or the subscriber fell too far behind: subscribe anew.
    pub async fn next(&mut self) -> Option<Vec<Change>> {
        loop {
            let events = self.watcher.take().ok()?;
            if !events.is_empty() {
                let change = |e: &Arc<crate::cache::Event>| {
                    if e.deleted { Change::Deleted(e.entry.clone()) } else { Change::Put(e.entry.clone()) }
                };
                return Some(events.iter().map(change).collect());
            }
            tokio::select! {
                () = self.watcher.ready() => {}
                () = self.stopping.cancelled() => return None,
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.resource.cache.forget(&Scope::All, &self.watcher);
    }
}

fn everything() -> KeyRange {
    KeyRange { start: Bytes::from_static(&[0]), end: Bytes::from_static(&[0]) }
}

/// Fills the caches page by page, all at one revision.
pub(crate) async fn load(engine: &dyn Engine, resources: &Resources) -> Result<i64, StoreError> {
    let mut revision = 0;
    let mut range = everything();
    custom::load(resources, all_under(engine, custom::PREFIX).await?);
    let all = resources.all();
    let mut loaded: HashMap<Bytes, Vec<Arc<Entry>>> = all.iter().map(|r| (r.prefix().clone(), Vec::new())).collect();
    loop {
        let request = RangeRequest { range: range.clone(), limit: LOAD_PAGE, revision, keys_only: false, count_only: false };
        let page = engine.range(request).await?;
        revision = if revision == 0 { page.revision } else { revision };
        let last = page.kvs.last().map(|kv| kv.key.clone());
        for kv in page.kvs {
            if let Some(resource) = resources.of_key(&kv.key)
                && let Some(entries) = loaded.get_mut(resource.prefix())
            {
                entries.push(Arc::new(Entry::new(resource.shape.clone(), kv.key, kv.value, kv.mod_revision)));
            }
        }
        match last {
            Some(last) if page.more => range.start = [&last[..], &[0]].concat().into(),
            _ => break,
        }
    }
    all.iter().for_each(|resource| resource.cache.load(loaded.remove(resource.prefix()).unwrap_or_default(), revision));
    Ok(revision)
}

/// Definitions are few: they are read at once.
async fn all_under(engine: &dyn Engine, prefix: &[u8]) -> Result<Vec<KeyValue>, StoreError> {
    let range = keys::everything_under(prefix);
    let request = RangeRequest { range, limit: 0, revision: 0, keys_only: false, count_only: false };
    Ok(engine.range(request).await?.kvs)
}

/// Each time, what was history one interval ago goes. An interval is over when its time is, or when much has gathered.
async fn compact(engine: Arc<dyn Engine>, interval: std::time::Duration, history: Arc<History>) {
    let mut before = 0;
    loop {
        let _ = tokio::time::timeout(interval, history.half_full()).await;
        let now = engine.revision();
        if before > engine.compacted_revision()
            && let Err(error) = engine.compact(before).await
        {
            tracing::warn!(%error, revision = before, "history could not be compacted");
        }
        before = now;
    }
}

fn conditional(key: &Bytes, expected: i64, op: Op) -> Txn {
    let read = RangeRequest {
        range: KeyRange { start: key.clone(), end: Bytes::new() },
        limit: 0,
        revision: 0,
        keys_only: false,
        count_only: false,
    };
    Txn { compare: vec![Compare::ModRevision(key.clone(), Ordering::Equal, expected)], success: vec![op], failure: vec![Op::Range(read)] }
}

/// What the failure branch of a conditional write found.
fn present(resource: &Resource, responses: Vec<OpResponse>) -> Option<Arc<Entry>> {
    let kv = responses.into_iter().find_map(|response| match response {
        OpResponse::Range(range) => range.kvs.into_iter().next(),
        _ => None,
    })?;
    Some(Arc::new(Entry::new(resource.shape.clone(), kv.key, kv.value, kv.mod_revision)))
}

pub(crate) fn store_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::Closed => ApiError::new(Reason::ServiceUnavailable, "the store is closed"),
        other => ApiError::internal(other),
    }
}

/// The error as a document in the encoding that the client accepts (JSON when it accepts none that we have).
pub fn error_document(accept: &str, error: &ApiError) -> Answer {
    let output = Output::negotiate(accept, false, true).unwrap_or(Output::JSON);
    let status = error.to_status();
    let gvk = tiphys_meta::Gvk::new("", "v1", "Status");
    let (format, body) = match crate::render::document(&gvk, &status, output.format) {
        Ok(body) => (output.format, body),
        Err(_) => (Output::JSON.format, Bytes::from(status.to_string())),
    };
    Answer::Object(Document {
        code: error.code,
        content_type: format.content_type().into(),
        body: crate::Body::Full(body),
        warnings: error.warnings.clone(),
    })
}
