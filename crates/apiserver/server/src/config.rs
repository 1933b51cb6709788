//! What an API server is told at its start. Flags (`flags.rs`) and the all-in-one program both end here.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tiphys_base::pki::Identity;
use tiphys_base::{Clock, SystemClock};

/// PEM that stands in a file or is already at hand (tests, and a program that has just made it).
#[derive(Clone)]
pub enum Pem {
    File(PathBuf),
    Text(String),
}

impl Pem {
    pub fn read(&self) -> std::io::Result<String> {
        match self {
            Pem::Text(text) => Ok(text.clone()),
            Pem::File(path) => std::fs::read_to_string(path).map_err(|e| std::io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        }
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pem::File(path) => write!(f, "{}", path.display()),
            Pem::Text(_) => f.write_str("(text)"),
        }
    }
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct PemPair {
    pub cert: Pem,
    pub key: Pem,
}

impl PemPair {
    pub fn identity(&self) -> std::io::Result<Identity> {
        Ok(Identity { cert_pem: self.cert.read()?, key_pem: self.key.read()? })
    }
}

impl From<Identity> for PemPair {
    fn from(id: Identity) -> Self {
        PemPair { cert: Pem::Text(id.cert_pem), key: Pem::Text(id.key_pem) }
    }
}

/// Where objects are kept.
#[derive(Clone, Debug)]
pub enum Storage {
    /// The embedded engine in this directory.
    Embedded(PathBuf),
    /// Nowhere but in memory, for tests.
    Memory,
}

impl Storage {
    pub(crate) fn folder(&self) -> Option<&PathBuf> {
        match self {
            Storage::Embedded(folder) => Some(folder),
            Storage::Memory => None,
        }
    }
}

/// An authenticating proxy in front of this server (`--requestheader-*`).
#[derive(Clone, Debug)]
pub struct RequestHeader {
    pub client_ca: Pem,
    /// Common names that may vouch; empty means any that the CA signed.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_header_prefixes: Vec<String>,
}

/// Who this server is to kubelets, and whom it takes for one.
#[derive(Clone, Debug, Default)]
pub struct KubeletClient {
    pub client: Option<PemPair>,
    /// Without it a kubelet's certificate is not verified, as upstream does.
    pub ca: Option<Pem>,
    /// Node address types, in order of preference.
    pub preferred_address_types: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct ServiceAccounts {
    /// Issuers; the first one signs, all are accepted.
    pub issuers: Vec<String>,
    /// What tokens are for when nobody says; the issuer if empty.
    pub api_audiences: Vec<String>,
    /// The private key that signs (EC P-256 or RSA, PEM).
    pub signing_key: Pem,
    /// Keys that verify, public or private; the signing key's is always among them.
    pub verify_keys: Vec<Pem>,
    pub max_token_expiration_seconds: i64,
    pub extend_token_expiration: bool,
    pub jwks_uri: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    Node,
    Rbac,
    AlwaysAllow,
    AlwaysDeny,
}

impl AuthorizationMode {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            AuthorizationMode::Node => "Node",
            AuthorizationMode::Rbac => "RBAC",
            AuthorizationMode::AlwaysAllow => "AlwaysAllow",
            AuthorizationMode::AlwaysDeny => "AlwaysDeny",
        }
    }

    pub(crate) fn named(name: &str) -> Option<AuthorizationMode> {
        use AuthorizationMode::{AlwaysAllow, AlwaysDeny, Node, Rbac};
        [Node, Rbac, AlwaysAllow, AlwaysDeny].into_iter().find(|mode| mode.name() == name)
    }
}

/// An OpenID Connect issuer whose ID tokens are believed (`--oidc-*`).
#[derive(Clone, Debug)]
pub struct OidcIssuer {
    pub url: String,
    /// The audience that its tokens must be for.
    pub client_id: String,
    /// None: the CAs that the machine trusts.
    pub ca: Option<Pem>,
    pub username_claim: String,
    /// None: the issuer's address and `#`, unless the claim is `email`. `-`: none.
    pub username_prefix: Option<String>,
    pub groups_claim: Option<String>,
    pub groups_prefix: String,
    pub required_claims: Vec<(String, String)>,
}

/// The audit log (`--audit-*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLog {
    /// None: what changes something, and what people read, at the level Metadata.
    pub policy_file: Option<PathBuf>,
    /// `-` is standard output.
    pub path: PathBuf,
    pub max_megabytes: u64,
    /// 0 keeps all.
    pub max_backups: usize,
    /// 0 keeps them however old.
    pub max_days: u64,
}

impl Default for AuditLog {
    fn default() -> Self {
        AuditLog { policy_file: None, path: PathBuf::from("audit.log"), max_megabytes: 10, max_backups: 3, max_days: 0 }
    }
}

#[derive(Clone)]
pub struct Config {
    pub bind_address: IpAddr,
    /// 0 takes any free port.
    pub secure_port: u16,
    /// The address that the `kubernetes` Service's endpoints carry.
    pub advertise_address: Option<IpAddr>,
    pub storage: Storage,
    /// An EncryptionConfiguration; without one everything is stored as it is.
    pub encryption: Option<PathBuf>,
    /// An AdmissionConfiguration.
    pub admission: Option<PathBuf>,
    /// Primary range first.
    pub service_cluster_ip_ranges: Vec<String>,
    pub service_node_port_range: (u16, u16),
    pub serving: PemPair,
    pub client_ca: Option<Pem>,
    pub service_accounts: ServiceAccounts,
    pub token_auth_file: Option<PathBuf>,
    pub oidc: Option<OidcIssuer>,
    /// An AuthenticationConfiguration, in the place of `oidc`.
    pub authentication: Option<PathBuf>,
    pub bootstrap_tokens: bool,
    pub anonymous: Anonymous,
    pub authorization: Vec<AuthorizationMode>,
    /// An AuthorizationConfiguration, in the place of `authorization`.
    pub authorization_file: Option<PathBuf>,
    pub kubelet: KubeletClient,
    pub request_header: Option<RequestHeader>,
    pub proxy_client: Option<PemPair>,
    pub audit: Option<AuditLog>,
    pub priority_and_fairness: bool,
    pub max_requests_in_flight: usize,
    pub max_mutating_requests_in_flight: usize,
    pub request_timeout: std::time::Duration,
    pub min_watch_timeout: std::time::Duration,
    /// Scheduler and controllers are tasks of this process.
    pub components_within: bool,
    pub clock: Arc<dyn Clock>,
}

/// What someone without credentials may do before authorization says its word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    Off,
    /// Only these paths, for load balancers and probes.
    Paths(Vec<String>),
    /// Only these paths, and nothing below them (AuthenticationConfiguration).
    Exactly(Vec<String>),
    On,
}

impl Anonymous {
    pub fn health_only() -> Self {
        Anonymous::Paths(["/livez", "/readyz", "/healthz"].map(str::to_owned).to_vec())
    }

    /// The value of the flag; the paths where only some are open.
    pub(crate) fn shown(&self) -> String {
        match self {
            Anonymous::Off => "false".to_owned(),
            Anonymous::On => "true".to_owned(),
            Anonymous::Exactly(open) | Anonymous::Paths(open) => open.join(","),
        }
    }

    /// A path is open with all that stands below it: `/livez/ping` comes with `/livez`.
    pub fn allows(&self, path: &str) -> bool {
        match self {
            Anonymous::Off => false,
            Anonymous::On => true,
            Anonymous::Exactly(open) => open.iter().any(|p| p == path),
            Anonymous::Paths(open) => {
                open.iter().any(|p| path.strip_prefix(p.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
            }
        }
    }
}

impl Config {
    /// Upstream's defaults where it has them; the certificate and the signing key have none.
    pub fn new(serving: PemPair, signing_key: Pem) -> Self {
        Config {
            bind_address: IpAddr::from([0, 0, 0, 0]),
            secure_port: 6443,
            advertise_address: None,
            storage: Storage::Memory,
            encryption: None,
            admission: None,
            service_cluster_ip_ranges: vec!["10.0.0.0/24".into()],
            service_node_port_range: (30000, 32767),
            serving,
            client_ca: None,
            service_accounts: ServiceAccounts {
                issuers: vec!["https://kubernetes.default.svc.cluster.local".into()],
                api_audiences: vec![],
                signing_key,
                verify_keys: vec![],
                max_token_expiration_seconds: 0,
                extend_token_expiration: true,
                jwks_uri: None,
            },
            token_auth_file: None,
            oidc: None,
            authentication: None,
            bootstrap_tokens: true,
            anonymous: Anonymous::health_only(),
            authorization: vec![AuthorizationMode::Node, AuthorizationMode::Rbac],
            authorization_file: None,
            kubelet: KubeletClient::default(),
            request_header: None,
            proxy_client: None,
            audit: None,
            priority_and_fairness: true,
            max_requests_in_flight: 400,
            max_mutating_requests_in_flight: 200,
            request_timeout: std::time::Duration::from_secs(60),
            min_watch_timeout: std::time::Duration::from_secs(1800),
            components_within: false,
            clock: SystemClock::shared(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Anonymous;

    #[test]
    fn only_health_is_open_to_anonymous() {
        let open = Anonymous::health_only();
        for (path, want) in
            [("/livez", true), ("/livez/ping", true), ("/readyz", true), ("/livezz", false), ("/version", false), ("/api", false)]
        {
            assert_eq!(open.allows(path), want, "{path}");
        }
    }
}
