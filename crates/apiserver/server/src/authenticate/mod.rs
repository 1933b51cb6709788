//! Who asks? A vouching proxy's headers, then the client certificate, then a bearer token, then nobody ("system:anonymous").

pub mod bearer;
pub mod claims;
pub mod config;
pub mod issuers;
pub mod oidc;
pub mod x509;

use std::sync::Arc;

use http::HeaderMap;
use tiphys_registry::UserInfo;

use crate::config::{Anonymous, RequestHeader};
pub use bearer::Bearer;
pub(crate) use bearer::same;
pub use x509::{Certificates, Peer};

pub const ANONYMOUS: &str = "system:anonymous";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Credentials were shown and are not good, or none were shown where some are needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rejected(pub String);

pub struct Authentication {
    pub certificates: Certificates,
    pub bearer: Arc<Bearer>,
    request_header: Option<RequestHeader>,
    anonymous: Anonymous,
}

impl Authentication {
    pub fn new(certificates: Certificates, bearer: Arc<Bearer>, request_header: Option<RequestHeader>, anonymous: Anonymous) -> Self {
        Authentication { certificates, bearer, request_header, anonymous }
    }

    /// The user of a request that came over a socket. Credentials are taken out of `headers`, so that nothing behind passes them on.
    pub fn identify(&self, peer: &Peer, headers: &mut HeaderMap, path: &str) -> Result<Arc<UserInfo>, Rejected> {
        let token = take_bearer(headers);
        if let Some(user) = self.vouched(peer, headers) {
            return Ok(Arc::new(authenticated(user)));
        }
        let mut problems = Vec::new();
        match &peer.client {
            Some(Ok(user)) => return Ok(user.clone()),
            Some(Err(problem)) => problems.push(problem.clone()),
            None => {}
        }
        if let Some(token) = token {
            match self.bearer.identify(&token, &[]) {
                Ok(Some(found)) => return Ok(found.user),
                Ok(None) => problems.push("invalid bearer token".to_owned()),
                Err(problem) => problems.push(problem),
            }
            return Err(Rejected(problems.join("; ")));
        }
        if problems.is_empty() && self.anonymous.allows(path) {
            return Ok(Arc::new(UserInfo::new(ANONYMOUS, &[UNAUTHENTICATED])));
        }
        Err(Rejected(if problems.is_empty() { "no credentials".into() } else { problems.join("; ") }))
    }

    /// The user that an authenticating proxy names in its headers; only a proxy whose certificate says so is believed.
    fn vouched(&self, peer: &Peer, headers: &mut HeaderMap) -> Option<UserInfo> {
        let rules = self.request_header.as_ref()?;
        let proxy = peer.front_proxy.as_deref()?;
        if !rules.allowed_names.is_empty() && !rules.allowed_names.iter().any(|n| n == proxy) {
            return None;
        }
        let mut user = UserInfo::new(take_all(headers, &rules.username_headers).into_iter().find(|n| !n.is_empty())?, &[]);
        user.uid = take_all(headers, &rules.uid_headers).into_iter().next().unwrap_or_default();
        user.groups = take_all(headers, &rules.group_headers);
        let prefixes: Vec<String> = rules.extra_header_prefixes.iter().map(|p| p.to_ascii_lowercase()).collect();
        let extras: Vec<http::HeaderName> =
            headers.keys().filter(|name| prefixes.iter().any(|p| name.as_str().starts_with(p.as_str()))).cloned().collect();
        for name in extras {
            let Some(key) = prefixes.iter().find_map(|p| name.as_str().strip_prefix(p.as_str())) else { continue };
            let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
            let values = take_all(headers, &[name.as_str().to_owned()]);
            user.extra.entry(key).or_default().extend(values);
        }
        Some(user)
    }
}

fn take_all(headers: &mut HeaderMap, names: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    for name in names {
        out.extend(headers.get_all(name.as_str()).iter().filter_map(|v| v.to_str().ok().map(str::to_owned)));
        headers.remove(name.as_str());
    }
    out
}

/// The token of `Authorization: Bearer …`, or the one that browsers send among the WebSocket protocols.
fn take_bearer(headers: &mut HeaderMap) -> Option<String> {
    if let Some(value) = headers.remove(http::header::AUTHORIZATION) {
        let text = value.to_str().ok()?;
        let (scheme, token) = text.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned()).filter(|t| !t.is_empty());
    }
    take_protocol_bearer(headers)
}

/// `Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.TOKEN, v4.channel.k8s.io`: the token goes, the real protocols stay.
fn take_protocol_bearer(headers: &mut HeaderMap) -> Option<String> {
    use base64::Engine as _;
    const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
    let all = headers.get(http::header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.to_owned();
    let (tokens, rest): (Vec<&str>, Vec<&str>) = all.split(',').map(str::trim).partition(|p| p.starts_with(PREFIX));
    let encoded = tokens.first()?.strip_prefix(PREFIX)?;
    let token = String::from_utf8(base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?;
    match http::HeaderValue::from_str(&rest.join(", ")) {
        Ok(value) if !rest.is_empty() => headers.insert(http::header::SEC_WEBSOCKET_PROTOCOL, value),
        _ => headers.remove(http::header::SEC_WEBSOCKET_PROTOCOL),
    };
    Some(token)
}

/// Everyone who is known is in `system:authenticated`, save who is expressly anonymous.
pub fn authenticated(mut user: UserInfo) -> UserInfo {
    if user.name != ANONYMOUS && !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens_are_found_and_taken_away() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer abc".parse().expect("value"));
        assert_eq!(take_bearer(&mut headers).as_deref(), Some("abc"));
        assert!(headers.is_empty());
        headers.insert("authorization", "Basic abc".parse().expect("value"));
        assert_eq!(take_bearer(&mut headers), None);
        headers.insert("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io".parse().expect("value"));
        assert_eq!(take_bearer(&mut headers).as_deref(), Some("abc"));
        assert_eq!(headers["sec-websocket-protocol"], "v5.channel.k8s.io");
    }
}
