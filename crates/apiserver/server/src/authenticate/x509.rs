//! Client certificates: the common name is the user, the organizations are the groups.
//!
//! The handshake proves only that the peer holds the key; whether the certificate is one of ours is asked afterwards, once per connection,
//! so that a bad one is answered with 401 as upstream does, not with a broken connection. Absent: revocation.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::DistinguishedName;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tiphys_base::{Clock, tls};
use tiphys_registry::UserInfo;
use x509_parser::prelude::FromDer;

use super::authenticated;

/// What a connection's certificate says. Made once, when the connection comes.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// None: no certificate.
    pub client: Option<Result<Arc<UserInfo>, String>>,
    /// The common name of an authenticating proxy.
    pub front_proxy: Option<String>,
    /// Its address without the port, as it is written into logs and headers; empty: not known.
    pub ip: String,
    /// The client runs on this machine.
    pub near: bool,
}

/// The CAs that vouch for clients and for front proxies.
pub struct Certificates {
    clients: Option<Arc<dyn ClientCertVerifier>>,
    front_proxies: Option<Arc<dyn ClientCertVerifier>>,
    clock: Arc<dyn Clock>,
}

impl Certificates {
    pub fn new(client_ca: Option<&str>, front_proxy_ca: Option<&str>, clock: Arc<dyn Clock>) -> Result<Self, tls::TlsError> {
        let verifier = |pem: Option<&str>| pem.map(|pem| verifier(pem.as_bytes())).transpose();
        Ok(Certificates { clients: verifier(client_ca)?, front_proxies: verifier(front_proxy_ca)?, clock })
    }

    pub fn examine(&self, chain: &[CertificateDer<'_>], ip: IpAddr) -> Peer {
        let ip = ip.to_string();
        let Some((leaf, rest)) = chain.split_first() else { return Peer { ip, ..Peer::default() } };
        let seconds = u64::try_from(self.clock.now().as_second()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let by = |ca: &Option<Arc<dyn ClientCertVerifier>>| ca.as_ref().map(|v| v.verify_client_cert(leaf, rest, now));
        let front_proxy = match by(&self.front_proxies) {
            Some(Ok(_)) => user_of(leaf).ok().map(|u| u.name.clone()),
            _ => None,
        };
        let client = match by(&self.clients) {
            Some(Ok(_)) => Some(user_of(leaf)),
            Some(Err(_)) if front_proxy.is_some() => None,
            Some(Err(error)) => Some(Err(format!("x509: {error}"))),
            None => None,
        };
        Peer { client, front_proxy, ip, near: false }
    }
}

fn verifier(ca_pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, tls::TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(tls::roots(ca_pem)?), tls::provider())
        .build()
        .map_err(|e| tls::TlsError::Verifier(e.to_string()))
}

/// The user UID that a certificate may carry in its subject (KEP-5607's object identifier).
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

fn user_of(der: &CertificateDer<'_>) -> Result<Arc<UserInfo>, String> {
    let (_, cert) = x509_parser::certificate::X509Certificate::from_der(der).map_err(|e| format!("x509: {e}"))?;
    let subject = cert.subject();
    let name = subject.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or("");
    if name.is_empty() {
        return Err("x509: subject common name is empty".into());
    }
    let mut user = UserInfo::new(name, &[]);
    user.groups = subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
    let uid = subject.iter_attributes().find(|a| a.attr_type().to_id_string() == UID_OID).and_then(|a| a.as_str().ok());
    user.uid = uid.unwrap_or_default().to_owned();
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("X509SHA256={hex}")]);
    Ok(Arc::new(authenticated(user)))
}

/// Asks for a certificate, takes any and none; signatures are checked.
#[derive(Debug)]
pub struct AskForCertificate {
    provider: Arc<CryptoProvider>,
    hints: Vec<DistinguishedName>,
}

impl AskForCertificate {
    pub fn new(ca_pems: &[&str]) -> Result<Arc<Self>, tls::TlsError> {
        let mut hints = Vec::new();
        for pem in ca_pems {
            hints.extend(tls::roots(pem.as_bytes())?.subjects());
        }
        Ok(Arc::new(AskForCertificate { provider: tls::provider(), hints }))
    }
}

impl ClientCertVerifier for AskForCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tiphys_base::SystemClock;
    use tiphys_base::pki::{Authority, Names, Subject, Use};

    use super::*;

    #[test]
    fn certificates_name_users_and_groups() {
        let now = SystemClock.now();
        let day = Duration::from_secs(86_400);
        let ca = Authority::generate("kubernetes-ca", now, day).expect("CA");
        let other = Authority::generate("other", now, day).expect("CA");
        let certificates = Certificates::new(Some(ca.cert_pem()), Some(other.cert_pem()), SystemClock::shared()).expect("CAs");
        let subject = Subject { common_name: "system:node:a".into(), organizations: vec!["system:nodes".into()] };
        let of = |ca: &Authority, usage| {
            let id = ca.issue(&subject, &Names::default(), usage, now, day).expect("issued");
            certificates.examine(&tls::certificates(id.cert_pem.as_bytes()).expect("PEM"), IpAddr::from([10, 0, 0, 1]))
        };
        let good = of(&ca, Use::Client).client.expect("a client").expect("verified");
        assert_eq!(
            (good.name.as_str(), good.groups.as_slice()),
            ("system:node:a", &["system:nodes".to_owned(), "system:authenticated".to_owned()][..])
        );
        assert!(good.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
        assert!(of(&ca, Use::Server).client.expect("a client").is_err());
        let proxy = of(&other, Use::Client);
        assert!(proxy.client.is_none());
        assert_eq!(proxy.front_proxy.as_deref(), Some("system:node:a"));
        assert!(certificates.examine(&[], IpAddr::from([10, 0, 0, 1])).client.is_none());
    }
}
