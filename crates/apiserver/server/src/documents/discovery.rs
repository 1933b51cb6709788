//! `/api`, `/apis` and what stands below: which groups, versions and resources there are, in the aggregated form and in the old one.
//!
//! What there is stands in [`super::catalogue`].

use tiphys_meta::ApiError;
use tiphys_schema::discovery;

use super::catalogue::{Aggregated, Shown};
use super::{Documents, with_etag};
use crate::body::{self, Answered};
use crate::chain::Call;
use crate::errors::DoorError;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub(super) fn group_paths(shown: &Shown) -> Vec<String> {
    let named = shown.groups.iter().filter(|g| !g.name.is_empty());
    named
        .flat_map(|g| {
            std::iter::once(format!("/apis/{}", g.name)).chain(g.versions.iter().map(|v| format!("/apis/{}/{}", g.name, v.version)))
        })
        .collect()
}

pub(super) fn answer(documents: &Documents, call: &Call, path: &str) -> Result<Answered, DoorError> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let shown = documents.catalogue.shown();
    match parts.as_slice() {
        ["api"] if wants_aggregated(call) => Ok(aggregated(call, shown.aggregated(true))),
        ["apis"] if wants_aggregated(call) => Ok(aggregated(call, shown.aggregated(false))),
        ["api"] => Ok(document(call, &discovery::legacy_versions(&documents.address))),
        ["apis"] => Ok(document(call, &discovery::legacy_groups(&shown.groups))),
        ["api", version] => resources(call, &shown, "", version),
        ["apis", group] => {
            let group = shown.group(group).filter(|g| !g.name.is_empty()).ok_or(DoorError::NoSuchPath)?;
            Ok(document(call, &discovery::legacy_group(group)))
        }
        ["apis", group, version] if !group.is_empty() => resources(call, &shown, group, version),
        _ => Err(DoorError::NoSuchPath),
    }
}

fn resources(call: &Call, shown: &Shown, group: &str, version: &str) -> Result<Answered, DoorError> {
    let found = shown.group(group).ok_or(DoorError::NoSuchPath)?;
    let version = found.versions.iter().find(|v| v.version == version).ok_or_else(ApiError::not_found_path)?;
    Ok(document(call, &discovery::legacy_resources(group, version)))
}

/// JSON, or YAML for who asks for it first.
fn document(call: &Call, document: &serde_json::Value) -> Answered {
    let accept = call.header(http::header::ACCEPT);
    let media = accept.split(',').filter_map(|clause| clause.split(';').next()).map(str::trim);
    match media.into_iter().find(|media| matches!(*media, "application/json" | "*/*" | "application/*" | body::YAML)) {
        Some(body::YAML) => body::answer(200, body::YAML, body::full(tiphys_schema::codec::yaml::print(document))),
        _ => body::json(200, document),
    }
}

/// The first media type that is one of ours decides.
fn wants_aggregated(call: &Call) -> bool {
    let accept = call.header(http::header::ACCEPT);
    let known = accept.split(',').map(str::trim).find_map(|clause| {
        let has = |part: &str| clause.split(';').any(|p| p.trim() == part);
        let aggregated = has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io");
        match () {
            () if aggregated && has("v=v2") && clause.starts_with("application/json") => Some(true),
            () if clause == "application/json" || clause.starts_with("*/*") => Some(false),
            () => None,
        }
    });
    known.unwrap_or(false)
}

fn aggregated(call: &Call, document: &Aggregated) -> Answered {
    with_etag(call, &document.etag, || body::answer(200, AGGREGATED, body::full(document.body.clone())))
}
