//! The verbs, for every resource alike.

mod apply;
mod body;
mod create;
pub(crate) mod delete;
pub(crate) mod list;
mod managers;
pub(crate) mod patch;
pub(crate) mod rules;
mod scale;
pub(crate) mod update;
mod watch;

pub(crate) use body::SCHEME;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tiphys_kinds::{Ctx, User};
use tiphys_meta::{ApiError, Gvk, Gvr, Reason};

use crate::answer::{Answer, Body, Document};
use crate::negotiate::{Output, Shown};
use crate::options::{Query, parse_revision};
use crate::registry::Registry;
use crate::removed;
use crate::render::{self, Include, Renderer};
use crate::request::{RequestInfo, Verb};
use crate::resource::{Resource, Served};
use crate::storage::Entry;
use crate::subresources;

/// One request under way.
pub(crate) struct Call<'a> {
    pub(crate) registry: &'a Arc<Registry>,
    pub(crate) info: &'a RequestInfo,
    pub(crate) resource: &'a Arc<Resource>,
    pub(crate) served: &'a Served,
    version: usize,
    pub(crate) query: Query,
    pub(crate) output: Output,
    pub(crate) warnings: Vec<String>,
}

/// Answers a request.
pub(crate) async fn handle(registry: &Arc<Registry>, info: &RequestInfo, body: Bytes) -> Result<Answer, ApiError> {
    let moved = subresources::binding::by_the_old_path(info, &body);
    let info = moved.as_ref().unwrap_or(info);
    if moved.is_none() && info.gvr == Gvr::new("", "v1", "bindings") {
        return Err(ApiError::method_not_allowed());
    }
    let (resource, version) =
        find(registry, info).await.ok_or_else(|| removed::advice(&info.gvr).unwrap_or_else(ApiError::not_found_path))?;
    let served = &resource.served[version];
    if !served.declares(&info.subresource) {
        return Err(ApiError::not_found_path());
    }
    check_route(&resource, info)?;
    if !served.has_verb(&info.subresource, info.verb.as_str()) {
        return Err(ApiError::method_not_allowed());
    }
    check_name(&info.name)?;
    let query = Query::parse(&info.query);
    let output = Output::negotiate(&info.accept, info.verb == Verb::Watch, served.as_custom().is_none())?;
    if !matches!(info.verb, Verb::Get | Verb::List | Verb::Watch) {
        // Rules and admission see everything that was acknowledged before: nobody has to think about stale caches.
        registry.catch_up().await;
    }
    let warnings = deprecation(served).into_iter().collect();
    let mut call = Call { registry, info, resource: &resource, served, version, query, output, warnings };
    let answered = serve(&mut call, body).await;
    // What was found worth a warning is told with a refusal too.
    answered.map_err(|error| ApiError { warnings: distinct(std::mem::take(&mut call.warnings)), ..error })
}

async fn serve(call: &mut Call<'_>, body: Bytes) -> Result<Answer, ApiError> {
    if !call.info.subresource.is_empty() {
        return subresources::handle(call, body).await;
    }
    match call.info.verb {
        Verb::Get => call.get().await,
        Verb::List => call.list().await,
        Verb::Watch => call.watch().await,
        Verb::Create => call.create(body).await,
        Verb::Update => call.update(body).await,
        Verb::Patch => call.patch(body).await,
        Verb::Delete => call.delete(body).await,
        Verb::DeleteCollection => call.delete_collection(body).await,
    }
}

/// Of kinds that are still served, but should not be written any more.
fn deprecation(served: &Served) -> Option<String> {
    if let Some(custom) = served.as_custom() {
        return custom.version().warning.clone();
    }
    let endpoints = served.gvr.group.is_empty() && &*served.gvr.resource == "endpoints";
    endpoints.then_some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned())
}

/// What a definition says holds for everybody who has seen it, so that of custom resources nothing is read before the caches have caught up.
async fn find(registry: &Registry, info: &RequestInfo) -> Option<(Arc<Resource>, usize)> {
    let found = match registry.resources.find(&info.gvr) {
        Some(builtin) if builtin.0.definition().is_none() => Some(builtin),
        _ => {
            registry.catch_up().await;
            registry.resources.find(&info.gvr)
        }
    };
    let across = matches!(info.verb, Verb::List | Verb::Watch);
    // No resource is reached through a namespace that it does not have (the fault class of CVE-2019-11247).
    found.filter(|(r, _)| (r.namespaced != info.namespace.is_empty()) || (r.namespaced && across))
}

/// A name is one step of a path and of a key, and never more.
fn check_name(name: &str) -> Result<(), ApiError> {
    let why = match name {
        "." => "may not be '.'",
        ".." => "may not be '..'",
        _ if name.contains('/') => "may not contain '/'",
        _ if name.contains('%') => "may not contain '%'",
        _ => return Ok(()),
    };
    Err(ApiError::bad_request(format!("Name parameter invalid: {name:?}: {why}")))
}

/// Paths are of the shape that the resource's scope asks for, and of a collection only some verbs are served; over all namespaces, reading alone.
fn check_route(resource: &Resource, info: &RequestInfo) -> Result<(), ApiError> {
    let across = resource.namespaced && info.namespace.is_empty();
    let reads = matches!(info.verb, Verb::List | Verb::Watch);
    // A list by `fieldSelector=metadata.name=` has a name too.
    let named = !info.name.is_empty() && !reads && !matches!(info.verb, Verb::DeleteCollection);
    let misplaced = !resource.namespaced && !info.namespace.is_empty();
    if misplaced || (across && named) || info.name.contains('/') {
        return Err(ApiError::not_found_path());
    }
    let fits = match info.verb {
        Verb::List | Verb::Watch => true,
        Verb::DeleteCollection => !across,
        Verb::Create => !across && (named != info.subresource.is_empty()),
        Verb::Get | Verb::Update | Verb::Patch | Verb::Delete => named,
    };
    if fits { Ok(()) } else { Err(ApiError::method_not_allowed()) }
}

impl Call<'_> {
    /// What rules of kinds may know.
    pub(crate) fn ctx(&self) -> Ctx<'_> {
        let user = &self.info.user;
        let user = User { name: &user.name, uid: &user.uid, groups: &user.groups, extra: &user.extra };
        Ctx { now: self.registry.config.clock.now(), user }
    }

    pub(crate) fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.served.gvr, name)
    }

    pub(crate) fn renderer(&self) -> Result<Renderer, ApiError> {
        let include = if self.output.shown == Shown::Table { Include::parse(self.query.get("includeObject"))? } else { Include::Metadata };
        Ok(Renderer {
            resource: self.resource.clone(),
            version: self.version,
            output: self.output,
            include,
            now: self.registry.config.clock.now(),
        })
    }

    pub(crate) async fn get(&mut self) -> Result<Answer, ApiError> {
        let version = self.query.get("resourceVersion");
        // Upstream finds out in its cache, where no such error is expected.
        let revision = parse_revision(version).map_err(|error| ApiError::new(Reason::Unknown, error.message))?;
        if version != "0" {
            self.registry.catch_up().await;
        }
        list::reached(self.registry, revision).await?;
        let key = self.resource.key(&self.info.namespace, &self.info.name);
        let entry = self.resource.cache.get(&key).ok_or_else(|| self.not_found(&self.info.name))?;
        self.answer(200, &entry).await
    }

    /// A stored object as the answer.
    pub(crate) async fn answer(&mut self, code: u16, entry: &Arc<Entry>) -> Result<Answer, ApiError> {
        let renderer = self.renderer()?;
        let body = renderer.object(&*self.registry.view(self.served, entry).await?)?;
        Ok(self.document(code, body))
    }

    /// An object that is no stored one (dry runs apart, a Status or a Scale).
    pub(crate) fn answer_tree(&mut self, code: u16, gvk: &Gvk, tree: &Value) -> Result<Answer, ApiError> {
        let body = render::document(gvk, tree, self.output.format)?;
        Ok(self.document(code, body))
    }

    fn document(&mut self, code: u16, body: Bytes) -> Answer {
        Answer::Object(Document {
            code,
            content_type: self.output.format.content_type().into(),
            body: Body::Full(body),
            warnings: distinct(std::mem::take(&mut self.warnings)),
        })
    }
}

/// The same thing is told once.
fn distinct(warnings: Vec<String>) -> Vec<String> {
    let mut told: Vec<String> = Vec::with_capacity(warnings.len());
    for warning in warnings {
        if !told.contains(&warning) {
            told.push(warning);
        }
    }
    told
}
