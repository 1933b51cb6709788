//! Connections to kubelets, pods and nodes: TCP, TLS where asked, and one HTTP/1.1 exchange on each.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tiphys_base::tls::{self, ServerTrust};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::StreamsError;
use crate::body::{Body, BoxError};
use crate::config::KubeletClient;

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
    #[error("{0}: not a host name")]
    Name(String),
    #[error("{address}: {source}")]
    Http { address: String, source: hyper::Error },
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Dialer {
    pub fn new(kubelet: &KubeletClient) -> Result<Self, StreamsError> {
        let identity = kubelet.client.as_ref().map(|pair| pair.identity()).transpose()?;
        let ca = kubelet.ca.as_ref().map(|ca| ca.read()).transpose()?;
        let trust = || ca.as_ref().map_or(ServerTrust::Anyone, |pem| ServerTrust::Ca(pem.as_bytes()));
        Ok(Dialer {
            kubelet: Arc::new(tls::client(trust(), identity.as_ref())?),
            kubelet_unchecked: Arc::new(tls::client(ServerTrust::Anyone, identity.as_ref())?),
            anyone: Arc::new(tls::client(ServerTrust::Anyone, None)?),
        })
    }

    async fn connect(&self, host: &str, port: u16, trust: Trust) -> Result<Box<dyn Duplex>, DialError> {
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let stream = match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect((host, port))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(DialError::Connect { address, source }),
            Err(_) => return Err(DialError::Slow(address)),
        };
        let _ = stream.set_nodelay(true);
        let config = match trust {
            Trust::Plain => return Ok(Box::new(stream)),
            Trust::Kubelet => &self.kubelet,
            Trust::KubeletUnchecked => &self.kubelet_unchecked,
            Trust::Anyone => &self.anyone,
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| DialError::Name(host.to_owned()))?;
        let secured = TlsConnector::from(config.clone()).connect(name, stream).await;
        Ok(Box::new(secured.map_err(|source| DialError::Tls { address, source })?))
    }

    /// Sends one request on a new connection. The connection lives as long as the answer's body, or as the upgraded stream.
    pub async fn send(&self, host: &str, port: u16, trust: Trust, request: http::Request<Body>) -> Result<Response<Incoming>, DialError> {
        let stream = self.connect(host, port, trust).await?;
        let failed = |source| DialError::Http { address: format!("{host}:{port}"), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a node or pod ended");
            }
        });
        sender.send_request(request).await.map_err(failed)
    }
}

pub(super) fn boxed(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}
