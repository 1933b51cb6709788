//! The process of a cluster: control plane and first node, from an empty directory to ready, and back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tiphys_apiserver::config::{AuditLog, KubeletClient, Pem, PemPair, RequestHeader, ServiceAccounts, Storage};
use tiphys_apiserver::{Config as ServerConfig, Encryption, Running as ApiServer, Server, UserInfo};
use tiphys_base::tasks::Tasks;
use tiphys_base::{Clock, SystemClock};
use tiphys_cli::cluster::{Cluster, Layout, Part};
use tiphys_cli::{ClusterPki, Progress, kubeconfig, pki};
use tiphys_client::{Client, Informers};
use tiphys_types::api::core::v1::Node;
use tokio::signal::unix::{SignalKind, signal};

use crate::node::{self, NodeParts};
use crate::{addons, demo, keeping, late, node_process, renewal};

const STOP_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Options {
    pub(crate) demo: bool,
    /// Say `ready` only when the nodes are and DNS answers.
    pub(crate) wait: bool,
    /// Whether the command that started it stays until Ctrl-C.
    pub(crate) in_front: bool,
    /// How long all of that may take before the reason is told.
    pub(crate) timeout: Duration,
    /// What to log.
    pub(crate) log: String,
}

/// Runs until told to stop by SIGTERM or SIGINT.
pub(crate) async fn run(layout: &Layout, mut cluster: Cluster, options: &Options, progress: &Progress) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let tasks = Tasks::new();
    let started = tokio::select! {
        started = start(layout, &mut cluster, options, progress, &tasks) => started,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let server = match started {
        Ok(server) => server,
        Err(error) => {
            tasks.shut_down(STOP_LIMIT).await;
            return Err(error);
        }
    };
    progress.ready();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tasks.shut_down(STOP_LIMIT).await;
    server.stop().await;
    Ok(())
}

async fn start(layout: &Layout, cluster: &mut Cluster, options: &Options, progress: &Progress, tasks: &Tasks) -> Result<ApiServer> {
    keeping::start(layout, &options.log, tasks).await?;
    let network = cluster.network.clone();
    network.set_up_host(&mut cluster.recorded).context("cannot set the cluster's network up")?;
    layout.save(cluster)?;
    let certificates = ClusterPki::ensure(layout, cluster, SystemClock.now())?;
    progress.step("network and certificates");
    let server = Server::start(server_config(layout, cluster, &certificates)?).await?;
    kubeconfig::write_own(layout, cluster, &certificates)?;
    renewal::start(layout, cluster, certificates.renew_at()?, tasks);
    progress.step(format!("API server at {}", cluster.api_url()));
    let informers = start_control_plane(&server, cluster, &certificates, tasks);
    node_process::start_all(layout, cluster, tasks)?;
    start_first_node(layout, cluster, &certificates, &server, &informers, tasks).await?;
    progress.step("control plane and first node started");
    let admin = server.loopback_client();
    addons::install(&admin, cluster).await?;
    addons::keep_node_ranges(&informers, admin.clone(), cluster.clone(), tasks);
    if options.demo {
        demo::install(&admin).await?;
    }
    let all_there = wait_for_all(&informers, &admin, cluster, options, progress);
    match tokio::time::timeout(options.timeout, all_there).await {
        Ok(there) => there?,
        Err(_) => progress.late(late::reason(&admin, layout, cluster, options).await),
    }
    progress.note(what_next(layout, cluster, options, &admin).await?);
    Ok(server)
}

/// A certificate by its files: what is renewed meanwhile is seen.
fn pair(layout: &Layout, name: &str) -> PemPair {
    let (cert, key) = pki::files(layout, name);
    PemPair { cert: Pem::File(cert), key: Pem::File(key) }
}

fn server_config(layout: &Layout, cluster: &Cluster, certificates: &ClusterPki) -> Result<ServerConfig> {
    let mut config = ServerConfig::new(pair(layout, pki::APISERVER), Pem::Text(certificates.service_account_key.clone()));
    config.bind_address = cluster.api_address;
    config.secure_port = cluster.api_port;
    config.advertise_address = Some(IpAddr::V4(cluster.node_address(1)?));
    config.storage = Storage::Embedded(layout.store());
    config.encryption = Some(encryption_config(&layout.pki().join("encryption.yaml"))?);
    config.audit = Some(AuditLog { path: layout.audit(), ..AuditLog::default() });
    config.service_cluster_ip_ranges = vec![cluster.network.services.to_string()];
    config.service_node_port_range = cluster.node_port_range;
    config.client_ca = Some(Pem::Text(certificates.ca.cert_pem().to_owned()));
    config.service_accounts = ServiceAccounts {
        issuers: vec!["https://kubernetes.default.svc.cluster.local".into()],
        api_audiences: vec![],
        signing_key: Pem::Text(certificates.service_account_key.clone()),
        verify_keys: vec![],
        max_token_expiration_seconds: 0,
        extend_token_expiration: true,
        jwks_uri: None,
    };
    config.kubelet = KubeletClient {
        client: Some(pair(layout, pki::APISERVER_KUBELET_CLIENT)),
        ca: Some(Pem::Text(certificates.ca.cert_pem().to_owned())),
        preferred_address_types: vec!["InternalIP".into()],
    };
    config.request_header = Some(RequestHeader {
        client_ca: Pem::Text(certificates.front_proxy_ca.cert_pem().to_owned()),
        allowed_names: vec!["front-proxy-client".into()],
        username_headers: vec!["X-Remote-User".into()],
        uid_headers: vec!["X-Remote-Uid".into()],
        group_headers: vec!["X-Remote-Group".into()],
        extra_header_prefixes: vec!["X-Remote-Extra-".into()],
    });
    config.components_within = true;
    config.proxy_client = Some(pair(layout, pki::FRONT_PROXY_CLIENT));
    Ok(config)
}

/// Secrets are encrypted at rest with a key of the cluster's own. Whoever edits the file, to rotate the key or to cover more, has it his way.
fn encryption_config(path: &Path) -> Result<PathBuf> {
    if !path.exists() {
        let text = Encryption::generate()?;
        tiphys_base::files::write_atomic(path, text.as_bytes(), 0o600).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(path.to_owned())
}

/// Controllers and scheduler on one set of caches, which the first node's proxy and DNS read too. Either may be another program's.
fn start_control_plane(server: &ApiServer, cluster: &Cluster, pki: &ClusterPki, tasks: &Tasks) -> Informers {
    let manager = server.client(UserInfo::new("system:kube-controller-manager", &[]));
    let informers = Informers::with_tasks(manager.clone(), tasks.child());
    let clients = server.clients();
    let config = tiphys_controllers::Config {
        root_ca: pki.ca.cert_pem().as_bytes().to_vec(),
        signing_ca: pki.ca.cert_pem().as_bytes().to_vec(),
        signing_key: pki.ca.identity().key_pem.as_bytes().to_vec(),
        accounts: Some(Arc::new(move |account: &'static str| clients.of_account("kube-system", account))),
        ..tiphys_controllers::Config::default()
    };
    let ours = |part: Part| !cluster.without.contains(&part);
    let controllers = ours(Part::Controllers).then(|| tiphys_controllers::Controllers::start_with(config, manager, informers.clone()));
    let scheduler = ours(Part::Scheduler).then(|| {
        let client = server.client(UserInfo::new("system:kube-scheduler", &[]));
        tiphys_scheduler::Scheduler::start(tiphys_scheduler::Config::default(), client, &informers)
    });
    let stop = tasks.token();
    tasks.spawn_draining("control plane", async move {
        stop.cancelled().await;
        if let Some(scheduler) = scheduler {
            scheduler.stop().await;
        }
        if let Some(controllers) = controllers {
            controllers.stop().await;
        }
    });
    informers
}

async fn start_first_node(
    layout: &Layout,
    cluster: &Cluster,
    pki: &ClusterPki,
    server: &ApiServer,
    informers: &Informers,
    tasks: &Tasks,
) -> Result<()> {
    let name = cluster.node_name(1);
    let identity = UserInfo::new(format!("system:node:{name}"), &["system:nodes", "system:authenticated"]);
    let parts =
        NodeParts { number: 1, client_ca: pki.ca.cert_pem().to_owned(), client: server.client(identity), informers: informers.clone() };
    node::start(layout, cluster, parts, tasks).await
}

async fn wait_for_all(informers: &Informers, admin: &Client, cluster: &Cluster, options: &Options, progress: &Progress) -> Result<()> {
    if options.wait {
        wait_until_ready(informers, cluster, progress).await?;
    }
    if options.demo {
        demo::wait_until_available(informers).await?;
        demo::wait_for_answer(&demo::url(admin, cluster).await?).await?;
        progress.step("demo application answers");
    }
    Ok(())
}

/// Waits, by watch, until every node is ready, and then for DNS to answer over its Service.
async fn wait_until_ready(informers: &Informers, cluster: &Cluster, progress: &Progress) -> Result<()> {
    let nodes = informers.of::<Node>();
    let mut changes = nodes.subscribe();
    let mut missing: BTreeSet<String> = (1..=cluster.nodes).map(|n| cluster.node_name(n)).collect();
    while !missing.is_empty() {
        let Some(change) = changes.recv().await else { anyhow::bail!("the cluster stops before it was ready") };
        let node = change.object();
        if let (Some(name), true) = (&node.metadata.name, is_ready(node)) {
            missing.remove(name);
        }
    }
    progress.step(if cluster.nodes == 1 { "node ready".to_owned() } else { format!("{} nodes ready", cluster.nodes) });
    addons::wait_for_dns(cluster).await?;
    progress.step("DNS answers");
    Ok(())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

async fn what_next(layout: &Layout, cluster: &Cluster, options: &Options, admin: &Client) -> Result<String> {
    let url = if options.demo { Some(demo::url(admin, cluster).await?) } else { None };
    let name = &cluster.name;
    let file = kubeconfig::users_file()?;
    let mut lines = vec![String::new()];
    lines.extend(url.iter().map(|url| format!("  demo        {url}")));
    lines.push(format!("  kubeconfig  {} (context {})", file.display(), kubeconfig::context_name(name)));
    lines.push(format!("  data, log   {}", layout.cluster_dir().display()));
    lines.push("  try         kubectl get pods -A -o wide".into());
    match url {
        Some(url) => lines.extend([format!("              curl {url}"), "              kubectl scale deployment demo --replicas 5".into()]),
        None => lines.extend([
            "              kubectl create deployment web --image nginx".into(),
            format!("              tiphys status --name {name}"),
        ]),
    }
    lines.push(if options.in_front { "  stop        Ctrl-C".into() } else { format!("  stop        tiphys down --name {name}") });
    Ok(lines.join("\n") + "\n")
}

/// The clock of everything that is started here.
pub(crate) fn clock() -> Arc<dyn Clock> {
    SystemClock::shared()
}
