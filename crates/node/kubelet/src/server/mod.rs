//! The HTTPS server of the kubelet: logs, exec, attach, port-forward, pods, statistics.
//!
//! Who: a client certificate of the cluster's CA, or a bearer token (TokenReview). Whether: `system:masters` and the API server's
//! own client may all, others are asked about by SubjectAccessReview.

mod auth;
pub(crate) mod rates;
mod routes;
mod stats;
mod streams;

use crate::agent::Agent;
use crate::certificates;
use crate::changes::Changes;
use crate::kubelet::StartError;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tiphys_base::tls;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub(crate) type Body = BoxBody<Bytes, Infallible>;
pub(crate) type Response = http::Response<Body>;

pub(crate) struct Server {
    pub(crate) agent: Arc<Agent>,
    pub(crate) changes: Arc<Changes>,
    auth: auth::Auth,
}

pub(crate) async fn start(agent: &Arc<Agent>, changes: &Arc<Changes>) -> Result<SocketAddr, StartError> {
    let listen = agent.config.listen;
    let failed = |source| StartError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let shown = certificates::serving(agent)?;
    let client_ca = agent.config.client_ca.as_ref().map(|ca| ca.as_bytes());
    // Upgrades are of HTTP/1.1.
    let config = tls::server_showing(shown, client_ca, &[b"http/1.1"])?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Arc::new(Server {
        agent: agent.clone(),
        changes: changes.clone(),
        auth: auth::Auth::new(agent.client.clone(), agent.clock.clone()),
    });
    agent.tasks.spawn("server", accept(listener, acceptor, server));
    Ok(address)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, server: Arc<Server>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                server.agent.tasks.clone().spawn("connection", async move {
                    if let Err(error) = connection(stream, acceptor, server).await {
                        tracing::debug!(%error, "connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, server: Arc<Server>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let tls = acceptor.accept(stream).await?;
    let peer = tls.get_ref().1.peer_certificates().and_then(|c| c.first()).and_then(|c| auth::user_of(c.as_ref())).map(Arc::new);
    let service = service_fn(move |request| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, Infallible>(routes::answer(server, request, peer).await) }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.serve_connection_with_upgrades(TokioIo::new(tls), service).await
}
