//! Bodies of requests and answers, whatever they come from.

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tiphys_registry::{Answer, Body as AnswerBody, Document, WatchStream};
use tiphys_schema::codec;

use crate::errors::DoorError;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// What the server answers with; it may come in pieces, without an end.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Request = http::Request<Body>;
pub(crate) type Answered = Response<Body>;

/// Requests larger than this are refused (upstream's MaxRequestBodyBytes).
pub(crate) const MAX_REQUEST_BYTES: usize = 3 * 1024 * 1024;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

pub(crate) fn streaming<S>(chunks: S) -> Body
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    StreamBody::new(chunks.map(|chunk| Ok::<_, BoxError>(Frame::data(chunk)))).boxed_unsync()
}

/// Reads a whole request body. A body of one frame is not copied.
pub(crate) async fn collect(body: Body) -> Result<Bytes, DoorError> {
    collect_up_to(body, MAX_REQUEST_BYTES).await
}

pub(crate) async fn collect_up_to(mut body: Body, limit: usize) -> Result<Bytes, DoorError> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|e| DoorError::Body(e.to_string()))?.into_data() else { continue };
        match &first {
            None => first = Some(data),
            Some(head) => {
                if rest.is_empty() {
                    rest.extend_from_slice(head);
                }
                rest.extend_from_slice(&data);
            }
        }
        if first.as_ref().map_or(0, Bytes::len).max(rest.len()) > limit {
            return Err(DoorError::TooLarge(limit));
        }
    }
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}

/// A body that holds something until it is read or given up.
pub(crate) fn guarded<G: Send + 'static>(body: Body, guard: G) -> Body {
    let chunks = stream::unfold((body, guard), |(mut body, guard)| async move {
        let frame = body.frame().await?;
        Some((frame, (body, guard)))
    });
    StreamBody::new(chunks).boxed_unsync()
}

pub(crate) fn answer(code: u16, content_type: &str, body: Body) -> Answered {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

pub(crate) const YAML: &str = "application/yaml";

/// A document in JSON as YAML. Nobody who counts cycles asks for it.
pub(crate) fn yaml(json: &[u8]) -> Bytes {
    match serde_json::from_slice(json) {
        Ok(tree) => codec::yaml::print(&tree).into(),
        Err(_) => Bytes::copy_from_slice(json),
    }
}

pub(crate) fn json(code: u16, value: &serde_json::Value) -> Answered {
    answer(code, "application/json", full(value.to_string()))
}

pub(crate) fn text(code: u16, text: impl Into<Bytes>) -> Answered {
    answer(code, "text/plain; charset=utf-8", full(text.into()))
}

/// `Warning: 299 - "…"` (RFC 7234 §5.5), one for each text.
pub(crate) fn add_warnings(response: &mut Answered, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

pub(crate) fn with_warnings(mut response: Answered, warnings: &[String]) -> Answered {
    add_warnings(&mut response, warnings);
    response
}

/// The registry's answer as it goes over the wire. A watch ends by itself when the registry's tasks are told to, which are the server's.
pub(crate) fn from_registry(answered: Answer) -> Answered {
    match answered {
        Answer::Object(Document { code, content_type, body, warnings }) => {
            let body = match body {
                body if content_type == YAML => full(yaml(&body.into_bytes())),
                AnswerBody::Full(bytes) => full(bytes),
                AnswerBody::Chunks(chunks) => streaming(stream::iter(chunks)),
            };
            let mut response = answer(code, &content_type, body);
            add_warnings(&mut response, &warnings);
            response
        }
        Answer::Watch(watch) => {
            let (content_type, warnings) = (watch.content_type.clone(), watch.warnings.clone());
            let mut response = answer(200, &content_type, streaming(frames(watch)));
            add_warnings(&mut response, &warnings);
            response
        }
    }
}

fn frames(watch: WatchStream) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(watch, |mut watch| async move { watch.next_frames().await.map(|bytes| (bytes, watch)) })
}
