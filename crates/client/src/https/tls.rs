use rustls::{ClientConfig, RootCertStore};
use tiphys_base::pki;
use tiphys_base::tls::{self, ServerTrust, TlsError};

use super::config::{Config, Identity};
use crate::ClientError;

pub(super) fn connector(config: &Config) -> Result<ClientConfig, ClientError> {
    let mut tls = tls::client(trust(config), certificate(&config.identity)?.as_ref()).map_err(refuse)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
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
