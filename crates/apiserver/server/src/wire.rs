//! Bodies of the few kinds that the door answers itself (reviews, token requests): JSON, YAML or protobuf in and out.

use bytes::Bytes;
use http::header;
use serde_json::Value;
use tiphys_meta::{ApiError, Gvk, Reason};
use tiphys_schema::Facts;
use tiphys_schema::codec::{DecodeError, Strictness, json, proto, yaml};

use crate::body::{self, Answered};
use crate::chain::Call;
use crate::errors::DoorError;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const YAML: &str = "application/yaml";

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
        "" | "application/json" => json::decode(kind, bytes, Strictness::Ignore).map_err(bad)?.object,
        _ => {
            let accepted = ["application/json", YAML, PROTOBUF].join(", ");
            let message = format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
            return Err(ApiError::new(Reason::UnsupportedMediaType, message));
        }
    };
    object["apiVersion"] = gvk.api_version().into();
    object["kind"] = gvk.kind.as_ref().into();
    Ok(object)
}

/// The object in what the client accepts; JSON where it accepts nothing that we have.
pub(crate) fn encode(call: &Call, code: u16, gvk: &Gvk, object: &Value) -> Result<Answered, DoorError> {
    let accept = call.header(header::ACCEPT);
    let wants_proto = accept.split(',').next().is_some_and(|first| first.trim().starts_with(PROTOBUF));
    if !wants_proto {
        return Ok(body::answer(code, "application/json", body::full(json::encode(object))));
    }
    let bytes = proto::encode(gvk, object).map_err(|e| DoorError::Api(ApiError::internal(e)))?;
    Ok(body::answer(code, PROTOBUF, body::full(bytes)))
}
