//! One connection to one API server, and its answers.
//!
//! HTTP/1.1 over TLS, one request at a time. The server's certificate is not verified: it was made a moment ago by a process of ours on loopback.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};

use crate::step::Step;

/// How long a watch that brings fewer events than expected is waited for.
const PATIENCE: Duration = Duration::from_millis(1500);

/// No request of the suite takes this long.
const TOO_LONG: Duration = Duration::from_secs(10);

/// What a server said to one request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) content_type: String,
    pub(crate) warnings: Vec<String>,
    /// A string where the answer is no JSON; a list of events where it is a watch.
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn to_json(&self) -> Value {
        json!([self.code, self.content_type, self.warnings, self.body])
    }

    pub(crate) fn from_json(value: &Value) -> Option<Answer> {
        let warnings = value[2].as_array()?.iter().filter_map(|w| w.as_str().map(str::to_owned)).collect();
        let code = u16::try_from(value[0].as_u64()?).ok()?;
        Some(Answer { code, content_type: value[1].as_str()?.to_owned(), warnings, body: value[3].clone() })
    }
}

pub(crate) struct Connection {
    address: String,
    token: String,
    config: Arc<ClientConfig>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// `address` is `127.0.0.1:6443`.
    pub(crate) fn new(address: &str, token: &str) -> Result<Connection> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        Ok(Connection { address: address.to_owned(), token: token.to_owned(), config: Arc::new(config), sender: None })
    }

    /// A server that closes the connection twice instead of answering (upstream does where a handler panics) has answered 0.
    pub(crate) async fn send(&mut self, step: &Step) -> Result<Answer> {
        for _ in 0..2 {
            self.sender().await?;
            match tokio::time::timeout(TOO_LONG, self.try_send(step)).await {
                Ok(Ok(answer)) => return Ok(answer),
                // It may only have been idle for too long.
                Ok(Err(_)) => self.sender = None,
                Err(_) => {
                    self.sender = None;
                    return Ok(none("no answer in time"));
                }
            }
        }
        Ok(none("connection closed"))
    }

    async fn try_send(&mut self, step: &Step) -> Result<Answer> {
        let request = self.request(step)?;
        let mut response = self.sender().await?.send_request(request).await?;
        let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        let content_type = header(header::CONTENT_TYPE);
        let warnings =
            response.headers().get_all(header::WARNING).iter().map(|w| String::from_utf8_lossy(w.as_bytes()).into_owned()).collect();
        let code = response.status().as_u16();
        let body = if step.events > 0 && code == 200 {
            self.sender = None; // The watch goes on; the connection ends with it.
            events(response.body_mut(), step.events).await
        } else {
            let bytes = response.into_body().collect().await?.to_bytes();
            serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)))
        };
        Ok(Answer { code, content_type, warnings, body })
    }

    fn request(&self, step: &Step) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(step.method.as_str())
            .uri(&step.path)
            .header(header::HOST, &self.address)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::USER_AGENT, "differential/1");
        let body = step.body_text();
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, &step.content_type);
        }
        for (name, value) in &step.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(Bytes::from(body))).with_context(|| format!("{} {}", step.method, step.path))
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            let tcp = tokio::net::TcpStream::connect(&self.address).await.with_context(|| format!("cannot connect to {}", self.address))?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("kubernetes").context("server name")?;
            let tls = tokio_rustls::TlsConnector::from(self.config.clone()).connect(name, tcp).await?;
            let (sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(tls)).await?;
            tokio::spawn(connection);
            self.sender = Some(sender);
        }
        let Some(sender) = &mut self.sender else { bail!("no connection") };
        sender.ready().await?;
        Ok(sender)
    }
}

fn none(why: &str) -> Answer {
    Answer { code: 0, content_type: String::new(), warnings: vec![], body: json!(why) }
}

/// The first `count` events of a watch, or those that came in time.
async fn events(body: &mut hyper::body::Incoming, count: usize) -> Value {
    let mut text = Vec::new();
    let mut read: Vec<Value> = Vec::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while read.len() < count {
        let Ok(Some(Ok(frame))) = tokio::time::timeout_at(deadline, body.frame()).await else { break };
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d));
        read = serde_json::Deserializer::from_slice(&text).into_iter().map_while(Result::ok).collect();
    }
    Value::Array(read)
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
