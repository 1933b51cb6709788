//! `tiphys proxy`: Services to nftables, for a node that runs from separate processes.
//!
//! Absent: iptables and IPVS modes, health and metrics ports. The rules stay when it stops, as upstream's do.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Command};
use serde::Deserialize;
use tiphys_client::{Client, Informers, ListOptions};
use tiphys_cni::Cidr;
use tiphys_cni::rtnl::{self, Netlink, Via};
use tiphys_proxy::{NodeConfig, Proxy, Range};
use tiphys_types::api::core::v1::Node;
use tiphys_types::api::networking::v1::ServiceCIDR;

use super::args::{self, Idle, text, value};
use super::connection;

/// Between tries to learn the cluster's ranges.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

static IDLE: [Idle; 4] = [
    Idle { name: "bind-address", why: "rules match every address of the node" },
    Idle { name: "healthz-bind-address", why: "there is no health port" },
    Idle { name: "metrics-bind-address", why: "there is no metrics port" },
    Idle { name: "masquerade-all", why: "what comes from outside the pods' addresses is masqueraded in any case" },
];

fn command(program: &'static str) -> Command {
    let idle = IDLE.iter().chain(&connection::IDLE);
    let idle = idle.map(|f| value(f.name, f.why).num_args(0..=1).default_missing_value("true").hide_short_help(true));
    Command::new(program).about("The Kubernetes service proxy").args(connection::flags()).args(idle).args([
        value("config", "a KubeProxyConfiguration file; flags outweigh it"),
        value("cluster-cidr", "the pods' addresses"),
        value("hostname-override", "the node's name (default: the machine's)"),
        value("proxy-mode", "nftables, the only one"),
        args::verbosity(),
    ])
}

/// The part of KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1) that exists here; the rest is passed over, as it tunes
/// what is absent.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: String,
    mode: String,
    hostname_override: String,
    client_connection: ClientConnection,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClientConnection {
    kubeconfig: String,
}

struct Settings {
    pods: Cidr,
    node: String,
}

fn settings(m: &ArgMatches, file: &File) -> Result<Settings> {
    let either = |flag: &str, file: &str| text(m, flag).unwrap_or(file).to_owned();
    let mode = either("proxy-mode", &file.mode);
    if !matches!(mode.as_str(), "" | "nftables") {
        bail!("--proxy-mode {mode:?} is not supported: nftables is the only one");
    }
    let range = either("cluster-cidr", &file.cluster_cidr);
    let first = range.split(',').next().unwrap_or_default();
    let pods = first.parse().with_context(|| format!("--cluster-cidr {range:?} is no range like 10.244.0.0/16"))?;
    let name = either("hostname-override", &file.hostname_override);
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase();
    Ok(Settings { pods, node: if name.is_empty() { host() } else { name } })
}

fn read(path: &str) -> Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--config: cannot read {path}"))?;
    tiphys_yaml::from_str(&text).with_context(|| format!("--config: {path} is no KubeProxyConfiguration"))
}

pub(super) fn run(program: &'static str, arguments: Vec<String>) -> Result<()> {
    let m = args::matches(command(program), program, arguments);
    let file = text(&m, "config").map(read).transpose()?.unwrap_or_default();
    let settings = settings(&m, &file)?;
    super::serve(m.get_one("v").copied().unwrap_or(0), |tasks| async move {
        args::warn_of_idle(&m, &IDLE);
        args::warn_of_idle(&m, &connection::IDLE);
        let client = match (text(&m, "kubeconfig"), file.client_connection.kubeconfig.as_str()) {
            (None, path) if !path.is_empty() => Client::https(tiphys_client::https::Config::from_kubeconfig(Path::new(path), "")?)?,
            _ => connection::client(&m, "proxy")?,
        };
        let node = loop {
            match node_config(&client, &settings).await {
                Ok(node) => break node,
                // The API server may come later than its proxies.
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the cluster's ranges are not known yet"),
            }
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        };
        guard(&node)?;
        let informers = Informers::with_tasks(client, tasks.child());
        Proxy::start(&format!("tiphys-{}-services", settings.node), node, &informers, &tasks)?;
        std::future::pending().await
    })
}

fn range(cidr: Cidr) -> Range {
    Range { address: cidr.address, prefix: cidr.prefix }
}

/// The Services' range is read off the cluster, the node's address off its Node, once both are there.
async fn node_config(client: &Client, settings: &Settings) -> Result<NodeConfig> {
    let ranges =
        client.list::<ServiceCIDR>("", &ListOptions::default()).await.context("cannot read the Services' ranges (servicecidrs)")?;
    let mut all = ranges.items.iter().flat_map(|r| r.spec.iter().flat_map(|s| s.cidrs.iter().flatten()));
    let services: Cidr = all.find_map(|text| text.parse().ok()).context("the cluster has no IPv4 range for Services")?;
    Ok(NodeConfig {
        name: settings.node.clone(),
        pods: range(settings.pods),
        services: range(services),
        nodes: Range { address: node_address(client, &settings.node).await?, prefix: 32 },
    })
}

async fn node_address(client: &Client, name: &str) -> Result<Ipv4Addr> {
    let own = Informers::new(client.clone());
    let mut changes = own.filtered::<Node>(ListOptions::fields(format!("metadata.name={name}"))).subscribe();
    while let Some(change) = changes.recv().await {
        let addresses = change.object().status.as_ref().and_then(|s| s.addresses.as_ref());
        let internal = addresses.into_iter().flatten().filter(|a| a.type_ == "InternalIP");
        if let Some(IpAddr::V4(address)) = internal.filter_map(|a| a.address.parse().ok()).find(IpAddr::is_ipv4) {
            own.stop();
            return Ok(address);
        }
    }
    bail!("the node {name:?} cannot be watched")
}

/// Service addresses that no rule translates stay on this machine: the loopback has them, whatever the default route is.
fn guard(node: &NodeConfig) -> Result<()> {
    const LOOPBACK: u32 = 1;
    let services = Cidr { address: node.services.address, prefix: node.services.prefix };
    let via = Via::Link { index: LOOPBACK, source: Some(node.nodes.address) };
    Ok(Netlink::open()?.send(&[rtnl::add_route(services, via, 0)])?)
}
