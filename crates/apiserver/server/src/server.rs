//! From configuration to a running server, and back.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tiphys_base::tasks::Tasks;
use tiphys_base::tls::TlsError;
use tiphys_client::{Client, ClientError};
use tiphys_registry::{Cidr, Encryption, Registry, RegistryConfig, UserInfo};
use tokio::net::TcpListener;

use crate::authenticate::bearer::{TokenFileError, read_token_file};
use crate::authenticate::{Authentication, Bearer, Certificates};
use crate::authorize::Authorization;
use crate::authorize::MASTERS;
use crate::authorize::rbac::Rbac;
use crate::bootstrap;
use crate::chain::Door;
use crate::config::{Config, Storage};
use crate::documents::{Checks, Documents};
use crate::in_process::Clients;
use crate::listener;
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::stages::audit::NoAudit;
use crate::stages::flow::Limits;
use crate::streams::{Streams, StreamsError};
use crate::tokens::keys::{KeyError, SigningKey, VerifyKey};
use crate::tokens::{ServiceAccountTokens, Settings};
use crate::webhooks::Webhooks;

/// How long connections may go on after the server was told to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot read a certificate or key: {0}")]
    Read(#[from] std::io::Error),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("service account key: {0}")]
    Key(#[from] KeyError),
    #[error("token file: {0}")]
    TokenFile(#[from] TokenFileError),
    #[error("--service-cluster-ip-range: {0:?} is no address range like 10.96.0.0/16")]
    Range(String),
    #[error("the store: {0}")]
    Store(String),
    #[error("--encryption-provider-config {}: {why}", path.display())]
    Encryption { path: PathBuf, why: String },
    #[error("kubelets: {0}")]
    Streams(#[from] StreamsError),
    #[error("cannot make the first objects: {0}")]
    Bootstrap(#[source] ClientError),
}

pub struct Server;

/// A server that answers. Dropping it does not stop it; [`Running::stop`] does.
pub struct Running {
    door: Arc<Door>,
    tasks: Tasks,
    address: SocketAddr,
    draining: Arc<AtomicBool>,
}

/// PEM texts that several parts need.
struct Material {
    client_ca: Option<String>,
    front_proxy_ca: Option<String>,
}

impl Server {
    /// Binds the configured address and starts. Returns when requests are answered and the first objects are there.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let address = SocketAddr::new(config.bind_address, config.secure_port);
        let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        Self::start_on(listener, config).await
    }

    /// The same on a socket that is bound already.
    pub async fn start_on(listener: TcpListener, config: Config) -> Result<Running, StartError> {
        let address = listener.local_addr()?;
        let material = Material {
            client_ca: config.client_ca.as_ref().map(|p| p.read()).transpose()?,
            front_proxy_ca: config.request_header.as_ref().map(|r| r.client_ca.read()).transpose()?,
        };
        let cas: Vec<&str> = [&material.client_ca, &material.front_proxy_ca].into_iter().flatten().map(String::as_str).collect();
        let tls = listener::tls_config(&config.serving.identity()?, &cas)?;
        let tasks = Tasks::new();
        let ranges = ranges(&config)?;
        let registry = open_registry(&config, &ranges, &tasks).await?;
        let facts = first_facts(&config, address, &ranges, &material);
        let (draining, seeded) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let door = make_door(&config, registry, &material, &facts, &draining, &seeded, &tasks)?;
        tasks.spawn("listener", listener::run(listener, tls, door.clone(), tasks.clone()));
        let running = Running { door, tasks, address, draining };
        running.bootstrap(facts).await?;
        seeded.store(true, Ordering::Relaxed);
        Ok(running)
    }
}

impl Running {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of this process, which asks as `user` and passes the whole chain.
    pub fn client(&self, user: UserInfo) -> Client {
        self.clients().of(user)
    }

    pub fn clients(&self) -> Clients {
        Clients::new(self.door.clone())
    }

    /// The server itself, which may do everything.
    pub fn loopback_client(&self) -> Client {
        self.client(UserInfo::new("system:apiserver", &[MASTERS]))
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.door.registry
    }

    async fn bootstrap(&self, facts: bootstrap::Facts) -> Result<(), StartError> {
        let client = self.loopback_client();
        let objects = self.door.objects.clone();
        bootstrap::ensure(&client, objects.as_ref(), &facts).await.map_err(StartError::Bootstrap)?;
        let rbac = self.door.authorization.rbac.clone();
        self.door.registry.catch_up().await;
        rbac.refresh();
        self.tasks.spawn("rbac policy", bootstrap::follow_policy(client.clone(), rbac));
        self.tasks.spawn("kubernetes service", bootstrap::keep_kubernetes_service(client, objects, facts));
        Ok(())
    }

    /// Stops: `/readyz` fails, watches and streams end, no new connections, then waits for what is under way.
    pub async fn stop(self) -> bool {
        self.draining.store(true, Ordering::Relaxed);
        self.tasks.shut_down(DRAIN_LIMIT).await
    }
}

fn ranges(config: &Config) -> Result<Vec<Cidr>, StartError> {
    config.service_cluster_ip_ranges.iter().map(|text| Cidr::parse(text).ok_or_else(|| StartError::Range(text.clone()))).collect()
}

async fn open_registry(config: &Config, ranges: &[Cidr], tasks: &Tasks) -> Result<Arc<Registry>, StartError> {
    let settings = RegistryConfig {
        service_cidrs: ranges.to_vec(),
        node_ports: config.service_node_port_range,
        min_watch_timeout: config.min_watch_timeout,
        clock: config.clock.clone(),
        encryption: encryption(config)?,
        tasks: tasks.child(),
        ..RegistryConfig::default()
    };
    let folder = match &config.storage {
        Storage::Embedded(path) => Some(path.as_path()),
        Storage::Memory => None,
    };
    Registry::open(folder, settings).await.map_err(|e| StartError::Store(e.to_string()))
}

fn encryption(config: &Config) -> Result<Encryption, StartError> {
    let Some(path) = &config.encryption else { return Ok(Encryption::default()) };
    let refused = |why: String| StartError::Encryption { path: path.clone(), why };
    let text = std::fs::read(path).map_err(|e| refused(e.to_string()))?;
    Encryption::parse(&text).map_err(|e| refused(e.to_string()))
}

fn first_facts(config: &Config, bound: SocketAddr, ranges: &[Cidr], material: &Material) -> bootstrap::Facts {
    let fallback = if bound.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { bound.ip() };
    let rules = config.request_header.clone();
    bootstrap::Facts {
        advertise_address: config.advertise_address.unwrap_or(fallback),
        secure_port: bound.port(),
        service_ip: ranges.first().map_or(IpAddr::from([10, 0, 0, 1]), first_address),
        service_ranges: config.service_cluster_ip_ranges.clone(),
        client_ca: material.client_ca.clone(),
        request_header: rules.and_then(|rules| Some((rules, material.front_proxy_ca.clone()?))),
        today: config.clock.now().strftime("%Y-%m-%d").to_string(),
    }
}

/// The first address of a range that a Service may have; the `kubernetes` Service has it.
fn first_address(range: &Cidr) -> IpAddr {
    match range.base {
        IpAddr::V4(v4) => IpAddr::from((u32::from(v4) + 1).to_be_bytes()),
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) + 1).to_be_bytes()),
    }
}

fn make_door(
    config: &Config,
    registry: Arc<Registry>,
    material: &Material,
    facts: &bootstrap::Facts,
    draining: &Arc<AtomicBool>,
    seeded: &Arc<AtomicBool>,
    tasks: &Tasks,
) -> Result<Arc<Door>, StartError> {
    let objects: Arc<dyn Objects> = Arc::new(crate::objects::Cached::new(registry.clone()));
    let tokens = Arc::new(service_account_tokens(config, facts, objects.clone())?);
    let fixed = config.token_auth_file.as_deref().map(read_token_file).transpose()?.unwrap_or_else(HashMap::new);
    let bootstrap_secrets = config.bootstrap_tokens.then(|| objects.clone());
    let bearer = Arc::new(Bearer::new(fixed, tokens.clone(), bootstrap_secrets, config.clock.clone()));
    let certificates = Certificates::new(material.client_ca.as_deref(), material.front_proxy_ca.as_deref(), config.clock.clone())?;
    let rbac = Rbac::new(objects.clone());
    let authorization = Arc::new(Authorization::new(config.authorization.clone(), rbac, objects.clone()));
    registry.set_authorizer(authorization.clone());
    let streams = Streams::new(&config.kubelet)?;
    let webhooks = Arc::new(Webhooks::new(objects.clone(), streams.dialer.clone()));
    registry.set_webhooks(webhooks.clone());
    let mut checks = Checks::default();
    checks.add("ping", || Ok(()));
    checks.add("log", || Ok(()));
    let stored = registry.clone();
    checks.add("etcd", move || stored.refusal().map_or(Ok(()), Err));
    let seeded = seeded.clone();
    let waiting = || Err("not finished".to_owned());
    checks.add_ready("poststarthook/rbac/bootstrap-roles", move || if seeded.load(Ordering::Relaxed) { Ok(()) } else { waiting() });
    let draining = draining.clone();
    checks.add_ready("shutdown", move || if draining.load(Ordering::Relaxed) { Err("process is shutting down".into()) } else { Ok(()) });
    Ok(Arc::new(Door {
        authentication: Authentication::new(certificates, bearer, config.request_header.clone(), config.anonymous.clone()),
        authorization,
        registry,
        objects,
        tokens,
        documents: Documents { checks, address: format!("{}:{}", facts.advertise_address, facts.secure_port) },
        streams,
        webhooks,
        metrics: Metrics::default(),
        limits: Limits::new(config.max_requests_in_flight, config.max_mutating_requests_in_flight),
        audit: Arc::new(NoAudit),
        clock: config.clock.clone(),
        request_timeout: config.request_timeout,
        stop: tasks.token(),
    }))
}

fn service_account_tokens(
    config: &Config,
    facts: &bootstrap::Facts,
    objects: Arc<dyn Objects>,
) -> Result<ServiceAccountTokens, StartError> {
    let accounts = &config.service_accounts;
    let signing = SigningKey::from_pem(&accounts.signing_key.read()?)?;
    let mut others = Vec::new();
    for pem in &accounts.verify_keys {
        others.extend(VerifyKey::all_from_pem(&pem.read()?)?);
    }
    let mut audiences = accounts.api_audiences.clone();
    if audiences.is_empty() {
        audiences = accounts.issuers.iter().take(1).cloned().collect();
    }
    let here = || format!("https://{}:{}/openid/v1/jwks", facts.advertise_address, facts.secure_port);
    let settings = Settings {
        issuers: accounts.issuers.clone(),
        api_audiences: audiences,
        max_expiration_seconds: accounts.max_token_expiration_seconds,
        extend_expiration: accounts.extend_token_expiration,
        jwks_uri: accounts.jwks_uri.clone().unwrap_or_else(here),
    };
    Ok(ServiceAccountTokens::new(settings, signing, others, objects, config.clock.clone()))
}
