use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::Method;
use tiphys_meta::EventType;

use crate::ClientError;

/// One unary request. `path` holds the query too.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub path: String,
    /// Of the body; empty where there is none.
    pub content_type: &'static str,
    pub body: Bytes,
}

impl Request {
    pub fn get(path: impl Into<String>) -> Self {
        Request { method: Method::GET, path: path.into(), content_type: "", body: Bytes::new() }
    }

    pub fn with_json(method: Method, path: impl Into<String>, body: Vec<u8>) -> Self {
        Request { method, path: path.into(), content_type: "application/json", body: body.into() }
    }
}

/// Any HTTP answer, errors too: `Status` bodies are read by the client, not by the backend.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub body: Bytes,
    /// The texts of `Warning` headers.
    pub warnings: Vec<String>,
}

/// Events in order, each with the JSON of its object. The end of the stream is the end of the watch (the server's timeout), not an error.
pub type WatchStream = BoxStream<'static, Result<(EventType, Bytes), ClientError>>;

/// What carries requests to an API server, under one identity.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    async fn call(&self, request: Request) -> Result<Response, ClientError>;

    /// Opens a watch; `path` holds `watch=1` and the rest of the query. An answer other than 200 is an error here.
    async fn watch(&self, path: String) -> Result<WatchStream, ClientError>;
}
