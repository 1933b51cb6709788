//! Proxying of plain HTTP to a pod, a service's endpoint or a node. The path behind `/proxy`, the query and the body go as they came.
//!
//! Redirects and the links of HTML pages are rewritten, so that they stay behind the proxy. Absent: links inside compressed pages and in style sheets.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use http_body::Body as _;
use tiphys_meta::{ApiError, Reason};

use super::dial::boxed;
use super::html;
use super::kubelet::Kubelet;
use super::target::Target;
use super::tunnel::{upgrade, wants_upgrade, without_hop_by_hop};
use crate::body::{self, Answered, Body};
use crate::chain::{Call, Door};
use crate::errors::DoorError;

pub(super) async fn forward(door: &Arc<Door>, call: &mut Call, target: Target) -> Result<Answered, DoorError> {
    if call.info.rest.is_empty() && matches!(call.parts.method, Method::GET | Method::HEAD) && !wants_upgrade(&call.parts.headers) {
        return Ok(to_slash(call));
    }
    let rest = if call.info.rest.is_empty() { "/" } else { &call.info.rest };
    let path = match call.parts.uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    let path = path.as_str();
    if wants_upgrade(&call.parts.headers) {
        return upgrade(door, call, &target.host, target.port, target.trust, path).await;
    }
    let authority = Kubelet { host: target.host.clone(), port: target.port }.authority();
    let mut request = Request::new(call.body.take().unwrap_or_else(body::empty));
    *request.method_mut() = call.parts.method.clone();
    *request.uri_mut() = path.parse().map_err(|_| ApiError::bad_request(format!("bad path {path:?}")))?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = forwarded(call, &authority);
    let sent = door.streams.dialer.send(&target.host, target.port, target.trust, request).await;
    let response = sent.map_err(|e| ApiError::new(Reason::ServiceUnavailable, format!("error trying to reach service: {e}")))?;
    let (mut parts, incoming) = response.into_parts();
    parts.headers = without_hop_by_hop(&parts.headers);
    stay_behind_the_proxy(&mut parts.headers, prefix(call), &authority);
    parts.version = Version::default();
    with_links(parts, boxed(incoming), prefix(call), &authority).await
}

/// Relative links of a page need the slash: `…/proxy` is sent to `…/proxy/`.
fn to_slash(call: &Call) -> Answered {
    let query = call.parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let mut response = body::answer(301, "text/plain; charset=utf-8", body::empty());
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", call.parts.uri.path())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// The path up to and with `/proxy`.
fn prefix(call: &Call) -> &str {
    let path = call.parts.uri.path();
    path.strip_suffix(call.info.rest.as_str()).unwrap_or(path)
}

fn forwarded(call: &Call, authority: &str) -> HeaderMap {
    let mut headers = without_hop_by_hop(&call.parts.headers);
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set("x-forwarded-uri", call.parts.uri.path());
    set("x-forwarded-proto", "https");
    let host = call.header(header::HOST);
    let host = if host.is_empty() { call.parts.uri.authority().map_or("", |a| a.as_str()) } else { host };
    set("x-forwarded-host", host);
    if let crate::chain::Origin::Socket(peer) = &call.origin
        && !peer.ip.is_empty()
    {
        set("x-forwarded-for", &peer.ip);
    }
    set("host", authority);
    // Links can only be rewritten in plain text.
    headers.remove(header::ACCEPT_ENCODING);
    headers
}

/// A redirect within the target leads to the same place as seen from outside.
fn stay_behind_the_proxy(headers: &mut HeaderMap, prefix: &str, authority: &str) {
    let location = headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
    let moved = location.and_then(|l| html::behind(l, prefix, authority)).and_then(|l| HeaderValue::from_str(&l).ok());
    if let Some(moved) = moved {
        headers.insert(header::LOCATION, moved);
    }
}

/// Pages up to this size have their links rewritten; larger ones pass as they are.
const LARGEST_PAGE: u64 = 2 * 1024 * 1024;

fn is_page(headers: &HeaderMap, length: Option<u64>) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    kind.split(';').next().is_some_and(|k| k.trim().eq_ignore_ascii_case("text/html"))
        && !headers.contains_key(header::CONTENT_ENCODING)
        && length.is_some_and(|l| l <= LARGEST_PAGE)
}

/// A page whose length is not known beforehand passes as it is: it may never end.
async fn with_links(mut parts: http::response::Parts, body: Body, prefix: &str, authority: &str) -> Result<Answered, DoorError> {
    if body.is_end_stream() || !is_page(&parts.headers, body.size_hint().exact()) {
        return Ok(Response::from_parts(parts, body));
    }
    let bytes = body::collect(body).await?;
    let Ok(page) = std::str::from_utf8(&bytes) else { return Ok(Response::from_parts(parts, body::full(bytes))) };
    let page = html::rewrite(page, prefix, authority);
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.len()));
    Ok(Response::from_parts(parts, body::full(page)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_behind_the_proxy() {
        let prefix = "/api/v1/namespaces/a/pods/b/proxy";
        for (location, want) in [
            ("/x", "/api/v1/namespaces/a/pods/b/proxy/x"),
            ("http://10.0.0.1:80/y?q", "/api/v1/namespaces/a/pods/b/proxy/y?q"),
            ("http://elsewhere/z", "http://elsewhere/z"),
            ("//elsewhere/z", "//elsewhere/z"),
            ("relative", "relative"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, location.parse().expect("value"));
            stay_behind_the_proxy(&mut headers, prefix, "10.0.0.1:80");
            assert_eq!(headers[header::LOCATION], want);
        }
    }
}
