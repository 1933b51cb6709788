//! The socket: TLS, HTTP/1.1 and HTTP/2, one task per connection, with all its streams. A panic or an error in one leaves the others alone.
//!
//! HTTP/2 has upstream's windows and stream limit: hyper's defaults stall clients that hold many watches on one connection.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tiphys_base::tasks::Tasks;
use tiphys_base::tls;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::authenticate::x509::AskForCertificate;
use crate::body::{Answered, BoxError};
use crate::chain::{Door, Origin, refuse};
use crate::crew::Crew;
use crate::errors::DoorError;
use crate::gather::gather;
use crate::identity::Reloading;
use crate::rooms;
use crate::turns::Turns;

const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 25 * 1024 * 1024;
const MAX_STREAMS: u32 = 1000;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Waiting for a request's head, the first or the next one; upstream's IdleTimeout.
const IDLE_LIMIT: Duration = Duration::from_secs(90);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// TLS that asks for client certificates and takes any; [`crate::authenticate`] judges them.
pub(crate) fn tls_config(serving: Arc<Reloading>, client_cas: &[&str]) -> Result<Arc<ServerConfig>, tls::TlsError> {
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(AskForCertificate::new(client_cas)?)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts until told to stop; connections then finish what they are at.
pub(crate) async fn run(listener: TcpListener, config: Arc<ServerConfig>, door: Arc<Door>, tasks: Tasks) {
    let acceptor = TlsAcceptor::from(config);
    let stop = tasks.token();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => {
                let (acceptor, door, stop) = (acceptor.clone(), door.clone(), stop.clone());
                tasks.spawn_draining("connection", async move { connection(socket, address, acceptor, door, stop).await });
            }
            Err(error) => {
                // Out of descriptors, most likely: a moment later some connection has ended.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, address: SocketAddr, acceptor: TlsAcceptor, door: Arc<Door>, stop: CancellationToken) {
    let _ = socket.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%address, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
    };
    if let Err(error) = serve(stream, address, door, stop).await {
        tracing::debug!(%address, %error, "connection ended");
    }
}

async fn serve(stream: TlsStream<TcpStream>, address: SocketAddr, door: Arc<Door>, stop: CancellationToken) -> hyper::Result<()> {
    let (_, session) = stream.get_ref();
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    let mut peer = door.authentication.certificates.examine(session.peer_certificates().unwrap_or(&[]), address.ip());
    // Both ends have one address.
    peer.near = stream.get_ref().0.local_addr().is_ok_and(|own| own.ip() == address.ip());
    let peer = Arc::new(peer);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (door, origin) = (door.clone(), Origin::Socket(peer.clone()));
        let apart = is_h2 && rooms::may_be_large(request.body());
        let request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
        // Boxed: hyper moves it several times, and it is kilobytes.
        Box::pin(async move {
            let serving = async move { door.serve(request, origin).await };
            let answered = if apart { in_its_own_task(serving).await } else { serving.await };
            Ok::<_, std::convert::Infallible>(answered)
        })
    });
    if is_h2 {
        let crew = Crew::default();
        let mut builder = hyper::server::conn::http2::Builder::new(crew.executor());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_STREAMS as usize)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let (io, outlet) = gather(stream);
        let connection = async {
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(Turns::new(io)), service));
            let mut step = |cx: &mut Context<'_>, stop: bool| {
                if stop {
                    connection.as_mut().graceful_shutdown();
                }
                let polled = connection.as_mut().poll(cx);
                if polled.is_pending() {
                    outlet.drain(cx);
                }
                polled
            };
            tokio::select! {
                ended = poll_fn(|cx| step(cx, false)) => return ended,
                () = stop.cancelled() => {}
            }
            let mut stopping = true;
            poll_fn(|cx| step(cx, std::mem::take(&mut stopping))).await
        };
        crew.run(connection).await
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(IDLE_LIMIT);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(Turns::new(stream)), service).with_upgrades());
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}

/// While a large body is read and worked on, the connection's other streams go on.
async fn in_its_own_task(serving: impl Future<Output = Answered> + Send + 'static) -> Answered {
    let answered = AbortOnDropHandle::new(tokio::spawn(serving)).await;
    answered.unwrap_or_else(|_| refuse(DoorError::Panicked, ""))
}
