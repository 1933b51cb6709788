//! A cluster as it is kept on disk: its settings (`cluster.json`) and where everything of it lies.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tiphys_cni::Cidr;
use tiphys_cni::node::ClusterNetwork;
use tiphys_cni::rtnl::Netlink;
use tiphys_cni::sysctl::Recorded;

pub const DEFAULT_DATA_DIR: &str = "/var/lib/tiphys";
pub const DEFAULT_NAME: &str = "default";

/// How many clusters with addresses of their own fit one network namespace.
const SLOTS: u8 = 32;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    pub name: String,
    pub nodes: u32,
    pub network: ClusterNetwork,
    /// Where the API server listens; the first node's address unless the user says otherwise.
    pub api_address: IpAddr,
    pub api_port: u16,
    pub node_port_range: (u16, u16),
    /// `HOST=URL`, in the order given.
    #[serde(default)]
    pub registry_mirrors: Vec<String>,
    /// containerd's hosts folder (`certs.d`), if any.
    #[serde(default)]
    pub registry_hosts_dir: Option<PathBuf>,
    /// Parts of the control plane that others run in our place.
    #[serde(default)]
    pub without: Vec<Part>,
    /// Kernel settings as they were before.
    #[serde(default)]
    pub recorded: Recorded,
}

/// A part of the control plane that can be left to another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    Controllers,
    Scheduler,
}

impl std::str::FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "controllers" => Ok(Part::Controllers),
            "scheduler" => Ok(Part::Scheduler),
            _ => bail!("{text:?} cannot be left out; controllers and scheduler can"),
        }
    }
}

/// Where a machine's and a cluster's files are.
#[derive(Debug, Clone)]
pub struct Layout {
    pub data_dir: PathBuf,
    pub name: String,
}

/// What the user asked for, on the command line or in the configuration file; what is absent keeps its value or gets a default.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wanted {
    pub nodes: Option<u32>,
    pub listen: Option<SocketAddr>,
    pub pod_cidr: Option<String>,
    pub service_cidr: Option<String>,
    pub node_cidr: Option<String>,
    pub node_port_range: Option<String>,
    #[serde(default)]
    pub registry_mirrors: Vec<String>,
    pub registry_hosts_dir: Option<PathBuf>,
    pub without: Option<Vec<Part>>,
}

impl Wanted {
    pub fn from_file(path: &Path) -> Result<Wanted> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read the configuration file {}", path.display()))?;
        tiphys_yaml::from_str(&text).with_context(|| {
            format!("{} is no configuration of a cluster; it takes nodes, listen, podCidr, serviceCidr, nodeCidr, nodePortRange, registryMirrors, registryHostsDir, without", path.display())
        })
    }

    /// `self` where it says something, `other` elsewhere.
    pub fn over(self, other: Wanted) -> Wanted {
        Wanted {
            nodes: self.nodes.or(other.nodes),
            listen: self.listen.or(other.listen),
            pod_cidr: self.pod_cidr.or(other.pod_cidr),
            service_cidr: self.service_cidr.or(other.service_cidr),
            node_cidr: self.node_cidr.or(other.node_cidr),
            node_port_range: self.node_port_range.or(other.node_port_range),
            registry_mirrors: if self.registry_mirrors.is_empty() { other.registry_mirrors } else { self.registry_mirrors },
            registry_hosts_dir: self.registry_hosts_dir.or(other.registry_hosts_dir),
            without: self.without.or(other.without),
        }
    }
}

impl Layout {
    pub fn new(data_dir: &Path, name: &str) -> Result<Layout> {
        let good = name.len() <= 40
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && !name.ends_with('-')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !good {
            bail!(
                "the cluster name {name:?} cannot be used: write at most 40 lower case letters, digits and '-', beginning with a letter or digit"
            );
        }
        let data_dir =
            std::path::absolute(data_dir).with_context(|| format!("cannot resolve the data directory {}", data_dir.display()))?;
        Ok(Layout { data_dir, name: name.to_owned() })
    }

    pub fn cluster_dir(&self) -> PathBuf {
        self.data_dir.join("clusters").join(&self.name)
    }

    /// One image store per machine, shared by all its nodes and clusters.
    pub fn images(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    pub fn pki(&self) -> PathBuf {
        self.cluster_dir().join("pki")
    }

    pub fn store(&self) -> PathBuf {
        self.cluster_dir().join("store")
    }

    pub fn audit(&self) -> PathBuf {
        self.cluster_dir().join("audit").join("audit.log")
    }

    pub fn log(&self) -> PathBuf {
        self.cluster_dir().join("tiphys.log")
    }

    pub fn config(&self) -> PathBuf {
        self.cluster_dir().join("cluster.json")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.cluster_dir().join("admin.kubeconfig")
    }

    /// Which files of users hold a copy of that.
    pub fn kubeconfig_copies(&self) -> PathBuf {
        self.cluster_dir().join("kubeconfig-copies.json")
    }

    /// Held by the process that runs the cluster.
    pub fn lock(&self) -> PathBuf {
        self.cluster_dir().join("lock")
    }

    /// Held by the command that starts the cluster.
    pub fn starting(&self) -> PathBuf {
        self.cluster_dir().join("starting")
    }

    /// There as long as the cluster is to run: whoever restarts a process of it looks here first.
    pub fn wanted(&self) -> PathBuf {
        self.cluster_dir().join("wanted")
    }

    pub fn node(&self, number: u32) -> PathBuf {
        self.cluster_dir().join("nodes").join(number.to_string())
    }

    /// The bind mount that keeps the network namespace of a further node.
    pub fn netns(&self, number: u32) -> PathBuf {
        self.node(number).join("netns")
    }

    pub fn exists(&self) -> bool {
        self.config().exists()
    }

    pub fn load(&self) -> Result<Cluster> {
        let path = self.config();
        let text = fs::read(&path).with_context(|| {
            format!(
                "there is no cluster {:?} in {} ({} cannot be read); `tiphys up --name {}` makes it",
                self.name,
                self.data_dir.display(),
                path.display(),
                self.name
            )
        })?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; `tiphys delete --name {}` removes the cluster", path.display(), self.name))
    }

    pub fn save(&self, cluster: &Cluster) -> Result<()> {
        let path = self.config();
        fs::create_dir_all(self.cluster_dir()).with_context(|| format!("cannot make {}", self.cluster_dir().display()))?;
        let text = serde_json::to_vec_pretty(cluster)?;
        tiphys_base::files::write_atomic(&path, &text, 0o644).with_context(|| format!("cannot write {}", path.display()))
    }

    /// All clusters of the data directory that can be read.
    pub fn all(&self) -> Vec<Cluster> {
        let entries = fs::read_dir(self.data_dir.join("clusters")).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok());
        names.filter_map(|name| Layout { data_dir: self.data_dir.clone(), name }.load().ok()).collect()
    }
}

impl Cluster {
    /// The cluster as it is on disk with what the user now wants, or a new one with ranges that nobody on this machine uses.
    pub fn load_or_create(layout: &Layout, wanted: &Wanted) -> Result<Cluster> {
        let mut cluster = if layout.exists() { layout.load()? } else { Cluster::create(layout, wanted)? };
        if let Some(nodes) = wanted.nodes {
            if !(1..=100).contains(&nodes) {
                bail!("--nodes {nodes} is out of range: one machine takes 1 to 100 nodes");
            }
            cluster.nodes = nodes;
        }
        if let Some(listen) = wanted.listen {
            (cluster.api_address, cluster.api_port) = (listen.ip(), listen.port());
        }
        if !wanted.registry_mirrors.is_empty() {
            cluster.registry_mirrors = wanted.registry_mirrors.clone();
        }
        if wanted.registry_hosts_dir.is_some() {
            cluster.registry_hosts_dir = wanted.registry_hosts_dir.clone();
        }
        if let Some(without) = &wanted.without {
            cluster.without.clone_from(without);
        }
        layout.save(&cluster)?;
        Ok(cluster)
    }

    fn create(layout: &Layout, wanted: &Wanted) -> Result<Cluster> {
        let network = choose_network(layout, wanted)?;
        let own = network.node_address(1).context("the node range has no addresses")?;
        let listen = wanted.listen.unwrap_or(SocketAddr::new(IpAddr::V4(own), 6443));
        Ok(Cluster {
            name: layout.name.clone(),
            nodes: 1,
            network,
            api_address: listen.ip(),
            api_port: listen.port(),
            node_port_range: parse_port_range(wanted.node_port_range.as_deref().unwrap_or("30000-32767"))?,
            registry_mirrors: Vec::new(),
            registry_hosts_dir: None,
            without: Vec::new(),
            recorded: Recorded::default(),
        })
    }

    pub fn node_name(&self, number: u32) -> String {
        format!("{}-{number}", self.name)
    }

    pub fn node_address(&self, number: u32) -> Result<Ipv4Addr> {
        self.network.node_address(number).with_context(|| format!("{} has no room for node {number}", self.network.nodes))
    }

    /// The pods of node `number`: a /24 of the cluster's range, as upstream's node IPAM cuts it.
    pub fn node_pods(&self, number: u32) -> Result<Cidr> {
        let prefix = 24.max(self.network.pods.prefix);
        self.network
            .pods
            .part(prefix, number - 1)
            .with_context(|| format!("{} has no room for the pods of node {number}", self.network.pods))
    }

    /// The `kubernetes` Service.
    pub fn service_address(&self, n: u32) -> Result<Ipv4Addr> {
        self.network.services.nth(n).with_context(|| format!("{} is too small for Services", self.network.services))
    }

    /// What the kubelet tells pods to ask.
    pub fn dns_address(&self) -> Result<Ipv4Addr> {
        self.service_address(10)
    }

    /// The address that clients on this machine use.
    pub fn api_url(&self) -> String {
        let host = if self.api_address.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { self.api_address };
        format!("https://{}", SocketAddr::new(host, self.api_port))
    }

    /// The address that further nodes use: one that is reached from their namespaces.
    pub fn api_url_of_nodes(&self) -> Result<String> {
        let loopback = self.api_address.is_unspecified() || self.api_address.is_loopback();
        let host = if loopback { IpAddr::V4(self.node_address(1)?) } else { self.api_address };
        Ok(format!("https://{}", SocketAddr::new(host, self.api_port)))
    }

    /// Begins the names of this cluster's nftables tables.
    pub fn table(&self, what: &str) -> String {
        format!("tiphys-{}-{what}", self.name)
    }
}

fn parse_port_range(text: &str) -> Result<(u16, u16)> {
    let parsed = text.split_once('-').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    match parsed {
        Some((from, to)) if from > 0 && from <= to => Ok((from, to)),
        _ => bail!("{text:?} is no port range; write it as 30000-32767"),
    }
}

fn choose_network(layout: &Layout, wanted: &Wanted) -> Result<ClusterNetwork> {
    let mut taken: Vec<Cidr> = layout.all().iter().flat_map(|c| [c.network.nodes, c.network.pods, c.network.services]).collect();
    let routes = Netlink::open().and_then(|mut n| n.routes()).context("cannot read this machine's routes")?;
    taken.extend(routes.iter().map(|r| r.to).filter(|to| to.prefix > 0));
    let bridge = bridge_name(&layout.name);
    let given = |flag: &str, text: &Option<String>| {
        let parsed = text.as_deref().map(str::parse::<Cidr>).transpose();
        parsed.with_context(|| format!("{flag} {:?} is no range of addresses, such as 10.89.0.0/24", text.as_deref().unwrap_or("")))
    };
    let nodes = given("--node-cidr", &wanted.node_cidr)?;
    let (pods, services) = (given("--pod-cidr", &wanted.pod_cidr)?, given("--service-cidr", &wanted.service_cidr)?);
    for range in [nodes, pods, services].into_iter().flatten() {
        if let Some(other) = taken.iter().find(|t| t.overlaps(range)) {
            bail!("the range {range} overlaps {other}, which this machine uses already; choose another one");
        }
    }
    for slot in 0..SLOTS {
        let network = ClusterNetwork {
            bridge: bridge.clone(),
            nodes: nodes.unwrap_or(Cidr::new(Ipv4Addr::new(10, 89, slot, 0), 24)),
            pods: pods.unwrap_or(Cidr::new(Ipv4Addr::new(10, 244 - slot, 0, 0), 16)),
            services: services.unwrap_or(Cidr::new(Ipv4Addr::new(10, 96 + slot, 0, 0), 16)),
        };
        let free = |range: Cidr| !taken.iter().any(|t| t.overlaps(range));
        if free(network.nodes) && free(network.pods) && free(network.services) {
            return Ok(network);
        }
    }
    bail!(
        "no free address ranges: {SLOTS} clusters' worth are in use on this machine; name some with --node-cidr, --pod-cidr and --service-cidr"
    )
}

/// A link name of at most 15 bytes, with room for the node's number behind it.
fn bridge_name(cluster: &str) -> String {
    if cluster.len() <= 8 {
        return format!("ty{cluster}");
    }
    let hash = cluster.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("ty{:08x}", hash & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_hurt_later_are_refused_now() {
        let folder = Path::new("/nowhere");
        for good in ["default", "a", "my-cluster-2"] {
            assert!(Layout::new(folder, good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a b", &"x".repeat(41)] {
            assert!(Layout::new(folder, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_clusters_get_different_ranges_and_keep_them() {
        let folder = tempfile::tempdir().expect("folder");
        let make =
            |name: &str| Cluster::load_or_create(&Layout::new(folder.path(), name).expect("name"), &Wanted::default()).expect("made");
        let (a, b) = (make("a"), make("b"));
        for (x, y) in [(a.network.nodes, b.network.nodes), (a.network.pods, b.network.pods), (a.network.services, b.network.services)] {
            assert!(!x.overlaps(y), "{x} {y}");
        }
        let again = make("a");
        assert_eq!(serde_json::to_string(&again).ok(), serde_json::to_string(&a).ok());
        assert_ne!(a.network.bridge, b.network.bridge);
    }

    #[test]
    fn a_configuration_file_with_an_unknown_field_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("c.yaml");
        fs::write(&path, "nodes: 2\nnodez: 3\n").expect("written");
        let error = Wanted::from_file(&path).expect_err("unknown field");
        assert!(format!("{error:#}").contains("nodez"), "{error:#}");
        assert!(format!("{:#}", Wanted::from_file(Path::new("/nowhere/x")).expect_err("missing")).contains("/nowhere/x"));
    }
}
