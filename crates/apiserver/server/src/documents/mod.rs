//! Paths that are no resource: what the server is, how it is, and what its API looks like.

pub(crate) mod catalogue;
mod discovery;
mod health;
mod openapi;
pub(crate) mod priorities;
pub(crate) mod version;
mod zpages;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::{HeaderValue, Method, header};
use jiff::Timestamp;
use serde_json::json;
use tiphys_meta::{ApiError, Reason};
use tiphys_registry::Extensions;

use crate::body::{self, Answered};
use crate::chain::{Call, Door};
use crate::config::Config;
use crate::errors::DoorError;
use crate::flags;
pub(crate) use health::Checks;

/// What does not change while the server runs, and the checks of its health.
pub struct Documents {
    pub checks: Checks,
    /// What `/api` names as the server's address.
    pub address: String,
    pub catalogue: Arc<catalogue::Catalogue>,
    started: Timestamp,
    /// How the server is configured, in the words of its flags.
    flags: BTreeMap<&'static str, String>,
    published: openapi::Latest,
    /// What the catalogue shows of custom resources.
    shown: ArcSwapOption<Extensions>,
}

/// Whether the client takes no JSON.
fn only_yaml(call: &Call) -> bool {
    let accept = call.header(header::ACCEPT);
    !accept.is_empty() && !["json", "*/*", "application/*"].iter().any(|known| accept.contains(known))
}

impl Documents {
    pub fn new(checks: Checks, address: String, catalogue: Arc<catalogue::Catalogue>, config: &Config) -> Documents {
        let (started, flags) = (config.clock.now(), flags::shown(config));
        Documents { checks, address, catalogue, started, flags, published: openapi::Latest::default(), shown: ArcSwapOption::default() }
    }

    /// The custom resources that there are now, which the catalogue then shows.
    fn extensions(&self, door: &Door) -> Arc<Extensions> {
        let extensions = door.registry.extensions();
        if !self.shown.load().as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &extensions)) {
            self.catalogue.set(catalogue::Source::Custom, catalogue::Extra::all_custom(extensions.groups()));
            self.shown.store(Some(extensions.clone()));
        }
        extensions
    }

    pub fn answer(&self, door: &Arc<Door>, call: &Call) -> Result<Answered, DoorError> {
        if !matches!(call.parts.method, Method::GET | Method::HEAD) {
            return Err(DoorError::NoSuchPath);
        }
        let path = call.info.path.as_str();
        let trimmed = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        let extensions = self.extensions(door);
        match trimmed {
            "/" => Ok(body::json(200, &json!({"paths": paths(&self.catalogue.shown(), &self.checks)}))),
            "/statusz" => Ok(zpages::statusz(self.started, door.clock.now(), &paths(&self.catalogue.shown(), &self.checks)).answer(call)),
            "/flagz" => Ok(zpages::flagz(&self.flags).answer(call)),
            "/version" if only_yaml(call) => {
                let why = "406: Not Acceptable\n\nAvailable representations: application/json";
                Err(DoorError::Api(ApiError::of_the_router(Reason::NotAcceptable, why)))
            }
            "/version" => Ok(body::json(200, &version::document())),
            "/metrics" => Ok(body::answer(200, "text/plain; version=0.0.4; charset=utf-8", body::full(door.metrics_text()))),
            "/metrics/slis" => Ok(body::answer(200, "text/plain; version=0.0.4; charset=utf-8", body::full(self.checks.metrics()))),
            "/debug/api_priority_and_fairness/dump_priority_levels" => Ok(body::text(200, door.flow.dump())),
            "/debug/api_priority_and_fairness/dump_queues" => Ok(body::text(200, door.flow.dump_queues())),
            "/debug/api_priority_and_fairness/dump_requests" => Ok(body::text(200, door.flow.dump_requests())),
            "/.well-known/openid-configuration" => Ok(cached(body::json(200, &door.tokens.openid_configuration()))),
            "/openid/v1/jwks" => Ok(cached(body::answer(200, "application/jwk-set+json", body::full(door.tokens.jwks().to_string())))),
            _ if health::is_health(trimmed) => self.checks.answer(trimmed, &call.info.query),
            _ if trimmed.starts_with("/openapi/") => openapi::answer(&self.published.of(extensions), call, trimmed),
            _ => discovery::answer(self, call, trimmed),
        }
    }

    /// OpenAPI with what other servers bring; it has to be asked of them.
    pub(crate) async fn merged_openapi(&self, door: &Arc<Door>, call: &mut Call) -> Result<Answered, DoorError> {
        let path = call.info.path.trim_end_matches('/').to_owned();
        let published = self.published.of(self.extensions(door));
        match path.as_str() {
            "/openapi/v2" => {
                let more = door.aggregator.openapi_v2().await;
                Ok(openapi::merged_v2(&published, call, more))
            }
            "/openapi/v3" => Ok(openapi::merged_index(&published, call, door.aggregator.openapi_index())),
            path => match door.aggregator.openapi_v3(path.strip_prefix("/openapi/v3/").unwrap_or("")).await {
                Some(Ok(document)) => Ok(body::answer(200, "application/json", body::full(document))),
                Some(Err(why)) => Ok(body::text(503, format!("{why}\n"))),
                None => self.answer(door, call),
            },
        }
    }
}

/// Keys may be kept an hour, as upstream allows.
fn cached(mut response: Answered) -> Answered {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// Answers 304 where the client has this version already.
fn with_etag(call: &Call, etag: &str, make: impl FnOnce() -> Answered) -> Answered {
    let quoted = format!("\"{etag}\"");
    let known = call.header(header::IF_NONE_MATCH).split(',').any(|tag| tag.trim() == quoted);
    let mut response = if known { body::answer(304, "", body::empty()) } else { make() };
    if known {
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    if let Ok(value) = HeaderValue::from_str(&quoted) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// SHA-512 in upper-case hexadecimal, as upstream's tags are.
fn etag_of(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA512, bytes).as_ref().iter().map(|b| format!("{b:02X}")).collect()
}

fn paths(shown: &catalogue::Shown, checks: &Checks) -> Vec<String> {
    let fixed = ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/"];
    let mut all: Vec<String> = fixed.iter().map(|p| (*p).to_owned()).collect();
    all.extend(discovery::group_paths(shown));
    all.extend(checks.paths());
    all.extend(
        [
            "/flagz",
            "/healthz",
            "/livez",
            "/metrics",
            "/metrics/slis",
            "/openapi/v2",
            "/openapi/v3",
            "/openapi/v3/",
            "/openid/v1/jwks",
            "/readyz",
            "/statusz",
            "/version",
        ]
        .map(str::to_owned),
    );
    all.sort();
    all.dedup();
    all
}
