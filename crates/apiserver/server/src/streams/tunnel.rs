//! An upgraded connection, passed on: the kubelet (or a pod) answers the client's upgrade, and bytes flow both ways until one side is done.
//! What they speak (SPDY/3.1, WebSocket, SPDY inside WebSocket) is theirs alone.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tiphys_meta::ApiError;
use tokio_util::sync::CancellationToken;

use super::dial::{Trust, boxed};
use super::kubelet::Kubelet;
use crate::body::{self, Answered};
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

pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    headers.contains_key(header::UPGRADE) && connection.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case("upgrade"))
}

pub(super) fn without_hop_by_hop(headers: &HeaderMap) -> HeaderMap {
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
    if let Ok(host) = authority.authority().parse() {
        headers.insert(header::HOST, host);
    }
    let mut response = door.streams.dialer.send(host, port, trust, request).await.map_err(|e| authority.unreachable(path, &e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut parts, body) = response.into_parts();
        parts.headers = without_hop_by_hop(&parts.headers);
        return Ok(Response::from_parts(parts, boxed(body)));
    }
    let from_server = hyper::upgrade::on(&mut response);
    let mut granted = Response::new(body::empty());
    *granted.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *granted.headers_mut() = response.headers().clone();
    tokio::spawn(join(from_client, from_server, door.stop.clone()));
    Ok(granted)
}

async fn join(client: OnUpgrade, server: OnUpgrade, stop: CancellationToken) {
    let both = async {
        let (client, server) = tokio::try_join!(client, server).map_err(std::io::Error::other)?;
        tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await
    };
    tokio::select! {
        () = stop.cancelled() => {}
        ended = both => if let Err(error) = ended {
            tracing::debug!(%error, "a stream ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
