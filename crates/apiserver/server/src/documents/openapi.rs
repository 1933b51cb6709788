//! `/openapi/v2` in JSON and in protobuf, `/openapi/v3` by group and version, all with tags so that clients fetch them once.
//! Documents are made when they are asked for; only their hashes are kept, for as long as the same custom resources are there.

use std::sync::{Arc, LazyLock, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Map, Value};
use tiphys_registry::Extensions;
use tiphys_schema::openapi::{self, Custom, Document};

use super::with_etag;
use crate::body::{self, Answered};
use crate::chain::Call;
use crate::errors::DoorError;

// The spelling with a dot is the one that a media type may have (RFC 6838); clients ask for either.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Hashes of the documents without custom resources: most of them stay as they are whatever is defined.
static BUILTIN: LazyLock<Vec<Document>> = LazyLock::new(|| openapi::v3_documents(&[]));

/// What is published while the same custom resources are there.
pub(super) struct Published {
    of: Arc<Extensions>,
    custom: Vec<Custom>,
    v3: OnceLock<Vec<Document>>,
    index: OnceLock<(Bytes, String)>,
    /// One tag for both encodings: they say the same, and `Vary: Accept` keeps them apart.
    v2: OnceLock<String>,
}

/// What was published last.
#[derive(Default)]
pub(super) struct Latest(ArcSwapOption<Published>);

impl Latest {
    pub(super) fn of(&self, extensions: Arc<Extensions>) -> Arc<Published> {
        if let Some(latest) = self.0.load_full().filter(|p| Arc::ptr_eq(&p.of, &extensions)) {
            return latest;
        }
        let custom = extensions.openapi();
        let published = Published { of: extensions, custom, v3: OnceLock::new(), index: OnceLock::new(), v2: OnceLock::new() };
        let published = Arc::new(published);
        self.0.store(Some(published.clone()));
        published
    }
}

impl Published {
    fn v3(&self) -> &[Document] {
        self.v3.get_or_init(|| {
            let concerned = |path: &str| {
                self.custom.iter().any(|c| path == format!("apis/{}", c.group) || path == format!("apis/{}/{}", c.group, c.version))
            };
            let document = |path: String| match BUILTIN.iter().find(|d| d.path == path && !concerned(&path)) {
                Some(same) => same.clone(),
                None => Document { hash: openapi::v3(&path, &self.custom).map(|d| openapi::hash(&d)).unwrap_or_default(), path },
            };
            openapi::v3_paths(&self.custom).into_iter().map(document).collect()
        })
    }

    fn index(&self) -> &(Bytes, String) {
        self.index.get_or_init(|| {
            let index = Bytes::from(openapi::v3_index(self.v3()).to_string());
            let hash = openapi::hash(&index);
            (index, hash)
        })
    }

    fn v2_hash(&self) -> &str {
        self.v2.get_or_init(|| openapi::hash(&openapi::v2_json(&self.custom)))
    }
}

pub(super) fn answer(published: &Published, call: &Call, path: &str) -> Result<Answered, DoorError> {
    match path {
        "/openapi/v2" => Ok(v2(published, call)),
        "/openapi/v3" => {
            let (index, hash) = published.index();
            Ok(with_etag(call, hash, || body::answer(200, "application/json", body::full(index.clone()))))
        }
        _ => v3(published, call, path.strip_prefix("/openapi/v3/").ok_or(DoorError::NoSuchPath)?),
    }
}

/// The index with the entries of other servers.
pub(super) fn merged_index(published: &Published, call: &Call, more: Vec<(String, Value)>) -> Answered {
    let mut index = openapi::v3_index(published.v3());
    if let Some(Value::Object(paths)) = index.get_mut("paths") {
        paths.extend(more);
    }
    let index = Bytes::from(index.to_string());
    with_etag(call, &openapi::hash(&index), || body::answer(200, "application/json", body::full(index.clone())))
}

/// Version 2 with the paths and definitions of other servers.
pub(super) fn merged_v2(published: &Published, call: &Call, (paths, definitions): (Map<String, Value>, Map<String, Value>)) -> Answered {
    let protobuf = wants_protobuf(call);
    let document = openapi::v2_merged(&published.custom, paths, definitions, protobuf);
    let content_type = if protobuf { V2_PROTOBUF } else { "application/json" };
    with_etag(call, &openapi::hash(&document), || body::answer(200, content_type, body::full(document.clone())))
}

fn wants_protobuf(call: &Call) -> bool {
    let accept = call.header(header::ACCEPT);
    accept.contains(openapi::V2_PROTO) || accept.contains(V2_PROTOBUF)
}

fn v3(published: &Published, call: &Call, path: &str) -> Result<Answered, DoorError> {
    let document = published.v3().iter().find(|d| d.path == path).ok_or(DoorError::NoSuchPath)?;
    let make = || body::answer(200, "application/json", body::full(openapi::v3(path, &published.custom).unwrap_or_default()));
    let mut response = with_etag(call, &document.hash, make);
    if call.info.query.get("hash").is_some_and(|h| h.eq_ignore_ascii_case(&document.hash)) {
        // The address names the content, so it may be kept for good.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(response)
}

fn v2(published: &Published, call: &Call) -> Answered {
    let protobuf = wants_protobuf(call);
    with_etag(call, published.v2_hash(), || {
        if protobuf {
            body::answer(200, V2_PROTOBUF, body::full(openapi::v2_proto(&published.custom)))
        } else {
            body::answer(200, "application/json", body::full(openapi::v2_json(&published.custom)))
        }
    })
}
