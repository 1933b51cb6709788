//! The port of a component: `/healthz`, `/livez`, `/readyz` over TLS, for everyone. Absent: metrics, configz, and hence authentication.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::{Arg, ArgMatches};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tiphys_base::pki::{Authority, Identity, Names, Subject, Use};
use tiphys_base::tasks::Tasks;
use tiphys_base::{Clock, SystemClock, tls};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::args::{Idle, text, value};

pub(super) fn flags() -> [Arg; 4] {
    [
        value("bind-address", "where health is told").value_parser(clap::value_parser!(IpAddr)),
        value("secure-port", "port of it; 0: nowhere").value_parser(clap::value_parser!(u16)),
        value("tls-cert-file", "serving certificate (PEM); one is made if there is none"),
        value("tls-private-key-file", "key of --tls-cert-file (PEM)"),
    ]
}

const OPEN: &str = "only health is served on this port, to everyone";

pub(super) static IDLE: [Idle; 8] = [
    Idle { name: "authentication-kubeconfig", why: OPEN },
    Idle { name: "authorization-kubeconfig", why: OPEN },
    Idle { name: "authentication-skip-lookup", why: OPEN },
    Idle { name: "client-ca-file", why: OPEN },
    Idle { name: "requestheader-client-ca-file", why: OPEN },
    Idle { name: "requestheader-allowed-names", why: OPEN },
    Idle { name: "cert-dir", why: "the certificate is made anew at every start" },
    Idle { name: "profiling", why: OPEN },
];

pub(super) async fn start(m: &ArgMatches, component: &str, default_port: u16, tasks: &Tasks) -> Result<()> {
    let port = m.get_one("secure-port").copied().unwrap_or(default_port);
    if port == 0 {
        return Ok(());
    }
    let address = SocketAddr::new(m.get_one("bind-address").copied().unwrap_or(IpAddr::from([0, 0, 0, 0])), port);
    let identity = match (text(m, "tls-cert-file"), text(m, "tls-private-key-file")) {
        (Some(cert), Some(key)) => Identity { cert_pem: read(cert)?, key_pem: read(key)? },
        _ => self_signed(component)?,
    };
    let acceptor = TlsAcceptor::from(Arc::new(tls::server(&identity, None, &[b"http/1.1"])?));
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}; choose another --secure-port"))?;
    let connections = tasks.clone();
    tasks.spawn("health", async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn("health connection", serve(stream, acceptor.clone()));
        }
    });
    Ok(())
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn self_signed(component: &str) -> Result<Identity> {
    let (now, year) = (SystemClock.now(), Duration::from_secs(365 * 86_400));
    let authority = Authority::generate(&format!("{component}-ca"), now, year)?;
    let names = Names { dns: vec!["localhost".into()], ips: vec![IpAddr::from([127, 0, 0, 1])] };
    Ok(authority.issue(&Subject { common_name: component.to_owned(), organizations: vec![] }, &names, Use::Server, now, year)?)
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let answer = service_fn(|request: Request<Incoming>| async move { Ok::<_, Infallible>(answer(request.uri().path())) });
    // Whoever breaks the connection off has no more questions.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

fn answer(path: &str) -> Response<Full<Bytes>> {
    let (status, text) = match path {
        "/healthz" | "/livez" | "/readyz" => (StatusCode::OK, "ok"),
        _ => (StatusCode::NOT_FOUND, "404 page not found"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
