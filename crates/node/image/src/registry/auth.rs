//! Who asks: the registries' challenges (RFC 7235, distribution's token authentication) and the credentials that answer them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::error::{ImageError, Result};
use crate::registry::http::{HttpClient, Outgoing, read_all};

/// What a pull secret holds; the same fields as the CRI's `AuthConfig`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// `username:password` in base64.
    pub auth: String,
    /// If set, the host that they are for.
    pub server_address: String,
    /// A refresh token.
    pub identity_token: String,
    /// A bearer token, used as it is.
    pub registry_token: String,
}

impl std::fmt::Debug for Credentials {
    /// Secrets do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(crate) fn basic(&self) -> Option<(String, String)> {
        if !self.username.is_empty() {
            return Some((self.username.clone(), self.password.clone()));
        }
        let decoded = STANDARD.decode(self.auth.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (name, password) = text.split_once(':')?;
        // docker pads old entries with zero bytes.
        Some((name.to_owned(), password.trim_end_matches('\0').to_owned()))
    }

    /// Whether these are for a registry of this host.
    pub(crate) fn are_for(&self, host: &str) -> bool {
        let address = self.server_address.trim_start_matches("https://").trim_start_matches("http://");
        let address = address.split('/').next().unwrap_or_default();
        address.is_empty() || address == host || (address.ends_with("docker.io") && host == "docker.io")
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

/// The strongest challenge in a WWW-Authenticate header.
pub(crate) fn parse_challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let parameters = parameters(rest);
    let get = |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
    Some(Challenge::Bearer { realm: get("realm")?, service: get("service").unwrap_or_default(), scope: get("scope").unwrap_or_default() })
}

/// `key="value",key=value`; commas inside quotes belong to the value.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_owned();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((key, value.trim().to_owned()));
        rest = after;
    }
    found
}

pub(crate) fn basic_header(name: &str, password: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))).ok()
}

fn bearer_header(token: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ImageError::Unavailable("the token is not printable".into()))
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// The Authorization header that answers a challenge; none when there is nothing to answer it with.
pub(crate) async fn answer(
    client: &HttpClient,
    challenge: &Challenge,
    default_scope: &str,
    credentials: Option<&Credentials>,
) -> Result<Option<HeaderValue>> {
    if let Some(token) = credentials.map(|credentials| &credentials.registry_token).filter(|token| !token.is_empty()) {
        return bearer_header(token).map(Some);
    }
    match challenge {
        Challenge::Basic => Ok(credentials.and_then(Credentials::basic).and_then(|(name, password)| basic_header(&name, &password))),
        Challenge::Bearer { realm, service, scope } => {
            let scope = if scope.is_empty() { default_scope } else { scope };
            let request = token_request(realm, service, scope, credentials)?;
            fetch_token(client, request, credentials.is_none()).await.map(Some)
        }
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn token_request(realm: &str, service: &str, scope: &str, credentials: Option<&Credentials>) -> Result<Outgoing> {
    if let Some(refresh) = credentials.map(|credentials| &credentials.identity_token).filter(|token| !token.is_empty()) {
        let mut request = Outgoing::get(realm)?;
        request.method = Method::POST;
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let (refresh, service, scope) = (encode(refresh), encode(service), encode(scope));
        let form = format!("grant_type=refresh_token&client_id=tiphys&refresh_token={refresh}&service={service}&scope={scope}");
        request.body = Bytes::from(form);
        return Ok(request);
    }
    let scopes: String = scope.split(' ').filter(|scope| !scope.is_empty()).map(|scope| format!("&scope={}", encode(scope))).collect();
    let joint = if realm.contains('?') { '&' } else { '?' };
    let mut request = Outgoing::get(&format!("{realm}{joint}service={}{scopes}", encode(service)))?;
    if let Some(header) = credentials.and_then(Credentials::basic).and_then(|(name, password)| basic_header(&name, &password)) {
        request.headers.insert(AUTHORIZATION, header);
    }
    Ok(request)
}

async fn fetch_token(client: &HttpClient, request: Outgoing, anonymous: bool) -> Result<HeaderValue> {
    let (method, uri) = (request.method.clone(), request.uri.clone());
    let response = client.send(request).await?;
    let status = response.status();
    if !status.is_success() {
        let kind = if anonymous { "anonymous" } else { "oauth" };
        let text = format!("failed to authorize: failed to fetch {kind} token: unexpected status from {method} request to {uri}: {status}");
        return Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ImageError::Unauthorized(text),
            _ => ImageError::Unavailable(text),
        });
    }
    let body = read_all(response, 1 << 20).await?;
    let token: Token = serde_json::from_slice(&body).map_err(|error| ImageError::Unavailable(format!("token from {uri}: {error}")))?;
    bearer_header(if token.token.is_empty() { &token.access_token } else { &token.token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let bearer = |realm: &str, service: &str, scope: &str| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() })
        };
        let expected = bearer("https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull,push");
        assert_eq!(parse_challenge(header), expected);
        assert_eq!(parse_challenge("bearer service=s, realm=r"), bearer("r", "s", ""));
        assert_eq!(parse_challenge(r#"Basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(parse_challenge("Negotiate"), None);
        assert_eq!(parse_challenge("Bearer service=s"), None);
    }

    #[test]
    fn credentials_have_several_forms() {
        let plain = Credentials { username: "u".into(), password: "p:q".into(), ..Credentials::default() };
        let packed = Credentials { auth: STANDARD.encode("u:p:q"), ..Credentials::default() };
        for credentials in [plain, packed] {
            assert_eq!(credentials.basic(), Some(("u".into(), "p:q".into())));
        }
        let bound = Credentials { server_address: "https://index.docker.io/v1/".into(), ..Credentials::default() };
        assert!(bound.are_for("docker.io") && !bound.are_for("quay.io") && Credentials::default().are_for("quay.io"));
    }
}
