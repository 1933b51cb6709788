//! `/openapi/v2` in JSON and in protobuf, `/openapi/v3` by group and version, all with tags so that clients fetch them once.
//! Documents are made when they are asked for; only their hashes are kept.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Map, Value};
use tiphys_schema::openapi::{self, Document};

use super::with_etag;
use crate::body::{self, Answered};
use crate::chain::Call;
use crate::errors::DoorError;

// The spelling with a dot is the one that a media type may have (RFC 6838); clients ask for either.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

static V3: LazyLock<Vec<Document>> = LazyLock::new(|| openapi::v3_documents(&[]));
static V3_INDEX: LazyLock<(Bytes, String)> = LazyLock::new(|| {
    let index = Bytes::from(openapi::v3_index(&V3).to_string());
    let hash = openapi::hash(&index);
    (index, hash)
});
/// One tag for both encodings: they say the same, and `Vary: Accept` keeps them apart.
static V2_HASH: LazyLock<String> = LazyLock::new(|| openapi::hash(&openapi::v2_json(&[])));

pub(super) fn answer(call: &Call, path: &str) -> Result<Answered, DoorError> {
    match path {
        "/openapi/v2" => Ok(v2(call)),
        "/openapi/v3" => Ok(with_etag(call, &V3_INDEX.1, || body::answer(200, "application/json", body::full(V3_INDEX.0.clone())))),
        _ => v3(call, path.strip_prefix("/openapi/v3/").ok_or(DoorError::NoSuchPath)?),
    }
}

/// The index with the entries of other servers.
pub(super) fn merged_index(call: &Call, more: Vec<(String, Value)>) -> Answered {
    let mut index = openapi::v3_index(&V3);
    if let Some(Value::Object(paths)) = index.get_mut("paths") {
        paths.extend(more);
    }
    let index = Bytes::from(index.to_string());
    with_etag(call, &openapi::hash(&index), || body::answer(200, "application/json", body::full(index.clone())))
}

/// Version 2 with the paths and definitions of other servers.
pub(super) fn merged_v2(call: &Call, (paths, definitions): (Map<String, Value>, Map<String, Value>)) -> Answered {
    let protobuf = wants_protobuf(call);
    let document = openapi::v2_merged(&[], paths, definitions, protobuf);
    let content_type = if protobuf { V2_PROTOBUF } else { "application/json" };
    with_etag(call, &openapi::hash(&document), || body::answer(200, content_type, body::full(document.clone())))
}

fn wants_protobuf(call: &Call) -> bool {
    let accept = call.header(header::ACCEPT);
    accept.contains(openapi::V2_PROTO) || accept.contains(V2_PROTOBUF)
}

fn v3(call: &Call, path: &str) -> Result<Answered, DoorError> {
    let document = V3.iter().find(|d| d.path == path).ok_or(DoorError::NoSuchPath)?;
    let make = || body::answer(200, "application/json", body::full(openapi::v3(path, &[]).unwrap_or_default()));
    let mut response = with_etag(call, &document.hash, make);
    if call.info.query.get("hash").is_some_and(|h| h.eq_ignore_ascii_case(&document.hash)) {
        // The address names the content, so it may be kept for good.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(response)
}

fn v2(call: &Call) -> Answered {
    let protobuf = wants_protobuf(call);
    with_etag(call, &V2_HASH, || {
        if protobuf {
            body::answer(200, V2_PROTOBUF, body::full(openapi::v2_proto(&[])))
        } else {
            body::answer(200, "application/json", body::full(openapi::v2_json(&[])))
        }
    })
}
