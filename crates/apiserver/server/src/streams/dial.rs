//! Connections to kubelets, pods and nodes: TCP, TLS where asked, and one HTTP/1.1 exchange on each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tiphys_base::Clock;
use tiphys_base::tls::{self, ServerTrust};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::StreamsError;
use super::target::is_reachable;
use crate::body::{Body, BoxError};
use crate::config::KubeletClient;
use crate::identity::reloading;

const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// What stands behind a connection, as far as TLS cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Our kubelets: our certificate is shown, theirs is checked where a CA is configured.
    Kubelet,
    /// Our kubelets, unchecked, because the user said so.
    KubeletUnchecked,
    /// Whatever a user runs: TLS without a check, as upstream proxies do.
    Anyone,
    Plain,
}

pub struct Dialer {
    kubelet: Arc<ClientConfig>,
    kubelet_unchecked: Arc<ClientConfig>,
    anyone: Arc<ClientConfig>,
}

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("dial tcp {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("dial tcp {0}: i/o timeout")]
    Slow(String),
    #[error("{address}: {source}")]
    Tls { address: String, source: std::io::Error },
    #[error("CA bundle: {0}")]
    Trust(#[source] tls::TlsError),
    #[error("{0}: not a host name")]
    Name(String),
    #[error("address not allowed")]
    NotAllowed,
    #[error("{address}: {source}")]
    Http { address: String, source: hyper::Error },
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Dialer {
    pub fn new(kubelet: &KubeletClient, clock: &Arc<dyn Clock>) -> Result<Self, StreamsError> {
        let identity = kubelet.client.as_ref().map(|pair| reloading(pair, clock)).transpose()?;
        let ca = kubelet.ca.as_ref().map(|ca| ca.read()).transpose()?;
        let trust = || ca.as_ref().map_or(ServerTrust::Anyone, |pem| ServerTrust::Ca(pem.as_bytes()));
        let showing = |trust: ServerTrust<'_>| -> Result<Arc<ClientConfig>, tls::TlsError> {
            let mut config = tls::client(trust, None)?;
            if let Some(identity) = &identity {
                config.client_auth_cert_resolver = identity.clone();
            }
            Ok(Arc::new(config))
        };
        Ok(Dialer {
            kubelet: showing(trust())?,
            kubelet_unchecked: showing(ServerTrust::Anyone)?,
            anyone: Arc::new(tls::client(ServerTrust::Anyone, None)?),
        })
    }

    async fn connect(&self, host: &str, port: u16, trust: Trust) -> Result<Box<dyn Duplex>, DialError> {
        let config = match trust {
            Trust::Plain => return Ok(Box::new(checked(host, port).await?)),
            Trust::Kubelet => &self.kubelet,
            Trust::KubeletUnchecked => &self.kubelet_unchecked,
            Trust::Anyone => return over_tls(checked(host, port).await?, host, port, host, self.anyone.clone()).await,
        };
        secured(host, port, host, config.clone()).await
    }

    /// Sends one request to a server whose certificate must be for `name` and by `ca_pem`, or by whom the machine trusts if that is empty.
    pub(crate) async fn send_verified(
        &self,
        host: &str,
        port: u16,
        name: &str,
        ca_pem: &[u8],
        request: http::Request<Body>,
    ) -> Result<Response<Incoming>, DialError> {
        let trust = if ca_pem.is_empty() { ServerTrust::Machine } else { ServerTrust::Ca(ca_pem) };
        let config = tls::client(trust, None).map_err(DialError::Trust)?;
        self.send_tls(host, port, name, Arc::new(config), request).await
    }

    /// The same with a configuration that is at hand, which lets TLS resume sessions.
    pub(crate) async fn send_tls(
        &self,
        host: &str,
        port: u16,
        name: &str,
        config: Arc<ClientConfig>,
        request: http::Request<Body>,
    ) -> Result<Response<Incoming>, DialError> {
        let stream = secured(host, port, name, config).await?;
        exchange(&shown(host, port), stream, request).await
    }

    /// Sends one request over TLS to a port of this machine: another component, whose certificate nobody signed.
    pub(crate) async fn send_here(&self, port: u16, request: http::Request<Body>) -> Result<Response<Incoming>, DialError> {
        self.send_tls("127.0.0.1", port, "localhost", self.anyone.clone(), request).await
    }

    /// Sends one request on a new connection. The connection lives as long as the answer's body, or as the upgraded stream.
    pub async fn send(&self, host: &str, port: u16, trust: Trust, request: http::Request<Body>) -> Result<Response<Incoming>, DialError> {
        let stream = self.connect(host, port, trust).await?;
        exchange(&shown(host, port), stream, request).await
    }
}

fn shown(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Where users may have themselves sent. A name is resolved once: what was judged is what is dialled, whatever the name means a moment later
/// (the fault class of CVE-2020-8562).
async fn checked(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Connect { address: shown(host, port), source };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect();
    if addresses.iter().any(|address| !is_reachable(address.ip())) {
        return Err(DialError::NotAllowed);
    }
    connected(TcpStream::connect(&addresses[..]), host, port).await
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, DialError> {
    connected(TcpStream::connect((host, port)), host, port).await
}

async fn connected(connect: impl Future<Output = std::io::Result<TcpStream>>, host: &str, port: u16) -> Result<TcpStream, DialError> {
    let stream = match tokio::time::timeout(CONNECT_LIMIT, connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(source)) => return Err(DialError::Connect { address: shown(host, port), source }),
        Err(_) => return Err(DialError::Slow(shown(host, port))),
    };
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn secured(host: &str, port: u16, name: &str, config: Arc<ClientConfig>) -> Result<Box<dyn Duplex>, DialError> {
    over_tls(tcp(host, port).await?, host, port, name, config).await
}

async fn over_tls(stream: TcpStream, host: &str, port: u16, name: &str, config: Arc<ClientConfig>) -> Result<Box<dyn Duplex>, DialError> {
    let name = ServerName::try_from(name.to_owned()).map_err(|_| DialError::Name(name.to_owned()))?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    Ok(Box::new(stream.map_err(|source| DialError::Tls { address: shown(host, port), source })?))
}

async fn exchange(address: &str, stream: Box<dyn Duplex>, request: http::Request<Body>) -> Result<Response<Incoming>, DialError> {
    let failed = |source| DialError::Http { address: address.to_owned(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a node or pod ended");
        }
    });
    sender.send_request(request).await.map_err(failed)
}

pub(crate) fn boxed(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that is judged by one answer of the resolver and dialled by another, and one that means this machine.
    #[tokio::test]
    async fn nobody_is_sent_to_this_machine() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        tcp("localhost", port).await.expect("for our own calls it is a host like others");
        for host in ["localhost", "127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"] {
            let refused = checked(host, port).await.map(drop);
            assert!(matches!(refused, Err(DialError::NotAllowed)), "{host}: {refused:?}");
        }
    }
}
