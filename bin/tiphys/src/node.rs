//! A node put together: images, pod network, runtime, kubelet, service proxy, DNS and routes, in the calling process's network namespace.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tiphys_base::tasks::Tasks;
use tiphys_cli::cluster::{Cluster, Layout};
use tiphys_cli::pki;
use tiphys_client::{Client, Delta, Informers};
use tiphys_cni::node::Neighbour;
use tiphys_kubelet::{Config as KubeletConfig, Kubelet};
use tiphys_proxy::{NodeConfig, Proxy, Range};
use tiphys_runtime::{EmbeddedRuntime, RuntimeConfig};
use tiphys_types::api::core::v1::Node;

use crate::image_pull;
use crate::images::{NodeImages, open_store};
use crate::keeping;
use crate::pod_network::RoutedPods;

pub(crate) struct NodeParts {
    pub(crate) number: u32,
    pub(crate) client_ca: String,
    /// The kubelet's own.
    pub(crate) client: Client,
    /// What the proxy, DNS and routes read.
    pub(crate) informers: Informers,
}

/// The link that leads to the other nodes.
pub(crate) fn uplink(cluster: &Cluster, number: u32) -> &str {
    if number == 1 { &cluster.network.bridge } else { "eth0" }
}

pub(crate) async fn start(layout: &Layout, cluster: &Cluster, parts: NodeParts, tasks: &Tasks) -> Result<()> {
    let folder = layout.node(parts.number);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    share_mounts(&folder)?;
    Proxy::start(&cluster.table("services"), proxy_config(cluster, parts.number), &parts.informers, tasks)?;
    start_dns(cluster, parts.number, &parts.informers, tasks).await?;
    keep_routes(cluster, parts.number, &parts.informers, tasks);
    let store = open_store(&layout.images(), &cluster.registry_mirrors, cluster.registry_hosts_dir.clone())?;
    let socket = image_pull::socket(&layout.cluster_dir());
    if parts.number == 1 {
        image_pull::serve(&socket, store.clone(), tasks)?;
    }
    let puller = (parts.number > 1).then_some(socket);
    let images = Arc::new(NodeImages::new(store, cluster.node_name(parts.number), puller));
    images.register_builtin().await?;
    let runtime = open_runtime(layout, cluster, parts.number, images.clone()).await?;
    let config = kubelet_config(layout, cluster, &parts)?;
    Kubelet::start(config, parts.client, Arc::new(runtime), images, crate::cluster::clock(), tasks).await?;
    Ok(())
}

/// Mounts that a pod makes in its volumes must be seen outside it, so the node's folder is a shared mount of its own.
pub(crate) fn share_mounts(folder: &Path) -> Result<()> {
    const MS_SHARED: u64 = 1 << 20;
    let at = tiphys_sys::proc::mount_of(folder).context("cannot read the mounts")?;
    if at.mount_point != folder {
        tiphys_sys::mount::bind(folder, folder, true).with_context(|| format!("cannot bind-mount {}", folder.display()))?;
    }
    tiphys_sys::mount::set_propagation(folder, MS_SHARED).with_context(|| format!("cannot share the mounts of {}", folder.display()))
}

fn range(cidr: tiphys_cni::Cidr) -> Range {
    Range { address: cidr.address, prefix: cidr.prefix }
}

fn proxy_config(cluster: &Cluster, number: u32) -> NodeConfig {
    NodeConfig {
        name: cluster.node_name(number),
        pods: range(cluster.network.pods),
        services: range(cluster.network.services),
        nodes: range(cluster.network.nodes),
    }
}

async fn start_dns(cluster: &Cluster, number: u32, informers: &Informers, tasks: &Tasks) -> Result<()> {
    let own = IpAddr::V4(cluster.node_address(number)?);
    let config = tiphys_dns::Config {
        listen: (own, 53).into(),
        domain: "cluster.local".into(),
        resolv_conf: "/etc/resolv.conf".into(),
        own: vec![own, IpAddr::V4(cluster.dns_address()?)],
    };
    let zone = Arc::new(tiphys_dns::ClusterZone::new(informers));
    tiphys_dns::start(config, zone, tasks).await.context("the cluster's DNS cannot start")?;
    Ok(())
}

async fn open_runtime(layout: &Layout, cluster: &Cluster, number: u32, images: Arc<NodeImages>) -> Result<EmbeddedRuntime> {
    let folder = layout.node(number);
    let network = RoutedPods::open(
        cluster.node_pods(number)?,
        cluster.node_address(number)?,
        &cluster.table("hostports"),
        &folder.join("addresses"),
    )?;
    let config = RuntimeConfig {
        root: keeping::runtime_root(layout, number),
        name: cluster.name.clone(),
        supervisor: Some(keeping::supervisor(layout, number)?),
        network: Arc::new(network),
        images,
        clock: crate::cluster::clock(),
    };
    EmbeddedRuntime::open(config).await.context("the container runtime cannot start")
}

fn kubelet_config(layout: &Layout, cluster: &Cluster, parts: &NodeParts) -> Result<KubeletConfig> {
    let folder = layout.node(parts.number);
    let own = IpAddr::V4(cluster.node_address(parts.number)?);
    let mut config = KubeletConfig::new(cluster.node_name(parts.number), folder.join("kubelet"));
    config.pod_logs_dir = folder.join("logs");
    config.node_ips = vec![own];
    config.cluster_dns = vec![IpAddr::V4(cluster.dns_address()?)];
    config.listen = (own, 10250).into();
    config.serving = Some(pki::files(layout, &pki::kubelet(&config.node_name)));
    config.client_ca = Some(parts.client_ca.clone());
    config.cgroup_root = format!("/tiphys/{}/{}", cluster.name, parts.number);
    config.version = crate::VERSION.into();
    // Upstream's ten percent of a large disk is much more than a cluster on one machine needs to go on.
    config.enough_disk = Some(2 << 30);
    Ok(config)
}

/// Keeps routes to the other nodes' pods equal to what the Node objects say.
fn keep_routes(cluster: &Cluster, number: u32, informers: &Informers, tasks: &Tasks) {
    let (network, own) = (cluster.network.clone(), cluster.node_name(number));
    let link = uplink(cluster, number).to_owned();
    let mut changes = informers.of::<Node>().subscribe();
    tasks.spawn("routes", async move {
        while let Some(change) = changes.recv().await {
            if change.object().metadata.name.as_deref() == Some(own.as_str()) {
                continue;
            }
            let (now, gone) = routes_of(&change);
            if now == gone {
                continue;
            }
            if let Err(error) = network.set_routes(&link, now.as_slice(), gone.as_slice()) {
                tracing::error!(error = &error as &dyn std::error::Error, "the routes to a node's pods cannot be set");
            }
        }
    });
}

/// What a change brings and takes.
fn routes_of(change: &Delta<Node>) -> (Vec<Neighbour>, Vec<Neighbour>) {
    match change {
        Delta::Added(node) => (neighbour(node), Vec::new()),
        Delta::Updated { old, new } => (neighbour(new), neighbour(old)),
        Delta::Deleted(node) => (Vec::new(), neighbour(node)),
    }
}

fn neighbour(node: &Node) -> Vec<Neighbour> {
    let addresses = node.status.as_ref().and_then(|s| s.addresses.as_ref());
    let address = addresses.into_iter().flatten().find(|a| a.type_ == "InternalIP").and_then(|a| a.address.parse().ok());
    let pods = node.spec.as_ref().and_then(|s| s.pod_cidr.as_deref()).and_then(|c| c.parse().ok());
    address.zip(pods).map(|(address, pods)| Neighbour { address, pods }).into_iter().collect()
}
