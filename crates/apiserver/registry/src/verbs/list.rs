//! LIST: from memory where it can be, from the store's history where a revision is asked for that memory has left behind.

use std::sync::Arc;
use std::time::Duration;

use tiphys_meta::{ApiError, Cause, Reason};
use tiphys_store::{KeyRange, RangeRequest, StoreError};

use super::Call;
use crate::answer::{Answer, Document};
use crate::cache::Scope;
use crate::options::{ListOptions, Match};
use crate::registry::Registry;
use crate::render::ListMeta;
use crate::resource::{Resource, Served};
use crate::select::Selection;
use crate::storage::{Entry, keys};
use crate::tokens::{self, Position};

/// How long a read waits for a revision that is still to come.
const FUTURE_REVISION_WAIT: Duration = Duration::from_secs(3);

impl Call<'_> {
    pub(crate) async fn list(&mut self) -> Result<Answer, ApiError> {
        let options = ListOptions::parse(&self.query, false)?;
        let selection = Selection::new(self.resource, self.served, &self.info.namespace, &self.info.name, &options)?;
        let (entries, meta) = collect(self.registry, self.resource, self.served, &selection, &options).await?;
        let renderer = self.renderer()?;
        let content_type = renderer.content_type().into();
        let body = renderer.list(entries, &meta)?;
        Ok(Answer::Object(Document { code: 200, content_type, body, warnings: std::mem::take(&mut self.warnings) }))
    }
}

/// The selected entries and the list's metadata.
pub(crate) async fn collect(
    registry: &Registry,
    resource: &Arc<Resource>,
    served: &Served,
    selection: &Selection,
    options: &ListOptions,
) -> Result<(Vec<Arc<Entry>>, ListMeta), ApiError> {
    let mut position = None;
    let mut revision = options.revision().map_err(|e| ApiError::bad_request(format!("invalid resource version: {}", e.message)))?;
    if !options.token.is_empty() {
        if revision != 0 {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let at = tokens::decode(&options.token, &selection.prefix)?;
        revision = at.revision;
        position = Some(at);
    }
    let exact = position.is_some() || options.version_match == Match::Exact || (options.version_match == Match::Unset && options.limit > 0);
    let start = position.as_ref().map_or(&selection.prefix[..], |p| &p.start[..]);
    let (entries, revision) = if revision > 0 && exact {
        (at_revision(registry, resource, selection, start, revision, position.as_ref()).await?, revision)
    } else {
        if options.resource_version.is_empty() {
            registry.catch_up().await;
        } else if revision > 0 {
            reached(registry, revision).await?;
        }
        from_memory(registry, resource, selection, start)
    };
    let entries = registry.views(served, entries).await?;
    Ok(page(entries, revision, selection, options.limit))
}

/// What memory shows, and the revision that it shows.
fn from_memory(registry: &Registry, resource: &Resource, selection: &Selection, start: &[u8]) -> (Vec<Arc<Entry>>, i64) {
    // Taken first: the entries may be newer than this, never older; a later change shows in the cache's own revision.
    let applied = registry.applied.revision();
    let (entries, changed) = match selection.label() {
        Some(label) => resource.cache.list_labelled(&selection.prefix, start, label),
        None => resource.cache.list(&selection.prefix, start),
    };
    (entries, applied.max(changed))
}

async fn at_revision(
    registry: &Registry,
    resource: &Arc<Resource>,
    selection: &Selection,
    start: &[u8],
    revision: i64,
    position: Option<&Position>,
) -> Result<Vec<Arc<Entry>>, ApiError> {
    reached(registry, revision).await?;
    let (entries, changed) = resource.cache.list(&selection.prefix, start);
    if changed <= revision && registry.engine.compacted_revision() <= revision {
        return Ok(entries);
    }
    drop(entries);
    let end = if matches!(selection.scope, Scope::One(_)) { Default::default() } else { keys::successor(&selection.prefix) };
    let range = KeyRange { start: start.to_vec().into(), end };
    let request = RangeRequest { range, limit: 0, revision, keys_only: false, count_only: false };
    let response = registry.engine.range(request).await.map_err(|error| match error {
        StoreError::Compacted { .. } => expired(position, &selection.prefix),
        other => crate::registry::store_error(&other),
    })?;
    let entry = |kv: tiphys_store::KeyValue| match resource.cache.get(&kv.key) {
        Some(cached) if cached.revision() == kv.mod_revision => cached,
        _ => Arc::new(Entry::new(resource.shape.clone(), kv.key, kv.value, kv.mod_revision)),
    };
    Ok(response.kvs.into_iter().map(entry).collect())
}

/// Waits for a revision that clients may have heard of before this server shows it.
pub(crate) async fn reached(registry: &Registry, revision: i64) -> Result<(), ApiError> {
    if registry.applied.revision() >= revision {
        return Ok(());
    }
    let waited = tokio::time::timeout(FUTURE_REVISION_WAIT, registry.applied.reached(revision)).await;
    waited.map_err(|_| too_large(revision, registry.applied.revision()))
}

fn too_large(revision: i64, current: i64) -> ApiError {
    let mut error = ApiError::new(Reason::Timeout, format!("Timeout: Too large resource version: {revision}, current: {current}"));
    error.retry_after_seconds = 1;
    let message = "Too large resource version".to_owned();
    error.causes.push(Cause { reason: "ResourceVersionTooLarge".into(), message, field: String::new() });
    error
}

fn expired(position: Option<&Position>, prefix: &[u8]) -> ApiError {
    let Some(position) = position else {
        return ApiError::new(Reason::Expired, "The resourceVersion for the provided list is too old.");
    };
    let mut error = ApiError::new(
        Reason::Expired,
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use \
         the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - \
         objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    error.continue_token = tokens::inconsistent(position, prefix);
    error
}

/// The first `limit` that are selected, and how to get the rest.
fn page(entries: Vec<Arc<Entry>>, revision: i64, selection: &Selection, limit: usize) -> (Vec<Arc<Entry>>, ListMeta) {
    let mut meta = ListMeta { revision, ..ListMeta::default() };
    let total = entries.len();
    let mut selected: Vec<Arc<Entry>> = if selection.is_everything() {
        entries
    } else {
        let wanted = entries.into_iter().filter(|e| selection.matches(e));
        if limit > 0 { wanted.take(limit + 1).collect() } else { wanted.collect() }
    };
    if limit > 0 && selected.len() > limit {
        selected.truncate(limit);
        if let Some(last) = selected.last() {
            meta.token = tokens::after(last.key(), &selection.prefix, revision);
        }
        meta.remaining = selection.is_everything().then(|| (total - limit) as u64);
    }
    (selected, meta)
}
