//! A small HTTP client: pooled connections over TCP or TLS, redirects, errors in words.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tiphys_base::tls::{self, ServerTrust};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::{ImageError, Result, io_error};

const CONNECT: Duration = Duration::from_secs(30);
/// Until the head of an answer; registries that build an answer slowly exist.
const ANSWER: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 10;

/// Whom to trust. Public CAs always count; `ca` adds to them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    pub(crate) ca: Vec<PathBuf>,
    pub(crate) skip_verify: bool,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, with TLS or without.
pub(crate) struct Stream(Box<dyn Io>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[derive(Clone)]
pub(crate) struct Connector {
    tls: TlsConnector,
}

async fn connect(tls: TlsConnector, uri: Uri) -> io::Result<TokioIo<Stream>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let address = format!("{host}:{port}");
    let dialing = tokio::time::timeout(CONNECT, TcpStream::connect((host.as_str(), port))).await;
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, format!("dial tcp {address}: i/o timeout"));
    let tcp = dialing.map_err(|_| timed_out())?.map_err(|error| dial_error(&host, &address, &error))?;
    tcp.set_nodelay(true)?;
    if !secure {
        return Ok(TokioIo::new(Stream(Box::new(tcp))));
    }
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let shaking = tokio::time::timeout(CONNECT, tls.connect(name, tcp)).await;
    let stream = shaking.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "net/http: TLS handshake timeout"))?;
    let stream = stream.map_err(|error| io::Error::new(error.kind(), format!("tls: {error}")))?;
    Ok(TokioIo::new(Stream(Box::new(stream))))
}

/// Go's words, since that is what people search for.
fn dial_error(host: &str, address: &str, error: &io::Error) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("dial tcp {address}: connect: connection refused"),
        _ if error.raw_os_error().is_none() => format!("dial tcp: lookup {host}: no such host ({error})"),
        _ => format!("dial tcp {address}: connect: {error}"),
    };
    io::Error::new(error.kind(), text)
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(connect(self.tls.clone(), uri))
    }
}

/// One trust, one pool of connections.
#[derive(Clone)]
pub(crate) struct HttpClient {
    inner: hyper_util::client::legacy::Client<Connector, Full<Bytes>>,
}

pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Outgoing {
    pub(crate) fn get(uri: &str) -> Result<Self> {
        let uri = uri.parse().map_err(|error| ImageError::InvalidReference(format!("invalid URL {uri}: {error}")))?;
        Ok(Outgoing { method: Method::GET, uri, headers: HeaderMap::new(), body: Bytes::new() })
    }
}

impl HttpClient {
    pub(crate) fn new(trust: &Trust) -> Result<Self> {
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for path in &trust.ca {
            let pem = std::fs::read(path).map_err(io_error("reading", path))?;
            let unusable = |error: tls::TlsError| ImageError::Io(format!("{}: {error}", path.display()));
            roots.roots.extend(tls::roots(&pem).map_err(unusable)?.roots);
        }
        let trust = if trust.skip_verify { ServerTrust::Anyone } else { ServerTrust::Roots(roots) };
        let config = tls::client(trust, None).map_err(|error| ImageError::Io(format!("TLS: {error}")))?;
        let connector = Connector { tls: TlsConnector::from(Arc::new(config)) };
        let builder = &mut hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        let inner =
            builder.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(10)).pool_max_idle_per_host(4).build(connector);
        Ok(HttpClient { inner })
    }

    /// Sends, following redirects; credentials stay with the host that they are for.
    pub(crate) async fn send(&self, mut outgoing: Outgoing) -> Result<Response<Incoming>> {
        for _ in 0..REDIRECTS {
            let response = self.send_once(&outgoing).await?;
            let location = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
            let Some(location) = location.and_then(|location| location.to_str().ok()) else { return Ok(response) };
            let next = resolve(&outgoing.uri, location).ok_or_else(|| unavailable(&outgoing, &format!("redirected to {location}")))?;
            if next.authority() != outgoing.uri.authority() {
                outgoing.headers.remove(AUTHORIZATION);
            }
            outgoing.uri = next;
        }
        Err(unavailable(&outgoing, "stopped after 10 redirects"))
    }

    async fn send_once(&self, outgoing: &Outgoing) -> Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(outgoing.body.clone()));
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = outgoing.uri.clone();
        *request.headers_mut() = outgoing.headers.clone();
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(concat!("tiphys/", env!("CARGO_PKG_VERSION"))));
        if let Some(host) = outgoing.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
            request.headers_mut().insert(HOST, host);
        }
        match tokio::time::timeout(ANSWER, self.inner.request(request)).await {
            Ok(answer) => answer.map_err(|error| unavailable(outgoing, &innermost(&error))),
            Err(_) => Err(unavailable(outgoing, "timed out while awaiting headers")),
        }
    }
}

fn unavailable(outgoing: &Outgoing, why: &str) -> ImageError {
    ImageError::Unavailable(format!("failed to do request: {} \"{}\": {why}", outgoing.method, outgoing.uri))
}

/// The last cause says most.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    if location.contains("://") {
        return location.parse().ok();
    }
    let path = if location.starts_with('/') { location.to_owned() } else { format!("{}/{location}", base.path().rsplit_once('/')?.0) };
    Uri::builder().scheme(base.scheme()?.clone()).authority(base.authority()?.clone()).path_and_query(path).build().ok()
}

/// A body of at most `limit` bytes.
pub(crate) async fn read_all(response: Response<Incoming>, limit: u64) -> Result<Bytes> {
    let body = Limited::new(response.into_body(), limit as usize);
    match tokio::time::timeout(ANSWER, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(ImageError::Unavailable(format!("reading the answer: {error}"))),
        Err(_) => Err(ImageError::Unavailable("reading the answer: i/o timeout".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_resolve() {
        let base: Uri = "https://r.example/v2/a/blobs/x".parse().expect("parses");
        let cases = [
            ("https://cdn.example/y?sig=1", "https://cdn.example/y?sig=1"),
            ("/other?x=1", "https://r.example/other?x=1"),
            ("beside", "https://r.example/v2/a/blobs/beside"),
        ];
        for (location, expected) in cases {
            assert_eq!(resolve(&base, location).map(|uri| uri.to_string()).as_deref(), Some(expected));
        }
    }
}
