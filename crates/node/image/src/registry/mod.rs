//! The pulling half of the distribution protocol: manifests and blobs, from mirrors or the registry itself.

mod auth;
pub(crate) mod hosts;
pub(crate) mod http;

use std::collections::HashMap;

use ::http::header::{ACCEPT, AUTHORIZATION, HeaderName, RANGE, WWW_AUTHENTICATE};
use ::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use hyper::body::Incoming;
use parking_lot::Mutex;

pub use self::auth::Credentials;
use self::hosts::{Endpoint, Hosts};
use self::http::{HttpClient, Outgoing, Trust, read_all};
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::reference::Reference;
use crate::spec::{DOCKER_LIST, DOCKER_MANIFEST, LARGEST_DOCUMENT, OCI_INDEX, OCI_MANIFEST};

/// One connection pool per trust, kept for the life of the store.
pub(crate) struct Registries {
    hosts: Hosts,
    clients: Mutex<HashMap<Trust, HttpClient>>,
}

impl Registries {
    pub(crate) fn new(hosts: Hosts) -> Self {
        Registries { hosts, clients: Mutex::default() }
    }

    fn client(&self, trust: &Trust) -> Result<HttpClient> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(trust) {
            return Ok(client.clone());
        }
        let client = HttpClient::new(trust)?;
        clients.insert(trust.clone(), client.clone());
        Ok(client)
    }

    /// A repository to pull from, with credentials if they are meant for it.
    pub(crate) fn repository(&self, reference: &Reference, credentials: Option<&Credentials>) -> Result<Repository> {
        let sources = self.hosts.endpoints(&reference.host)?.into_iter().map(|endpoint| {
            let client = self.client(&endpoint.trust)?;
            Ok(Source { endpoint, client, authorization: Mutex::default() })
        });
        let credentials = credentials.filter(|credentials| credentials.are_for(&reference.host)).cloned();
        Ok(Repository { reference: reference.clone(), sources: sources.collect::<Result<_>>()?, credentials })
    }
}

/// An endpoint during one pull.
struct Source {
    endpoint: Endpoint,
    client: HttpClient,
    /// What the last challenge was answered with.
    authorization: Mutex<Option<HeaderValue>>,
}

pub(crate) struct Repository {
    reference: Reference,
    sources: Vec<Source>,
    credentials: Option<Credentials>,
}

impl Repository {
    /// The bytes of a manifest or index by tag or digest, with their digest.
    pub(crate) async fn manifest(&self, target: &str) -> Result<(Digest, Bytes)> {
        let accept = format!("{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}, */*");
        let accept = HeaderValue::from_str(&accept).map_err(|_| ImageError::InvalidReference("not a header".into()))?;
        let response = self.ask(&format!("manifests/{target}"), &[(ACCEPT, accept)]).await?;
        let bytes = read_all(response, LARGEST_DOCUMENT).await?;
        let digest = Digest::of(&bytes);
        match target.parse::<Digest>() {
            Ok(expected) if expected != digest => Err(ImageError::Corrupt(format!("manifest {expected} arrived as {digest}"))),
            _ => Ok((digest, bytes)),
        }
    }

    /// A blob from byte `from` on. The answer says whether it begins there (206) or at the start (200).
    pub(crate) async fn blob(&self, digest: &Digest, from: u64) -> Result<Response<Incoming>> {
        let range = (from > 0).then(|| HeaderValue::from_str(&format!("bytes={from}-")).ok().map(|range| (RANGE, range))).flatten();
        self.ask(&format!("blobs/{digest}"), range.as_slice()).await
    }

    /// Asks one source after the other. If all fail, the most telling answer counts: a registry's word (denied,
    /// then not found) says more than silence.
    async fn ask(&self, what: &str, headers: &[(HeaderName, HeaderValue)]) -> Result<Response<Incoming>> {
        let mut failure: Option<ImageError> = None;
        for source in &self.sources {
            let error = match self.ask_source(source, what, headers).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            tracing::debug!(source = source.endpoint.base, what, %error, "this source does not have it");
            if failure.as_ref().is_none_or(|failure| rank(&error) >= rank(failure)) {
                failure = Some(error);
            }
        }
        Err(failure.unwrap_or_else(|| ImageError::NotFound(format!("{}: not found", self.reference))))
    }

    async fn ask_source(&self, source: &Source, what: &str, headers: &[(HeaderName, HeaderValue)]) -> Result<Response<Incoming>> {
        let mut response = self.send(source, what, headers).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
            let challenges: Vec<_> = challenges.filter_map(auth::parse_challenge).collect();
            for challenge in challenges {
                let scope = format!("repository:{}:pull", self.reference.path);
                let answer = auth::answer(&source.client, &challenge, &scope, self.credentials.as_ref()).await?;
                let Some(answer) = answer else { continue };
                *source.authorization.lock() = Some(answer);
                response = self.send(source, what, headers).await?;
                break;
            }
        }
        self.judge(response, source, what).await
    }

    async fn send(&self, source: &Source, what: &str, headers: &[(HeaderName, HeaderValue)]) -> Result<Response<Incoming>> {
        let Endpoint { base, mirror, headers: own, .. } = &source.endpoint;
        let namespace = if *mirror { format!("?ns={}", self.reference.host) } else { String::new() };
        let mut request = Outgoing::get(&format!("{base}/{}/{what}{namespace}", self.reference.path))?;
        request.headers = own.clone();
        request.headers.extend(headers.iter().cloned());
        if let Some(authorization) = source.authorization.lock().clone() {
            request.headers.insert(AUTHORIZATION, authorization);
        }
        source.client.send(request).await
    }

    /// Turns an answer that is no success into an error in containerd's words.
    async fn judge(&self, response: Response<Incoming>, source: &Source, what: &str) -> Result<Response<Incoming>> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let url = format!("{}/{}/{what}", source.endpoint.base, self.reference.path);
        let said = read_all(response, 64 << 10).await.unwrap_or_default();
        Err(match status {
            StatusCode::NOT_FOUND => ImageError::NotFound(format!("{}: not found", self.reference)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ImageError::Unauthorized(format!(
                "pull access denied, repository does not exist or may require authorization: unauthorized: {}",
                message(&said).unwrap_or_else(|| status.to_string())
            )),
            _ => {
                let said = message(&said).map(|said| format!(": {said}")).unwrap_or_default();
                ImageError::Unavailable(format!("unexpected status from GET request to {url}: {status}{said}"))
            }
        })
    }
}

/// How much an error says about what to do.
fn rank(error: &ImageError) -> u8 {
    match error {
        ImageError::NotFound(_) => 1,
        ImageError::Unavailable(_) => 0,
        _ => 2,
    }
}

/// The first message of a registry's error document.
fn message(body: &[u8]) -> Option<String> {
    let tree: serde_json::Value = serde_json::from_slice(body).ok()?;
    tree.pointer("/errors/0/message").and_then(serde_json::Value::as_str).map(str::to_owned)
}
