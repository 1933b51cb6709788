//! `/api`, `/apis` and what stands below: which groups, versions and resources there are, in the aggregated form and in the old one.
//!
//! Custom resources and aggregated servers will add their groups to [`Catalogue`]; today the built-in ones are all there is.

use std::sync::LazyLock;

use tiphys_schema::discovery::{self, Form, Group};

use super::{Documents, etag_of, with_etag};
use crate::body::{self, Answered};
use crate::chain::Call;
use crate::errors::DoorError;

/// The groups that are served, and their aggregated documents with tags, made when first asked for.
struct Catalogue {
    groups: Vec<Group>,
}

struct Aggregated {
    body: bytes::Bytes,
    etag: String,
}

static BUILTIN: LazyLock<Catalogue> = LazyLock::new(|| Catalogue { groups: discovery::builtin() });
static CORE: LazyLock<Aggregated> = LazyLock::new(|| BUILTIN.aggregated(true));
static OTHERS: LazyLock<Aggregated> = LazyLock::new(|| BUILTIN.aggregated(false));

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

impl Catalogue {
    fn aggregated(&self, core: bool) -> Aggregated {
        let body: bytes::Bytes = discovery::aggregated(&self.groups, core, Form::V2).to_string().into();
        Aggregated { etag: etag_of(&body), body }
    }

    fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == name)
    }
}

pub(super) fn group_paths() -> Vec<String> {
    let named = BUILTIN.groups.iter().filter(|g| !g.name.is_empty());
    named
        .flat_map(|g| {
            std::iter::once(format!("/apis/{}", g.name)).chain(g.versions.iter().map(|v| format!("/apis/{}/{}", g.name, v.version)))
        })
        .collect()
}

pub(super) fn answer(documents: &Documents, call: &Call, path: &str) -> Result<Answered, DoorError> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api"] if wants_aggregated(call) => Ok(aggregated(call, &CORE)),
        ["apis"] if wants_aggregated(call) => Ok(aggregated(call, &OTHERS)),
        ["api"] => Ok(body::json(200, &discovery::legacy_versions(&documents.address))),
        ["apis"] => Ok(body::json(200, &discovery::legacy_groups(&BUILTIN.groups))),
        ["api", version] => resources("", version),
        ["apis", group] => {
            let group = BUILTIN.group(group).filter(|g| !g.name.is_empty()).ok_or(DoorError::NoSuchPath)?;
            Ok(body::json(200, &discovery::legacy_group(group)))
        }
        ["apis", group, version] if !group.is_empty() => resources(group, version),
        _ => Err(DoorError::NoSuchPath),
    }
}

fn resources(group: &str, version: &str) -> Result<Answered, DoorError> {
    let found = BUILTIN.group(group).ok_or(DoorError::NoSuchPath)?;
    let version = found.versions.iter().find(|v| v.version == version).ok_or(DoorError::NoSuchPath)?;
    Ok(body::json(200, &discovery::legacy_resources(group, version)))
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
