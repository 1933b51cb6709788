//! An upgraded connection, passed on: the kubelet (or a pod) answers the client's upgrade, and bytes flow both ways until one side is done.
//! What they speak (SPDY/3.1, WebSocket, SPDY inside WebSocket) is theirs alone.
//!
//! Only a switch to the protocol that was asked for becomes a tunnel (the fault class of CVE-2018-1002105: a tunnel left by a failed upgrade
//! is a connection with our credentials), and a redirect is refused: whoever follows it would take the client's credentials along.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tiphys_meta::ApiError;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::dial::{Trust, boxed};
use super::frames;
use super::kubelet::Kubelet;
use crate::body::{self, Answered, Body};
use crate::chain::{Call, Door};
use crate::errors::DoorError;

/// Headers of one hop (RFC 9110 §7.6.1), which a proxy keeps to itself.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    headers.contains_key(header::UPGRADE) && connection.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case("upgrade"))
}

pub(crate) fn without_hop_by_hop(headers: &HeaderMap) -> HeaderMap {
    let mut out = headers.clone();
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|v| v.trim().to_ascii_lowercase())
        .collect();
    for name in HOP_BY_HOP.iter().copied().chain(named.iter().map(String::as_str)) {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            out.remove(name);
        }
    }
    out
}

/// To a kubelet's streaming path.
pub(super) async fn through(door: &Arc<Door>, call: &mut Call, kubelet: &Kubelet, path: &str) -> Result<Answered, DoorError> {
    if !wants_upgrade(&call.parts.headers) {
        return Err(ApiError::bad_request("Upgrade request required").into());
    }
    upgrade(door, call, &kubelet.host, kubelet.port, Trust::Kubelet, path).await
}

/// Sends the client's upgrade on, and joins the two connections if it is granted.
pub(super) async fn upgrade(
    door: &Arc<Door>,
    call: &mut Call,
    host: &str,
    port: u16,
    trust: Trust,
    path: &str,
) -> Result<Answered, DoorError> {
    let authority = Kubelet { host: host.to_owned(), port };
    let (request, from_client) = prepare(call, path, &authority.authority())?;
    let response = door.streams.dialer.send(host, port, trust, request).await.map_err(|e| authority.unreachable(path, &e))?;
    finish(door, &call.parts.headers, from_client, response)
}

/// The client's upgrade as it is sent on, and the client's end of what may become a tunnel.
pub(crate) fn prepare(call: &mut Call, path: &str, authority: &str) -> Result<(Request<Body>, OnUpgrade), DoorError> {
    let from_client = call.parts.extensions.remove::<OnUpgrade>();
    let from_client = from_client.ok_or_else(|| ApiError::bad_request("Upgrade request required"))?;
    let mut request = Request::new(body::empty());
    *request.method_mut() = call.parts.method.clone();
    *request.uri_mut() = path.parse().map_err(|_| ApiError::bad_request(format!("bad path {path:?}")))?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = without_hop_by_hop(&call.parts.headers);
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, http::HeaderValue::from_static("Upgrade"));
    if let Some(upgrade) = call.parts.headers.get(header::UPGRADE) {
        headers.insert(header::UPGRADE, upgrade.clone());
    }
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::AUTHORIZATION);
    if let Ok(host) = authority.parse() {
        headers.insert(header::HOST, host);
    }
    Ok((request, from_client))
}

/// Joins the two connections if the upgrade was granted; else the answer goes to the client as it is.
pub(crate) fn finish(
    door: &Arc<Door>,
    asked: &HeaderMap,
    from_client: OnUpgrade,
    mut response: Response<Incoming>,
) -> Result<Answered, DoorError> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        refuse_redirect(response.status())?;
        let (mut parts, body) = response.into_parts();
        parts.headers = without_hop_by_hop(&parts.headers);
        return Ok(Response::from_parts(parts, boxed(body)));
    }
    verify_switch(asked, response.headers())?;
    let from_server = hyper::upgrade::on(&mut response);
    let mut granted = Response::new(body::empty());
    *granted.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *granted.headers_mut() = response.headers().clone();
    let framed = granted.headers().get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    tokio::spawn(join(from_client, from_server, framed, door.stop.clone()));
    Ok(granted)
}

/// The protocol that was switched to must be one that the client asked for.
fn verify_switch(asked: &HeaderMap, answered: &HeaderMap) -> Result<(), ApiError> {
    let protocols = |headers: &HeaderMap| -> Vec<String> {
        let all = headers.get_all(header::UPGRADE).iter().filter_map(|v| v.to_str().ok());
        all.flat_map(|v| v.split(',')).map(|v| v.trim().to_ascii_lowercase()).filter(|v| !v.is_empty()).collect()
    };
    let (asked, answered) = (protocols(asked), protocols(answered));
    if !answered.is_empty() && answered.iter().all(|p| asked.contains(p)) {
        return Ok(());
    }
    Err(bad_gateway(format!("the backend switched to {answered:?}, which was not asked for ({asked:?})")))
}

fn refuse_redirect(status: StatusCode) -> Result<(), ApiError> {
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        return Err(bad_gateway("the backend attempted to redirect this request, which is not permitted".into()));
    }
    Ok(())
}

fn bad_gateway(message: String) -> ApiError {
    let mut error = ApiError::new(tiphys_meta::Reason::Unknown, message);
    error.code = StatusCode::BAD_GATEWAY.as_u16();
    error
}

async fn join(client: OnUpgrade, server: OnUpgrade, framed: bool, stop: CancellationToken) {
    let both = async {
        let (client, server) = tokio::try_join!(client, server).map_err(std::io::Error::other)?;
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        if !framed {
            return tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop);
        }
        let ((from_client, to_client), (from_server, to_server)) = (tokio::io::split(client), tokio::io::split(server));
        tokio::try_join!(frames::pass(from_server, to_client), pass(from_client, to_server)).map(drop)
    };
    tokio::select! {
        () = stop.cancelled() => {}
        ended = both => if let Err(error) = ended {
            tracing::debug!(%error, "a stream ended");
        }
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_becomes_a_tunnel() {
        let upgrade = |value: &'static str| HeaderMap::from_iter([(header::UPGRADE, http::HeaderValue::from_static(value))]);
        for (asked, answered, good) in [
            ("websocket", upgrade("websocket"), true),
            ("SPDY/3.1", upgrade("spdy/3.1"), true),
            ("websocket", upgrade("h2c"), false),
            ("websocket", HeaderMap::new(), false),
        ] {
            assert_eq!(verify_switch(&upgrade(asked), &answered).is_ok(), good, "{asked} {answered:?}");
        }
        assert!(refuse_redirect(StatusCode::FOUND).is_err());
        assert!(refuse_redirect(StatusCode::NOT_MODIFIED).is_ok() && refuse_redirect(StatusCode::BAD_REQUEST).is_ok());
    }

    #[test]
    fn hop_by_hop_headers_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "Upgrade, X-Mine"), ("upgrade", "websocket"), ("x-mine", "1"), ("x-other", "2"), ("te", "trailers")]
        {
            headers.insert(HeaderName::from_static(name), value.parse().expect("value"));
        }
        assert!(wants_upgrade(&headers));
        let left = without_hop_by_hop(&headers);
        assert_eq!(left.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }
}
