//! Bodies of the few kinds that the door answers itself (reviews, token requests): JSON, YAML or protobuf in and out.

use bytes::Bytes;
use http::header;
use serde_json::Value;
use tiphys_meta::{ApiError, Gvk, Reason};
use tiphys_registry::{Clause, clauses, only_accepted};
use tiphys_schema::Facts;
use tiphys_schema::codec::{DecodeError, Strictness, json, proto, yaml};

use crate::body::{self, Answered};
use crate::chain::Call;
use crate::errors::DoorError;

pub(crate) const JSON: &str = "application/json";
use crate::body::YAML;
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const ACCEPTED: [&str; 3] = [JSON, YAML, PROTOBUF];

/// The request's body as a tree of `gvk`, with its apiVersion and kind.
pub(crate) async fn decode(call: &mut Call, gvk: &Gvk) -> Result<Value, DoorError> {
    let bytes = match call.body.take() {
        Some(body) => body::collect(body).await?,
        None => Bytes::new(),
    };
    let content_type = call.header(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim().to_owned();
    Ok(tree(&content_type, &bytes, gvk)?)
}

fn tree(content_type: &str, bytes: &Bytes, gvk: &Gvk) -> Result<Value, ApiError> {
    let kind = Facts::builtin().kind(gvk).ok_or_else(|| ApiError::internal(format!("{gvk} is unknown")))?;
    let bad = |e: DecodeError| ApiError::bad_request(e.to_string());
    let mut object = match content_type {
        PROTOBUF => {
            let envelope = proto::open(bytes).map_err(bad)?;
            proto::decode_raw(kind, &envelope).map_err(bad)?
        }
        YAML => {
            let tree = yaml::to_tree(bytes).map_err(bad)?;
            json::canonicalize(kind, tree, Strictness::Ignore).map_err(bad)?.object
        }
        "" | JSON => {
            check_kind(bytes, gvk)?;
            json::decode(kind, bytes, Strictness::Ignore).map_err(bad)?.object
        }
        _ => {
            let accepted = ACCEPTED.join(", ");
            let message = format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
            return Err(ApiError::new(Reason::UnsupportedMediaType, message));
        }
    };
    object["apiVersion"] = gvk.api_version().into();
    object["kind"] = gvk.kind.as_ref().into();
    Ok(object)
}

/// A body that says it is of another kind is not taken for ours.
fn check_kind(bytes: &Bytes, gvk: &Gvk) -> Result<(), ApiError> {
    let Ok((api_version, said)) = json::type_meta(bytes) else { return Ok(()) };
    if said.is_empty() || said == gvk.kind {
        return Ok(());
    }
    let (kind, group) = (&gvk.kind, gvk.group.split('.').next().unwrap_or(""));
    let version = api_version.rsplit('/').next().unwrap_or("");
    Err(ApiError::bad_request(format!(
        "{said} in version \"{version}\" cannot be handled as a {kind}: converting ({version}.{said}) to ({group}.{kind}): unknown conversion"
    )))
}

/// The object in what the client accepts. Tables and partial metadata are not among what reviews can be turned into.
pub(crate) fn encode(call: &Call, code: u16, gvk: &Gvk, object: &Value) -> Result<Answered, DoorError> {
    let content_type = negotiate(call.header(header::ACCEPT))?;
    let bytes = if content_type == PROTOBUF {
        proto::encode(gvk, object).map_err(|e| DoorError::Api(ApiError::internal(e)))?
    } else if content_type == YAML {
        yaml::print(object).into_bytes()
    } else {
        json::encode(object)
    };
    Ok(body::answer(code, content_type, body::full(bytes)))
}

/// The first media type that we have, of those with the highest quality.
fn negotiate(accept: &str) -> Result<&'static str, ApiError> {
    if accept.is_empty() {
        return Ok(JSON);
    }
    let takes = |clause: &Clause| ACCEPTED.into_iter().find(|ours| clause.is_plain() && clause.takes(ours));
    clauses(accept).iter().find_map(takes).ok_or_else(|| only_accepted(&ACCEPTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reviews_come_in() {
        for (accept, want) in [
            ("", Some(JSON)),
            ("*/*", Some(JSON)),
            ("application/vnd.kubernetes.protobuf,application/json", Some(PROTOBUF)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some(JSON)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", None),
            ("text/html", None),
        ] {
            assert_eq!(negotiate(accept).ok(), want, "{accept}");
        }
    }
}
