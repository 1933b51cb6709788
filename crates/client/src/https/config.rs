use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use tiphys_base::Clock;

use super::kubeconfig;
use crate::ClientError;

/// Whom the requests are from.
#[derive(Clone, Default)]
pub enum Identity {
    #[default]
    Anonymous,
    /// PEM: the chain and the private key.
    Certificate {
        chain: Vec<u8>,
        key: Vec<u8>,
    },
    /// The same in files, which may be replaced while the process runs; connections are then made anew.
    CertificateFiles {
        chain: PathBuf,
        key: PathBuf,
    },
    Token(String),
    /// Read again for every request: the kubelet rotates it.
    TokenFile(PathBuf),
    Basic {
        username: String,
        password: String,
    },
}

/// Where the API server is and how to speak to it.
#[derive(Clone, Default)]
pub struct Config {
    /// `https://host:port`, with a path prefix where there is one.
    pub server: String,
    /// PEM certificates that may sign the server's; none: the machine's public ones are not used, so nothing is trusted.
    pub ca: Vec<u8>,
    pub insecure_skip_tls_verify: bool,
    /// The name to check the server's certificate for, where it is not the host's.
    pub tls_server_name: String,
    pub identity: Identity,
    pub user_agent: String,
    /// The namespace of a kubeconfig's context, for commands.
    pub namespace: String,
    /// `Impersonate-User`; empty: none.
    pub impersonate: String,
    /// By which files are looked at again; none: the machine's.
    pub clock: Option<Arc<dyn Clock>>,
}

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

impl Config {
    pub fn from_kubeconfig(path: &Path, context: &str) -> Result<Self, ClientError> {
        let text = read(path)?;
        kubeconfig::parse(&text, path.parent().unwrap_or(Path::new(".")), context)
            .map_err(|reason| ClientError::Config(format!("{}: {reason}", path.display())))
    }

    pub fn from_kubeconfig_text(text: &[u8], context: &str) -> Result<Self, ClientError> {
        kubeconfig::parse(text, Path::new("."), context).map_err(ClientError::Config)
    }

    pub fn in_cluster() -> Result<Self, ClientError> {
        let variable = |name: &str| std::env::var(name).map_err(|_| ClientError::Config(format!("{name} is not set: not inside a pod")));
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        let folder = Path::new(SERVICE_ACCOUNT);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(Config {
            server: format!("https://{host}:{port}"),
            ca: read(&folder.join("ca.crt"))?,
            identity: Identity::TokenFile(folder.join("token")),
            namespace: String::from_utf8(read(&folder.join("namespace"))?).unwrap_or_default().trim().to_owned(),
            ..Config::default()
        })
    }

    pub(super) async fn add_headers(&self, headers: &mut HeaderMap) -> Result<(), ClientError> {
        let agent = if self.user_agent.is_empty() { concat!("tiphys/", env!("CARGO_PKG_VERSION")) } else { &self.user_agent };
        headers.insert(USER_AGENT, header_value(agent)?);
        if !self.impersonate.is_empty() {
            headers.insert(HeaderName::from_static("impersonate-user"), header_value(&self.impersonate)?);
        }
        if let Some(authorization) = self.authorization().await? {
            let mut value = header_value(&authorization)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(())
    }

    async fn authorization(&self) -> Result<Option<String>, ClientError> {
        use base64::Engine;
        Ok(match &self.identity {
            Identity::Anonymous | Identity::Certificate { .. } | Identity::CertificateFiles { .. } => None,
            Identity::Token(token) => Some(format!("Bearer {token}")),
            Identity::TokenFile(path) => {
                let token = tokio::fs::read_to_string(path).await.map_err(|e| ClientError::Config(format!("{}: {e}", path.display())))?;
                Some(format!("Bearer {}", token.trim()))
            }
            Identity::Basic { username, password } => {
                Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"))))
            }
        })
    }
}

fn header_value(text: &str) -> Result<HeaderValue, ClientError> {
    HeaderValue::from_str(text).map_err(|_| ClientError::Config("a header value holds characters that HTTP does not allow".into()))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|e| ClientError::Config(format!("{}: {e}", path.display())))
}
