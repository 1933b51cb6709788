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

use crate::admission_config;
use crate::aggregate::{self, Aggregator};
use crate::audit::{Audit, AuditError};
use crate::authenticate;
use crate::authenticate::bearer::{TokenFileError, read_token_file};
use crate::authenticate::claims::Authenticator;
use crate::authenticate::issuers::Issuers;
use crate::authenticate::oidc::OidcError;
use crate::authenticate::{Authentication, Bearer, Certificates, authenticated};
use crate::authorize::MASTERS;
use crate::authorize::rbac::Rbac;
use crate::authorize::{self, Authorization, Member};
use crate::body::Body;
use crate::bootstrap;
use crate::chain::{Door, Origin};
use crate::config::Config;
use crate::config_file::{self, ConfigFileError};
use crate::documents::catalogue::Catalogue;
use crate::documents::{Checks, Documents};
use crate::flow::Flow;
use crate::identity::{ReloadingError, reloading};
use crate::in_process::Clients;
use crate::lease::Lease;
use crate::listener;
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::resource_metrics::ResourceMetrics;
use crate::streams::{Streams, StreamsError};
use crate::tokens::keys::{KeyError, SigningKey, VerifyKey};
use crate::tokens::{ServiceAccountTokens, Settings};
use crate::watched_file::WatchedFile;
use crate::webhooks::Webhooks;

/// How long connections may go on after the server was told to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// What upstream's server names as done after its start, and ours has done when its first objects are there.
const AT_START: [&str; 27] = [
    "poststarthook/storage-readiness",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/apiservice-openapiv3-controller",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-kube-apiserver-identity-lease-controller",
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-openapi-controller",
];

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot read a certificate or key: {0}")]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Oidc(#[from] OidcError),
    #[error(transparent)]
    File(#[from] ConfigFileError),
    #[error("serving certificate: {0}")]
    Identity(#[from] ReloadingError),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("service account key: {0}")]
    Key(#[from] KeyError),
    #[error("token file: {0}")]
    TokenFile(#[from] TokenFileError),
    #[error("--service-cluster-ip-range: {0:?} is no address range like 10.96.0.0/16")]
    Range(String),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("the store: {0}")]
    Store(String),
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
    signs: Signs,
    lease: Arc<Lease>,
}

/// How far the server is in its life, for the checks of its health.
#[derive(Default, Clone)]
struct Signs {
    started: Arc<AtomicBool>,
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
        let tls = listener::tls_config(reloading(&config.serving, &config.clock)?, &cas)?;
        let tasks = Tasks::new();
        let ranges = ranges(&config)?;
        let registry = open_registry(&config, &ranges, &tasks).await?;
        let facts = first_facts(&config, address, &ranges, &material);
        let signs = Signs::default();
        let door = make_door(&config, registry, &material, &facts, &signs, &tasks)?;
        tasks.spawn("listener", listener::run(listener, tls, door.clone(), tasks.clone()));
        let lease = Arc::new(Lease::new(myself(&door), config.clock.clone(), &door.documents.address));
        let running = Running { door, tasks, address, signs, lease };
        running.bootstrap(facts).await?;
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

    /// One HTTP request without a socket, asked by a user of this process.
    pub async fn answer(&self, request: http::Request<bytes::Bytes>, user: UserInfo) -> http::Response<Body> {
        let user = Arc::new(authenticated(user));
        self.door.serve(request.map(crate::body::full), Origin::InProcess(user)).await
    }

    /// The server itself, which may do everything.
    pub fn loopback_client(&self) -> Client {
        myself(&self.door)
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
        self.signs.started.store(true, Ordering::Relaxed);
        self.tasks.spawn("rbac policy", bootstrap::follow_policy(client.clone(), rbac));
        self.tasks.spawn("kubernetes service", bootstrap::keep_kubernetes_service(client.clone(), objects, facts));
        let keeping = crate::flow::keep::run(self.door.flow.clone(), self.door.registry.clone(), self.door.objects.clone(), client.clone());
        self.tasks.spawn("flow control", keeping);
        let (aggregator, registry) = (&self.door.aggregator, &self.door.registry);
        self.tasks.spawn("local api services", aggregate::local::run(aggregator.clone(), registry.clone(), client.clone()));
        self.tasks.spawn("lease", self.lease.clone().keep());
        self.tasks.spawn("api service availability", aggregate::availability::run(aggregator.clone(), registry.clone(), client));
        Ok(())
    }

    /// Stops: `/readyz` fails, watches and streams end, no new connections, then waits for what is under way.
    pub async fn stop(self) -> bool {
        self.signs.draining.store(true, Ordering::Relaxed);
        self.lease.give_up().await;
        self.tasks.shut_down(DRAIN_LIMIT).await
    }
}

fn myself(door: &Arc<Door>) -> Client {
    Clients::new(door.clone()).of(UserInfo::new("system:apiserver", &[MASTERS]))
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
        pod_security: config.admission.as_deref().map(admission_config::read).transpose()?.unwrap_or_default(),
        tasks: tasks.child(),
        ..RegistryConfig::default()
    };
    Registry::open(config.storage.folder().map(PathBuf::as_path), settings).await.map_err(|e| StartError::Store(e.to_string()))
}

fn encryption(config: &Config) -> Result<Encryption, StartError> {
    let Some(path) = &config.encryption else { return Ok(Encryption::default()) };
    Ok(config_file::read("encryption-provider-config", path, |text| Encryption::parse(text).map_err(|e| e.to_string()))?)
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

/// Whose JWTs are believed, by the file or by the flags.
fn authentication_settings(config: &Config) -> Result<authenticate::config::Settings, StartError> {
    match &config.authentication {
        Some(path) => Ok(authenticate::config::read(path, &config.service_accounts.issuers)?),
        None => Ok(authenticate::config::Settings {
            jwt: config.oidc.clone().map(Authenticator::of_flags).into_iter().collect(),
            anonymous: None,
        }),
    }
}

fn authorizers(config: &Config) -> Result<Vec<Member>, StartError> {
    match &config.authorization_file {
        Some(path) => Ok(authorize::config::read(path)?),
        None => Ok(config.authorization.iter().cloned().map(Member::Mode).collect()),
    }
}

fn make_door(
    config: &Config,
    registry: Arc<Registry>,
    material: &Material,
    facts: &bootstrap::Facts,
    signs: &Signs,
    tasks: &Tasks,
) -> Result<Arc<Door>, StartError> {
    let objects: Arc<dyn Objects> = Arc::new(crate::objects::Cached::new(registry.clone()));
    let tokens = Arc::new(service_account_tokens(config, facts, objects.clone())?);
    let fixed = config.token_auth_file.as_deref().map(read_token_file).transpose()?.unwrap_or_else(HashMap::new);
    let bootstrap_secrets = config.bootstrap_tokens.then(|| objects.clone());
    let streams = Streams::new(&config.kubelet, &config.clock)?;
    let settings = authentication_settings(config)?;
    let file = config.authentication.clone().map(|path| (path, config.service_accounts.issuers.clone()));
    let anonymous = settings.anonymous.unwrap_or_else(|| config.anonymous.clone());
    let believes = file.is_some() || !settings.jwt.is_empty();
    let issuers = Issuers::new(settings.jwt, file, config.clock.clone(), streams.dialer.clone(), tasks)?;
    let issuers = believes.then_some(issuers);
    let bearer = Arc::new(Bearer::new(fixed, tokens.clone(), bootstrap_secrets, issuers, config.clock.clone()));
    let certificates = Certificates::new(material.client_ca.as_deref(), material.front_proxy_ca.as_deref(), config.clock.clone())?;
    let rbac = Rbac::new(objects.clone());
    let file = config.authorization_file.clone().map(|path| WatchedFile::new(path, "authorization", config.clock.clone()));
    let authorization = Arc::new(Authorization::new(authorizers(config)?, file, rbac, objects.clone()));
    registry.set_authorizer(authorization.clone());
    let webhooks = Webhooks::new(objects.clone(), streams.dialer.clone(), Some(authorization.clone()), Arc::downgrade(&registry));
    let webhooks = Arc::new(webhooks);
    registry.set_webhooks(webhooks.clone());
    let catalogue: Arc<Catalogue> = Arc::default();
    let front_proxy = config.proxy_client.as_ref().map(|pair| reloading(pair, &config.clock)).transpose()?;
    let aggregator = Arc::new(Aggregator::new(objects.clone(), streams.dialer.clone(), front_proxy, catalogue.clone()));
    let audit = match &config.audit {
        Some(log) => Audit::new(log, config.clock.clone(), tasks)?,
        None => Audit::off(),
    };
    let mut checks = Checks::default();
    checks.add("ping", || Ok(()));
    checks.add("log", || Ok(()));
    let stored = registry.clone();
    checks.add("etcd", move || stored.refusal().map_or(Ok(()), Err));
    checks.add_ready("etcd-readiness", || Ok(()));
    checks.add_ready("informer-sync", || Ok(()));
    checks.add_started(&signs.started, &AT_START);
    checks.add_started(&aggregator.registered, &["poststarthook/kube-apiserver-autoregistration", "autoregister-completion"]);
    let draining = signs.draining.clone();
    checks.add_ready("shutdown", move || if draining.load(Ordering::Relaxed) { Err("process is shutting down".into()) } else { Ok(()) });
    Ok(Arc::new(Door {
        authentication: Authentication::new(certificates, bearer, config.request_header.clone(), anonymous),
        authorization,
        registry,
        objects,
        tokens,
        documents: Documents::new(checks, format!("{}:{}", facts.advertise_address, facts.secure_port), catalogue, config),
        streams,
        webhooks,
        aggregator,
        metrics: Metrics::default(),
        resource_metrics: ResourceMetrics::default(),
        components_within: config.components_within,
        flow: Arc::new(flow_of(config)),
        rooms: crate::rooms::Rooms::default(),
        audit,
        clock: config.clock.clone(),
        request_timeout: config.request_timeout,
        stop: tasks.token(),
    }))
}

/// The seats are upstream's: as many as both in-flight limits allow together. A request waits at most a quarter of its time.
fn flow_of(config: &Config) -> Flow {
    let seats = config.max_requests_in_flight.saturating_add(config.max_mutating_requests_in_flight);
    let patience = (config.request_timeout / 4).min(Duration::from_secs(60));
    Flow::new(u32::try_from(seats).unwrap_or(u32::MAX).clamp(1, 1 << 20), patience, config.priority_and_fairness)
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
