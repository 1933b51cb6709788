//! The settings of one kubelet. Names follow upstream's flags and KubeletConfiguration; `flags.rs` reads those.

use crate::node::eviction::plan::Thresholds;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    /// Pods' folders and volumes.
    pub root_dir: PathBuf,
    /// `/var/log/pods` upstream.
    pub pod_logs_dir: PathBuf,
    /// Addresses of the node, the primary one first.
    pub node_ips: Vec<IpAddr>,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub resolv_conf: PathBuf,
    /// Where the HTTPS server listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate and key that the server shows (PEM files, looked at again as they are replaced); its own otherwise.
    pub serving: Option<(PathBuf, PathBuf)>,
    /// Where certificates that were asked for lie.
    pub cert_dir: PathBuf,
    /// Renew the client certificate in `cert_dir` (`rotateCertificates`).
    pub rotate_client: bool,
    /// What lies there is only a copy of a kubeconfig's.
    pub renew_client_at_once: bool,
    /// Ask the cluster for the serving certificate (`serverTLSBootstrap`).
    pub rotate_serving: bool,
    /// The CA (PEM) of client certificates that the server accepts.
    pub client_ca: Option<String>,
    /// Below which pods' cgroups stand, e.g. `/` or `/tiphys/node-2`.
    pub cgroup_root: String,
    /// Keep secrets and tokens in a tmpfs.
    pub memory_backed_secrets: bool,
    /// Make cgroups for pods and their classes.
    pub cgroups_per_qos: bool,
    pub static_pod_path: Option<PathBuf>,
    pub seccomp_root: PathBuf,
    pub max_pods: u32,
    pub register_node: bool,
    /// More labels of the Node at registration.
    pub node_labels: Vec<(String, String)>,
    /// Taints at registration, as `key=value:effect`.
    pub register_with_taints: Vec<String>,
    pub lease_seconds: i32,
    /// How often the Node's status is written when nothing has changed.
    pub status_report_frequency: Duration,
    pub container_log_max_size: u64,
    pub container_log_max_files: u32,
    /// Percent of the image disk at which unused images go, and down to which.
    pub image_gc_high: u8,
    pub image_gc_low: u8,
    /// Hard eviction: bytes of memory, and percent of the disk, that must stay free.
    pub eviction_memory_available: u64,
    pub eviction_disk_percent: u8,
    /// So many free bytes are enough, whatever the percentages say: a large disk that is nearly full is no reason to run nothing.
    pub enough_disk: Option<u64>,
    /// Percent of the inodes, and process numbers, that must stay free; 0 does not look.
    pub eviction_inodes_percent: u8,
    pub eviction_pids: u64,
    /// Held back from allocatable: thousandths of a CPU, bytes.
    pub reserved_cpu_milli: i64,
    pub reserved_memory: i64,
    pub provider_id: Option<String>,
    /// What `kubeletVersion` says.
    pub version: String,
}

impl Config {
    pub(crate) fn eviction(&self) -> Thresholds {
        Thresholds {
            memory: self.eviction_memory_available,
            disk_percent: self.eviction_disk_percent,
            disk_enough: self.enough_disk.unwrap_or(u64::MAX),
            inodes_percent: self.eviction_inodes_percent,
            pids: self.eviction_pids,
        }
    }

    /// Upstream's defaults for a node.
    pub fn new(node_name: impl Into<String>, root_dir: impl Into<PathBuf>) -> Self {
        let root_dir = root_dir.into();
        Config {
            node_name: node_name.into(),
            pod_logs_dir: "/var/log/pods".into(),
            seccomp_root: root_dir.join("seccomp"),
            cert_dir: root_dir.join("pki"),
            rotate_client: false,
            renew_client_at_once: false,
            rotate_serving: false,
            root_dir,
            node_ips: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            listen: SocketAddr::from(([0, 0, 0, 0], 10250)),
            serving: None,
            client_ca: None,
            cgroup_root: "/".into(),
            memory_backed_secrets: true,
            cgroups_per_qos: true,
            static_pod_path: None,
            max_pods: 110,
            register_node: true,
            node_labels: Vec::new(),
            register_with_taints: Vec::new(),
            lease_seconds: 40,
            status_report_frequency: Duration::from_secs(300),
            container_log_max_size: 10 << 20,
            container_log_max_files: 5,
            image_gc_high: 85,
            image_gc_low: 80,
            eviction_memory_available: 100 << 20,
            eviction_disk_percent: 10,
            enough_disk: None,
            eviction_inodes_percent: 5,
            eviction_pids: 0,
            reserved_cpu_milli: 0,
            reserved_memory: 0,
            provider_id: None,
            version: "v1.36.3+tiphys.1".into(),
        }
    }
}
