//! The backend for an API server in another process: HTTP/2 over TLS (rustls with ring).
//!
//! Two connections are kept, one for unary requests and one for watches, so that a burst of events never queues before a write. Both are opened
//! when first needed and again after they break; a request that a dying connection refused before sending is tried once more on a new one.
//! Windows are large, as upstream's server has them: many watches share a connection and must not stall one another.
//! A server without h2 in ALPN gets HTTP/1.1, one connection per request.
//!
//! Absent on purpose: proxies, exec credential plugins, protobuf.

mod config;
mod connection;
mod kubeconfig;
mod tls;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use tiphys_meta::{ApiError, EventType};

pub use config::{Config, Identity};

use crate::backend::{Backend, Request, Response, WatchStream};
use crate::error::ClientError;
use connection::Endpoint;

#[derive(Clone)]
pub struct Https {
    config: Config,
    unary: Arc<Endpoint>,
    watches: Arc<Endpoint>,
}

impl Https {
    pub fn new(config: Config) -> Result<Self, ClientError> {
        let connector = Arc::new(tls::connector(&config)?);
        let endpoint = || Endpoint::new(&config, Arc::clone(&connector));
        Ok(Https { unary: Arc::new(endpoint()?), watches: Arc::new(endpoint()?), config })
    }

    /// The same connections for requests of someone else. What authenticates a connection itself (a client certificate) stays as it is.
    #[must_use]
    pub fn with_token(&self, token: String) -> Self {
        Https { config: Config { identity: Identity::Token(token), ..self.config.clone() }, ..self.clone() }
    }

    async fn send(&self, endpoint: &Endpoint, request: Request) -> Result<http::Response<Incoming>, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
        if !request.content_type.is_empty() {
            headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(request.content_type));
        }
        self.config.add_headers(&mut headers).await?;
        endpoint.send(request.method, &request.path, headers, request.body).await
    }
}

#[async_trait]
impl Backend for Https {
    async fn call(&self, request: Request) -> Result<Response, ClientError> {
        let response = self.send(&self.unary, request).await?;
        let status = response.status().as_u16();
        let warnings = warnings(response.headers());
        let body = collect(response.into_body()).await?;
        Ok(Response { status, body, warnings })
    }

    async fn watch(&self, path: String) -> Result<WatchStream, ClientError> {
        let response = self.send(&self.watches, Request::get(path)).await?;
        if response.status() != StatusCode::OK {
            let code = response.status().as_u16();
            let body = collect(response.into_body()).await?;
            return Err(ApiError::from_status(code, &body).into());
        }
        Ok(frames(response.into_body()))
    }
}

async fn collect(body: Incoming) -> Result<Bytes, ClientError> {
    Ok(body.collect().await.map_err(|e| ClientError::Transport(e.to_string()))?.to_bytes())
}

fn frames(body: Incoming) -> WatchStream {
    let state = (body.into_data_stream(), Lines::default());
    futures_util::stream::try_unfold(state, |(mut body, mut lines)| async move {
        loop {
            if let Some(line) = lines.next() {
                return Ok(Some((parse_frame(&line)?, (body, lines))));
            }
            match body.next().await {
                Some(Ok(data)) => lines.push(&data),
                Some(Err(error)) => return Err(ClientError::Transport(error.to_string())),
                None => return Ok(None),
            }
        }
    })
    .boxed()
}

/// Cuts a stream of chunks at newlines: the server ends each frame with one, and JSON text holds none.
#[derive(Default)]
struct Lines {
    buffer: BytesMut,
    /// Up to here there is no newline.
    searched: usize,
}

impl Lines {
    fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(at) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + at + 1).freeze();
            self.searched = 0;
            if line.len() > 1 {
                return Some(line);
            }
        }
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

fn parse_frame(line: &Bytes) -> Result<(EventType, Bytes), ClientError> {
    let frame: Frame<'_> = serde_json::from_slice(line).map_err(|e| ClientError::Decode(e.to_string()))?;
    let kind = EventType::from_name(frame.kind).ok_or_else(|| ClientError::Decode(format!("unknown watch event type {:?}", frame.kind)))?;
    Ok((kind, line.slice_ref(frame.object.get().as_bytes())))
}

/// The quoted text of `299 - "text"` headers (RFC 7234, 5.5).
fn warnings(headers: &HeaderMap) -> Vec<String> {
    let texts = headers.get_all(http::header::WARNING).iter().filter_map(|v| v.to_str().ok());
    texts.filter_map(|v| Some(v.split_once('"')?.1.rsplit_once('"')?.0.replace("\\\"", "\"").replace("\\\\", "\\"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_chunks_end() {
        let text = b"{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n{\"type\":\"BOOKMARK\",\"object\":{}}\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for chunk in text.chunks(size) {
                lines.push(chunk);
                while let Some(line) = lines.next() {
                    seen.push(parse_frame(&line).map(|(t, o)| (t, String::from_utf8_lossy(&o).into_owned())).ok());
                }
            }
            assert_eq!(seen, [Some((EventType::Added, "{\"a\":1}".into())), Some((EventType::Bookmark, "{}".into()))]);
        }
    }

    #[test]
    fn warnings_are_unquoted() {
        let mut headers = HeaderMap::new();
        headers.append("warning", http::HeaderValue::from_static("299 - \"unknown field \\\"spec.foo\\\"\""));
        assert_eq!(warnings(&headers), ["unknown field \"spec.foo\""]);
    }
}
