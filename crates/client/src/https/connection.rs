use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::Config;
use super::tls::Connector;
use crate::ClientError;

// Upstream's server gives 256 KiB per stream and 25 MiB per connection; a client that gives less would be the narrow end.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 25 << 20;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
// Notices a peer that vanished without a word, as client-go does with its HTTP/2 health check.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(15);

type Body = Full<Bytes>;

/// One server and at most one HTTP/2 connection to it.
pub(super) struct Endpoint {
    authority: String,
    host: String,
    port: u16,
    prefix: String,
    plain: bool,
    server_name: ServerName<'static>,
    connector: Arc<Connector>,
    open: Mutex<Option<Open>>,
}

/// A connection, and which certificate it was made with.
struct Open {
    sender: http2::SendRequest<Body>,
    generation: u64,
}

enum Sender {
    H2(http2::SendRequest<Body>),
    H1(http1::SendRequest<Body>),
}

impl Endpoint {
    pub(super) fn new(config: &Config, connector: Arc<Connector>) -> Result<Self, ClientError> {
        let bad = |reason: String| ClientError::Config(format!("server {:?}: {reason}", config.server));
        let uri: Uri = config.server.parse().map_err(|e: http::uri::InvalidUri| bad(e.to_string()))?;
        let plain = match uri.scheme_str() {
            Some("https") | None => false,
            Some("http") => true,
            Some(other) => return Err(bad(format!("scheme {other:?} is neither http nor https"))),
        };
        let host = uri.host().ok_or_else(|| bad("no host".into()))?.trim_matches(['[', ']']).to_owned();
        let name = if config.tls_server_name.is_empty() { host.clone() } else { config.tls_server_name.clone() };
        Ok(Endpoint {
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            port: uri.port_u16().unwrap_or(if plain { 80 } else { 443 }),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            server_name: ServerName::try_from(name).map_err(|e| bad(e.to_string()))?,
            host,
            plain,
            connector,
            open: Mutex::new(None),
        })
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<http::Response<Incoming>, ClientError> {
        let request = self.request(method, path, headers, body)?;
        let mut again = Some(request.clone());
        let mut request = request;
        loop {
            match self.sender().await? {
                Sender::H1(mut sender) => {
                    let target = request.uri().path_and_query().map(|p| p.as_str().to_owned()).unwrap_or_default();
                    *request.uri_mut() = target.parse().map_err(|e: http::uri::InvalidUri| ClientError::Config(e.to_string()))?;
                    request
                        .headers_mut()
                        .insert(http::header::HOST, self.authority.parse().map_err(|_| ClientError::Config("bad host".into()))?);
                    return sender.send_request(request).await.map_err(transport);
                }
                Sender::H2(mut sender) => match sender.try_send_request(request).await {
                    Ok(response) => return Ok(response),
                    Err(mut refused) => {
                        self.forget_closed().await;
                        // Handed back unsent: safe to send again, whatever the verb.
                        let (Some(unsent), Some(_)) = (refused.take_message(), again.take()) else {
                            return Err(transport(refused.into_error()));
                        };
                        request = unsent;
                    }
                },
            }
        }
    }

    fn request(&self, method: Method, path: &str, headers: HeaderMap, body: Bytes) -> Result<http::Request<Body>, ClientError> {
        let scheme = if self.plain { "http" } else { "https" };
        let uri = format!("{scheme}://{}{}{path}", self.authority, self.prefix);
        let mut request = http::Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().map_err(|e: http::uri::InvalidUri| ClientError::Config(format!("path {path:?}: {e}")))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn forget_closed(&self) {
        let mut open = self.open.lock().await;
        if open.as_ref().is_some_and(|o| o.sender.is_closed()) {
            *open = None;
        }
    }

    /// The open connection, or a new one. Others wait meanwhile, so that a restart of the server is met by one handshake, not by hundreds.
    async fn sender(&self) -> Result<Sender, ClientError> {
        let mut open = self.open.lock().await;
        // What runs on a connection of an older certificate comes to its end there.
        let generation = self.connector.reloading.as_ref().map_or(0, |r| r.generation());
        if let Some(open) = open.as_ref().filter(|o| o.generation == generation && !o.sender.is_closed()) {
            return Ok(Sender::H2(open.sender.clone()));
        }
        let sender = tokio::time::timeout(CONNECT_LIMIT, self.connect())
            .await
            .map_err(|_| ClientError::Transport(format!("{}: no connection within {} s", self.authority, CONNECT_LIMIT.as_secs())))??;
        if let Sender::H2(sender) = &sender {
            *open = Some(Open { sender: sender.clone(), generation });
        }
        Ok(sender)
    }

    async fn connect(&self) -> Result<Sender, ClientError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| ClientError::Transport(format!("{}: {e}", self.authority)))?;
        stream.set_nodelay(true).map_err(transport)?;
        if self.plain {
            return h1(TokioIo::new(stream)).await;
        }
        let connector = TlsConnector::from(self.connector.tls.clone());
        let stream = connector
            .connect(self.server_name.clone(), stream)
            .await
            .map_err(|e| ClientError::Transport(format!("{}: {e}", self.authority)))?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") { h2(stream).await } else { h1(TokioIo::new(stream)).await }
    }
}

async fn h2(stream: TlsStream<TcpStream>) -> Result<Sender, ClientError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(transport)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the API server ended");
        }
    });
    Ok(Sender::H2(sender))
}

async fn h1<S>(stream: TokioIo<S>) -> Result<Sender, ClientError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(transport)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the API server ended");
        }
    });
    Ok(Sender::H1(sender))
}

fn transport(error: impl std::error::Error) -> ClientError {
    use std::fmt::Write;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    ClientError::Transport(text)
}
