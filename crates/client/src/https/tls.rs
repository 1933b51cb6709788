use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use tiphys_base::tls::{self, ServerTrust, TlsError};
use tiphys_base::{Reloading, SystemClock, pki};

use super::config::{Config, Identity};
use crate::ClientError;

/// How to speak TLS, and the certificate that may change meanwhile.
pub(super) struct Connector {
    pub(super) tls: Arc<ClientConfig>,
    pub(super) reloading: Option<Arc<Reloading>>,
}

pub(super) fn connector(config: &Config) -> Result<Connector, ClientError> {
    let mut tls = tls::client(trust(config), certificate(&config.identity)?.as_ref()).map_err(refuse)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let Identity::CertificateFiles { chain, key } = &config.identity else {
        return Ok(Connector { tls: Arc::new(tls), reloading: None });
    };
    let clock = config.clock.clone().unwrap_or_else(SystemClock::shared);
    let reloading = Reloading::of_files(chain.clone(), key.clone(), clock);
    let reloading = reloading.map_err(|e| ClientError::Config(format!("{}: {e}", chain.display())))?;
    tls.client_auth_cert_resolver = reloading.clone();
    // A session that is resumed is still the one of the certificate that it began with.
    tls.resumption = Resumption::disabled();
    Ok(Connector { tls: Arc::new(tls), reloading: Some(reloading) })
}

fn trust(config: &Config) -> ServerTrust<'_> {
    match (config.insecure_skip_tls_verify, config.ca.as_slice()) {
        (true, _) => ServerTrust::Anyone,
        (false, []) => ServerTrust::Roots(RootCertStore::empty()),
        (false, ca) => ServerTrust::Ca(ca),
    }
}

fn certificate(identity: &Identity) -> Result<Option<pki::Identity>, ClientError> {
    let Identity::Certificate { chain, key } = identity else { return Ok(None) };
    let text = |pem: &[u8], what: &str| String::from_utf8(pem.to_vec()).map_err(|_| ClientError::Config(format!("{what} is no PEM text")));
    Ok(Some(pki::Identity { cert_pem: text(chain, "the client certificate")?, key_pem: text(key, "the client key")? }))
}

fn refuse(error: TlsError) -> ClientError {
    ClientError::Config(error.to_string())
}
