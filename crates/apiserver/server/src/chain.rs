//! From socket to answer: the table of contents of a request. Each stage is one module and one span; `docs/life-of/request.md` tells the
//! same story in prose, and the test `life_of_a_request` holds the two together. What follows dispatch for objects (decoding, admission,
//! strategy, storage, encoding) is the registry's.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::{HeaderValue, Method, header};
use tiphys_base::{Clock, threads};
use tiphys_registry::{Answer, AuditNotes, Registry, UserInfo};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::aggregate::Aggregator;
use crate::audit::{Audit, Draft, Ended};
use crate::authenticate::{Authentication, Peer};
use crate::authorize::Authorization;
use crate::body::{self, Answered, Body, Request};
use crate::compress;
use crate::documents::Documents;
use crate::errors::DoorError;
use crate::flow::{Flow, Ids};
use crate::metrics::{self, Lasting, Metrics};
use crate::objects::Objects;
use crate::request_info::Info;
use crate::resource_metrics::ResourceMetrics;
use crate::rooms::{Received, Rooms};
use crate::stages::{audit, authenticate, authorize, dispatch, flow, impersonate, request_info};
use crate::streams::Streams;
use crate::tokens::{ServiceAccountTokens, new_uuid};
use crate::webhooks::Webhooks;

/// The stages in the order in which a request passes them.
pub const STAGES: [&str; 7] =
    [request_info::NAME, authenticate::NAME, audit::NAME, impersonate::NAME, flow::NAME, authorize::NAME, dispatch::NAME];

/// Where a request comes from, which decides who may be believed.
#[derive(Clone)]
pub enum Origin {
    Socket(Arc<Peer>),
    /// A component of this process, by an identity that was given to it at its start.
    InProcess(Arc<UserInfo>),
}

/// Everything that stages look at.
pub struct Door {
    pub authentication: Authentication,
    pub authorization: Arc<Authorization>,
    pub registry: Arc<Registry>,
    pub objects: Arc<dyn Objects>,
    pub tokens: Arc<ServiceAccountTokens>,
    pub documents: Documents,
    pub streams: Streams,
    pub webhooks: Arc<Webhooks>,
    pub aggregator: Arc<Aggregator>,
    pub metrics: Metrics,
    pub(crate) resource_metrics: ResourceMetrics,
    /// Scheduler and controllers are tasks of this process.
    pub(crate) components_within: bool,
    pub flow: Arc<Flow>,
    pub(crate) rooms: Rooms,
    pub audit: Audit,
    pub clock: Arc<dyn Clock>,
    pub request_timeout: Duration,
    /// Set when the server is to go: watches and streams end, so that their clients look for another server.
    pub stop: CancellationToken,
}

/// A request under way.
pub struct Call {
    pub origin: Origin,
    pub info: Info,
    /// What the client wants to wait at most.
    pub(crate) timeout: Option<Duration>,
    pub user: Arc<UserInfo>,
    /// Who really asks, where `user` is impersonated.
    pub impersonator: Option<Arc<UserInfo>>,
    pub parts: http::request::Parts,
    pub body: Option<Body>,
    pub audit_id: String,
    /// The flow schema and the priority level that it was counted to.
    pub(crate) flow: Option<Ids>,
    /// What the audit log is to hear, while the request is under way; and of its end, where it lasts.
    pub(crate) audit: Option<Box<Draft>>,
    pub(crate) ended: Option<Ended>,
    pub(crate) lasting: Option<Lasting>,
    /// Where the body is large.
    pub(crate) place: Option<OwnedSemaphorePermit>,
    /// Its body may take milliseconds to read.
    pub(crate) heavy: bool,
}

impl Call {
    pub fn new(request: Request, origin: Origin) -> Self {
        let (parts, body) = request.into_parts();
        let user = Arc::new(UserInfo::default());
        Call {
            origin,
            info: Info::default(),
            timeout: None,
            user,
            impersonator: None,
            parts,
            body: Some(body),
            audit_id: new_uuid(),
            flow: None,
            audit: None,
            ended: None,
            lasting: None,
            place: None,
            heavy: false,
        }
    }

    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// Where admission puts what the audit log is to hear.
    pub(crate) fn notes(&self) -> AuditNotes {
        self.audit.as_ref().map(|draft| draft.notes.clone()).unwrap_or_default()
    }

    pub fn raw_query(&self) -> &str {
        self.parts.uri.query().unwrap_or("")
    }
}

/// What the chain comes to: an HTTP answer, or the registry's own, which in-process callers take as it is.
pub enum Outcome {
    Http(Answered),
    Objects(Answer),
}

impl Outcome {
    pub fn code(&self) -> u16 {
        match self {
            Outcome::Http(response) => response.status().as_u16(),
            Outcome::Objects(Answer::Object(document)) => document.code,
            Outcome::Objects(Answer::Watch(_)) => 200,
        }
    }

    /// The answer's bytes, where they are known beforehand.
    fn size(&self) -> Option<usize> {
        match self {
            Outcome::Objects(Answer::Object(document)) => match &document.body {
                tiphys_registry::Body::Full(bytes) => Some(bytes.len()),
                tiphys_registry::Body::Chunks(_) => None,
            },
            _ => None,
        }
    }
}

impl Door {
    /// Answers one request that came by HTTP; never fails and never panics.
    pub async fn serve(self: &Arc<Self>, request: Request, origin: Origin) -> Answered {
        let mut call = Call::new(request, origin);
        let accept = call.header(header::ACCEPT).to_owned();
        let head = call.parts.method == Method::HEAD;
        let packs = compress::is_wanted(&call.parts.headers, &call.origin);
        let mut response = match self.answer(&mut call).await {
            Ok(Outcome::Http(response)) if packs && call.info.path.starts_with("/openapi/") => compress::pack(response),
            Ok(Outcome::Http(response)) => response,
            Ok(Outcome::Objects(answer @ Answer::Object(_))) if packs => compress::pack(body::from_registry(answer)),
            Ok(Outcome::Objects(answer)) => body::from_registry(answer),
            Err(error) => refuse(error, &accept),
        };
        let (ended, lasting) = (call.ended.take(), call.lasting.take());
        if ended.is_some() || lasting.is_some() {
            response = response.map(|body| body::guarded(body, (ended, lasting)));
        }
        let headers = response.headers_mut();
        if let Ok(mut id) = HeaderValue::from_str(&call.audit_id) {
            // No secret, but nothing that HTTP/2 should remember for the next answer's head.
            id.set_sensitive(true);
            headers.insert("audit-id", id);
        }
        if let Some(ids) = call.flow {
            headers.insert("x-kubernetes-pf-flowschema-uid", ids.schema);
            headers.insert("x-kubernetes-pf-prioritylevel-uid", ids.level);
        }
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        if head { response.map(|_| body::empty()) } else { response }
    }

    /// Runs the chain, and keeps account of it.
    pub async fn answer(self: &Arc<Self>, call: &mut Call) -> Result<Outcome, DoorError> {
        let started = tokio::time::Instant::now();
        let span = tracing::debug_span!("request", method = %call.parts.method, path = call.parts.uri.path());
        let passed = {
            // Pinned where it is made, for it is large, and what is put around it would move it.
            let passing = pin!(self.pass(call));
            AssertUnwindSafe(passing).catch_unwind().instrument(span).await
        };
        let outcome = passed.unwrap_or_else(|panic| {
            tracing::error!(path = %call.info.path, panic = panic_text(panic.as_ref()), "a request panicked");
            Err(DoorError::Panicked)
        });
        let code = match &outcome {
            Ok(outcome) => outcome.code(),
            Err(error) => error.code(),
        };
        self.account(call, code, &outcome, started.elapsed());
        outcome
    }

    async fn pass(self: &Arc<Self>, call: &mut Call) -> Result<Outcome, DoorError> {
        tracing::debug_span!(request_info::NAME).in_scope(|| request_info::run(call))?;
        let _in_flight = self.metrics.in_flight(&call.info);
        tracing::debug_span!(authenticate::NAME).in_scope(|| authenticate::run(self, call))?;
        tracing::debug_span!(audit::NAME).in_scope(|| audit::received(self, call));
        tracing::debug_span!(impersonate::NAME).in_scope(|| impersonate::run(self, call))?;
        self.receive(call).await?;
        let _permit = flow::run(self, call).instrument(tracing::debug_span!(flow::NAME)).await?;
        authorize::run(self, call).instrument(tracing::debug_span!(authorize::NAME)).await?;
        let (limit, heavy) = (self.time_limit(call), call.heavy);
        let dispatched = dispatch::run(self, call).instrument(tracing::debug_span!(dispatch::NAME));
        let done = match heavy {
            true => tokio::time::timeout(limit, threads::heavy(dispatched)).await,
            false => tokio::time::timeout(limit, dispatched).await,
        };
        done.unwrap_or(Err(DoorError::Timeout))
    }

    /// The body, before a seat is taken. What is no object is read by whom it is for, as it comes.
    async fn receive(&self, call: &mut Call) -> Result<(), DoorError> {
        let whole = call.info.is_resource && !call.info.is_long_running() && call.parts.method != Method::GET;
        if !whole || matches!(call.origin, Origin::InProcess(_)) || self.aggregator.remote_for(&call.info).is_some() {
            return Ok(());
        }
        let Some(body) = call.body.take() else { return Ok(()) };
        let Received { body, place, heavy } = self.rooms.receive(body, self.time_limit(call)).await?;
        (call.body, call.place, call.heavy) = (Some(body), place, heavy);
        Ok(())
    }

    pub fn metrics_text(&self) -> String {
        let mut text = self.metrics.text();
        self.flow.metrics(&mut text);
        metrics::objects(&mut text, &self.registry.object_counts());
        self.registry.metrics(&mut text);
        self.webhooks.metrics(&mut text);
        self.authentication.bearer.metrics(&mut text);
        self.authorization.metrics(&mut text);
        text
    }

    fn time_limit(&self, call: &Call) -> Duration {
        const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
        if call.info.is_long_running() { FOREVER } else { call.timeout.unwrap_or(self.request_timeout).min(self.request_timeout) }
    }

    fn account(&self, call: &mut Call, code: u16, outcome: &Result<Outcome, DoorError>, took: Duration) {
        let lasts = call.info.is_long_running() && outcome.is_ok();
        let size = outcome.as_ref().ok().and_then(Outcome::size);
        call.lasting = self.metrics.request(&call.info, &call.parts.method, code, took, size, lasts);
        call.ended = self.audit.answered(call, code, outcome);
        let error = outcome.as_ref().err();
        tracing::debug!(
            method = %call.parts.method, uri = %call.parts.uri, user = %call.user.name, agent = call.header(header::USER_AGENT),
            code, took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX), error = error.map(tracing::field::display), "HTTP"
        );
    }
}

/// The error as a `Status` in the encoding that the client reads.
pub fn refuse(error: DoorError, accept: &str) -> Answered {
    if matches!(error, DoorError::NoSuchPath) {
        return body::text(404, "404 page not found\n");
    }
    let error = error.into_api();
    let retry = error.retry_after_seconds;
    let mut response = body::from_registry(tiphys_registry::error_document(accept, &error));
    if retry > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no text)")
}
