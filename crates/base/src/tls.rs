//! TLS configurations over rustls with ring. The provider is always passed, never installed for the process.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::pki::Identity;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} is no usable PEM: {detail}")]
    Pem { what: &'static str, detail: String },
    #[error("TLS configuration refused")]
    Rustls(#[from] rustls::Error),
    #[error("client certificate verifier: {0}")]
    Verifier(String),
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TlsError::Pem { what: "the certificate", detail: e.to_string() })
        .and_then(|certs| {
            if certs.is_empty() { Err(TlsError::Pem { what: "the certificate", detail: "no CERTIFICATE block".into() }) } else { Ok(certs) }
        })
}

pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| TlsError::Pem { what: "the private key", detail: e.to_string() })
}

pub fn roots(ca_pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for cert in certificates(ca_pem)? {
        store.add(cert)?;
    }
    Ok(store)
}

/// Where machines keep the CAs that they trust, by distribution: the files that Go's crypto/x509 looks at too.
const MACHINE_CAS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What the machine trusts, read once; nobody, where it has no such file. `SSL_CERT_FILE` names another.
fn machine_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let files = || match std::env::var_os("SSL_CERT_FILE") {
        Some(named) => vec![PathBuf::from(named)],
        None => MACHINE_CAS.iter().map(PathBuf::from).collect(),
    };
    ROOTS.get_or_init(|| Arc::new(first_roots(&files()))).clone()
}

/// The CAs in the first of the files that is there, without those that cannot be used.
fn first_roots(files: &[PathBuf]) -> RootCertStore {
    let pem = files.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    store
}

/// Whose certificate a client accepts.
pub enum ServerTrust<'a> {
    /// Signed by one of these CAs (PEM).
    Ca(&'a [u8]),
    Roots(RootCertStore),
    /// Signed by one of the CAs that the machine trusts.
    Machine,
    /// Anyone's. Only where the user has said so (`insecure-skip-tls-verify`).
    Anyone,
}

/// A client configuration; `identity` is its client certificate. ALPN is the caller's to set.
pub fn client(trust: ServerTrust<'_>, identity: Option<&Identity>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match trust {
        ServerTrust::Ca(pem) => builder.with_root_certificates(roots(pem)?),
        ServerTrust::Roots(roots) => builder.with_root_certificates(roots),
        ServerTrust::Machine => builder.with_root_certificates(machine_roots()),
        ServerTrust::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnyone(provider()))),
    };
    Ok(match identity {
        Some(id) => builder.with_client_auth_cert(certificates(id.cert_pem.as_bytes())?, private_key(id.key_pem.as_bytes())?)?,
        None => builder.with_no_client_auth(),
    })
}

/// A server configuration with one certificate for good.
pub fn server(identity: &Identity, client_ca: Option<&[u8]>, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let key = CertifiedKey::from_der(certificates(identity.cert_pem.as_bytes())?, private_key(identity.key_pem.as_bytes())?, &provider())?;
    server_showing(Arc::new(SingleCertAndKey::from(key)), client_ca, alpn)
}

/// A server configuration. With `client_ca` (PEM) a client may show a certificate, and one that does not verify is refused.
pub fn server_showing(identity: Arc<dyn ResolvesServerCert>, client_ca: Option<&[u8]>, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match client_ca {
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider())
                .allow_unauthenticated()
                .build()
                .map_err(|e| TlsError::Verifier(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(identity);
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}

/// Webpki verification against `ca_pem` of a server whose name is checked by the caller's `ServerName`.
pub fn server_verifier(ca_pem: &[u8]) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider()).build().map_err(|e| TlsError::Verifier(e.to_string()))
}

#[derive(Debug)]
struct TrustAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::pki::{Authority, Names, Subject, Use};
    use std::time::Duration;

    #[test]
    fn an_issued_certificate_serves_and_verifies() {
        let now = SystemClock.now();
        let day = Duration::from_secs(86_400);
        let ca = Authority::generate("kubernetes-ca", now, day).expect("CA");
        let again = Authority::load(ca.identity().clone()).expect("loads");
        let names = Names { dns: vec!["localhost".into()], ips: vec!["127.0.0.1".parse().expect("address")] };
        let id = again
            .issue(&Subject { common_name: "x".into(), organizations: vec!["system:masters".into()] }, &names, Use::Both, now, day)
            .expect("issued");
        let verifier = server_verifier(ca.cert_pem().as_bytes()).expect("verifier");
        let cert = &certificates(id.cert_pem.as_bytes()).expect("PEM")[0];
        let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).expect("after 1970")));
        verifier.verify_server_cert(cert, &[], &ServerName::try_from("127.0.0.1").expect("name"), &[], at).expect("good");
        assert!(verifier.verify_server_cert(cert, &[], &ServerName::try_from("10.0.0.1").expect("name"), &[], at).is_err());
        server(&id, Some(ca.cert_pem().as_bytes()), &[b"h2"]).expect("server");
        client(ServerTrust::Ca(ca.cert_pem().as_bytes()), Some(&id)).expect("client");
    }

    #[test]
    fn what_the_machine_trusts_is_the_first_file_that_is_there() {
        let folder = tempfile::tempdir().expect("folder");
        let ca = Authority::generate("corporate", SystemClock.now(), Duration::from_secs(86_400)).expect("CA");
        let path = |name: &str| folder.path().join(name);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(path("second"), format!("# a comment\n{broken}{}", ca.cert_pem())).expect("written");
        std::fs::write(path("third"), "").expect("written");
        assert_eq!(first_roots(&[path("first"), path("second"), path("third")]).len(), 1);
        assert!(first_roots(&[path("first")]).is_empty(), "nobody");
        client(ServerTrust::Machine, None).expect("whatever this machine has");
    }
}
