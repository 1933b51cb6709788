//! From an HTTP request to a raw connection: which protocol is asked for, the handshake headers, the refusals.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A response that says why the request was not upgraded.
pub type Refusal = Response<Full<Bytes>>;

/// An accepted upgrade: send the response, then await the session.
pub struct Upgrade<T> {
    pub response: Response<Full<Bytes>>,
    pub session: BoxFuture<'static, Result<T, StreamError>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the connection could not be upgraded")]
    Upgrade(#[from] hyper::Error),
    #[error("timed out waiting for client to create streams")]
    StreamsMissing,
    #[error("the connection was closed before all streams were there")]
    Closed,
}

pub(crate) const PROTOCOL_VERSION: &str = "x-stream-protocol-version";
const ACCEPTED_VERSIONS: &str = "x-accepted-stream-protocol-versions";

/// How the client wants to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    Spdy,
}

pub(crate) fn transport(headers: &HeaderMap) -> Result<Transport, Box<Refusal>> {
    let upgrade = text(headers, header::UPGRADE.as_str()).to_ascii_lowercase();
    let asked = headers.get_all(header::CONNECTION).iter().any(|v| v.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains("upgrade")));
    match upgrade.as_str() {
        "websocket" if asked => Ok(Transport::WebSocket),
        other if asked && other.contains("spdy/3.1") => Ok(Transport::Spdy),
        _ => Err(refuse(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request")),
    }
}

/// Is this any request for an upgrade at all?
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    transport(headers).is_ok()
}

/// Does the request ask for a WebSocket?
pub fn wants_websocket(headers: &HeaderMap) -> bool {
    matches!(transport(headers), Ok(Transport::WebSocket))
}

pub(crate) fn refuse(code: StatusCode, message: impl Into<String>) -> Box<Refusal> {
    let mut response = Response::new(Full::from(format!("{}\n", message.into())));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Box::new(response)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

fn listed(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
}

/// The WebSocket handshake (RFC 6455 §4.2): the first of the client's subprotocols that is in `accepted`, and "" when
/// the client names none.
pub(crate) fn websocket(headers: &HeaderMap, accepted: &[&'static str]) -> Result<(Response<Full<Bytes>>, &'static str), Box<Refusal>> {
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err(refuse(StatusCode::BAD_REQUEST, "unable to upgrade websocket connection: missing Sec-WebSocket-Key"));
    };
    let asked = listed(headers, "sec-websocket-protocol");
    let chosen = if asked.is_empty() { Some("") } else { asked.iter().find_map(|p| accepted.iter().find(|a| *a == p).copied()) };
    let Some(chosen) = chosen else {
        let why =
            format!("unable to upgrade websocket connection: requested protocol(s) are not supported: {asked:?}; supports {accepted:?}");
        return Err(refuse(StatusCode::FORBIDDEN, why));
    };
    let mut response = switching("websocket");
    let accept = derive_accept_key(key.as_bytes());
    if let Ok(value) = HeaderValue::from_str(&accept) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, value);
    }
    if !chosen.is_empty() {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    }
    Ok((response, chosen))
}

/// The SPDY handshake with its protocol header; "" when the client names none and `default_ok`.
pub(crate) fn spdy(
    headers: &HeaderMap,
    accepted: &[&'static str],
    default_ok: bool,
) -> Result<(Response<Full<Bytes>>, &'static str), Box<Refusal>> {
    let asked = listed(headers, PROTOCOL_VERSION);
    let mut response = switching("SPDY/3.1");
    if asked.is_empty() {
        if default_ok {
            return Ok((response, ""));
        }
        let why = format!("unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {} headers", headers.len());
        return Err(refuse(StatusCode::BAD_REQUEST, why));
    }
    let Some(chosen) = asked.iter().find_map(|p| accepted.iter().find(|a| *a == p).copied()) else {
        let why = format!("unable to upgrade: unable to negotiate protocol: client supports {asked:?}, server accepts {accepted:?}");
        let mut refusal = refuse(StatusCode::FORBIDDEN, why);
        for version in accepted {
            refusal.headers_mut().append(ACCEPTED_VERSIONS, HeaderValue::from_static(version));
        }
        return Err(refusal);
    };
    response.headers_mut().insert(PROTOCOL_VERSION, HeaderValue::from_static(chosen));
    Ok((response, chosen))
}

fn switching(protocol: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    response
}

pub(crate) fn taken<B>(request: &mut Request<B>) -> OnUpgrade {
    hyper::upgrade::on(request)
}
