//! A small HTTP client for probes and hooks: one request per connection, certificates not verified (as upstream's probes).

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tiphys_base::tls::{self, ServerTrust};
use tiphys_types::api::core::v1::HTTPGetAction;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: String,
}

impl Target {
    pub(crate) fn of_action(get: &HTTPGetAction, host: String, port: i32, agent: &str) -> Self {
        let mut headers: Vec<(String, String)> = get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("user-agent")) {
            headers.push(("User-Agent".into(), agent.into()));
        }
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("accept")) {
            headers.push(("Accept".into(), "*/*".into()));
        }
        // An empty value means: do not send it at all.
        headers.retain(|(name, value)| {
            !(value.is_empty() && (name.eq_ignore_ascii_case("user-agent") || name.eq_ignore_ascii_case("accept")))
        });
        let path = get.path.clone().unwrap_or_default();
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        Target { https: get.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")), host, port, path, headers }
    }

    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}{}", if self.https { "https" } else { "http" }, self.address(), self.path)
    }
}

static INSECURE: LazyLock<Option<Arc<rustls::ClientConfig>>> = LazyLock::new(|| tls::client(ServerTrust::Anyone, None).ok().map(Arc::new));
/// As much of a body as messages show.
const MAX_BODY: usize = 10 * 1024;

/// Go's words for a connection that could not be made.
pub(crate) async fn connect(address: &str) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {address}: {why}")
    })
}

pub(crate) async fn get(target: &Target, timeout: Duration) -> Result<Answer, String> {
    let url = target.url();
    let late = || format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    match tokio::time::timeout(timeout, get_now(target)).await {
        Ok(result) => result.map_err(|e| format!("Get {url:?}: {e}")),
        Err(_) => Err(late()),
    }
}

async fn get_now(target: &Target) -> Result<Answer, String> {
    let tcp = connect(&target.address()).await?;
    if !target.https {
        return exchange(tcp, target).await;
    }
    let config = INSECURE.clone().ok_or("no TLS")?;
    let name = rustls_pki_types::ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
    let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.map_err(|e| e.to_string())?;
    exchange(tls, target).await
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: S, target: &Target) -> Result<Answer, String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let mut request = http::Request::get(&target.path);
    let has_host = target.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host"));
    if !has_host {
        request = request.header(http::header::HOST, target.address());
    }
    for (name, value) in &target.headers {
        request = request.header(name, value);
    }
    let request = request.header(http::header::CONNECTION, "close").body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let response =
        sender.send_request(request).await.map_err(|e| if e.is_incomplete_message() { "EOF".to_owned() } else { e.to_string() })?;
    let code = response.status().as_u16();
    let location = response.headers().get(http::header::LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    driver.abort();
    Ok(Answer { code, location, body: String::from_utf8_lossy(&body).into_owned() })
}
