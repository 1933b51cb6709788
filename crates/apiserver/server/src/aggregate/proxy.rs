//! A request on its way to the server that answers for its group.
//!
//! The user goes along in headers that only this server may set: what a client sends under those names is dropped first. A redirect is
//! refused, since whoever follows it would carry credentials elsewhere (CVE-2022-3172).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tiphys_registry::UserInfo;

use super::{Aggregator, Remote};
use crate::body::{self, Answered, Body};
use crate::chain::{Call, Door};
use crate::errors::DoorError;
use crate::streams::tunnel::{self, without_hop_by_hop};
use crate::streams::{boxed, endpoint_of_service};

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

pub(crate) async fn forward(door: &Arc<Door>, call: &mut Call, remote: &Remote) -> Result<Answered, DoorError> {
    if !remote.is_available() {
        return Ok(body::text(503, "service unavailable\n"));
    }
    let headers = outgoing(&call.parts.headers, &call.user);
    let path = call.parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    if tunnel::wants_upgrade(&call.parts.headers) {
        let (mut request, from_client) = tunnel::prepare(call, &path, &remote.server_name())?;
        set_user(request.headers_mut(), &call.user);
        return match door.aggregator.send(remote, request).await {
            Ok(response) => tunnel::finish(door, &call.parts.headers, from_client, response),
            Err(why) => Ok(body::text(503, format!("{why}\n"))),
        };
    }
    let mut request = Request::new(call.body.take().unwrap_or_else(body::empty));
    *request.method_mut() = call.parts.method.clone();
    *request.uri_mut() = path.parse().map_err(|e| tiphys_meta::ApiError::bad_request(format!("{path}: {e}")))?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    if let Ok(host) = HeaderValue::from_str(&remote.server_name()) {
        request.headers_mut().insert(header::HOST, host);
    }
    match door.aggregator.send(remote, request).await {
        Ok(response) => Ok(incoming(response)),
        Err(why) => {
            tracing::info!(api_service = remote.name, why, "an aggregated server does not answer");
            Ok(body::text(503, format!("{why}\n")))
        }
    }
}

fn incoming(response: Response<Incoming>) -> Answered {
    if response.status().is_redirection() && response.headers().contains_key(header::LOCATION) {
        return body::text(502, "the backend attempted to redirect this request, which is not permitted\n");
    }
    let (mut parts, said) = response.into_parts();
    parts.headers = without_hop_by_hop(&parts.headers);
    parts.version = Version::default();
    Response::from_parts(parts, boxed(said))
}

fn outgoing(from_client: &HeaderMap, user: &UserInfo) -> HeaderMap {
    let mut headers = without_hop_by_hop(from_client);
    headers.remove(header::AUTHORIZATION);
    set_user(&mut headers, user);
    headers
}

/// What a header name may not hold, and the percent sign itself.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'(')
    .add(b')')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'{')
    .add(b'}');

pub(super) fn set_user(headers: &mut HeaderMap, user: &UserInfo) {
    let claimed: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    claimed.into_iter().for_each(|name| drop(headers.remove(name)));
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    user.groups.iter().for_each(|group| add(GROUP, group));
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", utf8_percent_encode(key, UNSAFE));
        values.iter().for_each(|value| add(&name, value));
    }
}

impl Aggregator {
    pub(super) async fn send(&self, remote: &Remote, request: Request<Body>) -> Result<Response<Incoming>, String> {
        let tls = remote.tls.clone()?;
        let (host, port) =
            endpoint_of_service(self.objects.as_ref(), &remote.namespace, &remote.service, remote.port).map_err(|e| e.message)?;
        self.dialer.send_tls(&host, port, &remote.server_name(), tls, request).await.map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_who_we_say() {
        let mut from_client = HeaderMap::new();
        for (name, value) in
            [("x-remote-user", "admin"), ("x-remote-group", "system:masters"), ("x-remote-extra-a", "1"), ("accept", "x"), ("te", "y")]
        {
            from_client.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut user = UserInfo::new("ann", &["g1", "g2"]);
        user.extra.insert("acme.com/x".into(), vec!["2".into()]);
        let headers = outgoing(&from_client, &user);
        assert_eq!(headers[USER], "ann");
        assert_eq!(headers.get_all(GROUP).iter().collect::<Vec<_>>(), ["g1", "g2"]);
        assert_eq!(headers["x-remote-extra-acme.com%2fx"], "2");
        assert!(!headers.contains_key("x-remote-extra-a") && !headers.contains_key("te"));
        assert_eq!(headers["accept"], "x");
    }
}
