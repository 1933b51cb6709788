//! The kubelet's flags by upstream's names, and the part of KubeletConfiguration (kubelet.config.k8s.io/v1beta1) that exists here.
//! Flags outweigh the file. What is not known is an error, not swallowed.
//!
//! Absent: bootstrap kubeconfigs, external runtimes' addresses, feature gates, and all settings of what is absent here.

use crate::Config;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tiphys_base::platform;
use tiphys_meta::Quantity;

#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// Help and version come this way too; clap prints them.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error("{name}: {why}")]
    Value { name: &'static str, why: String },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is no KubeletConfiguration: {why}", path.display())]
    File { path: PathBuf, why: String },
}

/// What flags and file come to.
pub struct Parsed {
    pub config: Config,
    /// How to reach the API server; None runs static pods alone.
    pub kubeconfig: Option<PathBuf>,
    pub verbosity: u8,
}

fn value(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("VALUE").help(help).action(ArgAction::Set)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    value(name, help)
        .value_parser(clap::builder::BoolishValueParser::new())
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
}

/// `program` is how the command was called, for its help.
pub fn command(program: &'static str) -> Command {
    Command::new(program).about("The Kubernetes node agent").args([
        value("config", "a KubeletConfiguration file"),
        value("kubeconfig", "how to reach the API server"),
        value("hostname-override", "the node's name (default: the machine's)"),
        value("node-ip", "the node's addresses, at most one per family"),
        value("node-labels", "labels of the Node at registration: a=b,c=d"),
        value("register-with-taints", "taints of the Node at registration: key=value:effect,…"),
        value("register-node", "create the Node object").value_parser(clap::builder::BoolishValueParser::new()),
        value("root-dir", "folder of the pods' files"),
        value("pod-manifest-path", "folder of static pods"),
        value("cluster-dns", "addresses of the cluster's DNS"),
        value("cluster-domain", "domain of the cluster"),
        value("resolv-conf", "the node's resolv.conf"),
        value("cgroup-root", "below which pods' cgroups stand"),
        value("cgroups-per-qos", "make cgroups for pods and their classes").value_parser(clap::builder::BoolishValueParser::new()),
        value("address", "where to listen").value_parser(clap::value_parser!(IpAddr)),
        value("port", "port to listen on; 0 takes any").value_parser(clap::value_parser!(u16)),
        value("max-pods", "how many pods may run").value_parser(clap::value_parser!(u32)),
        value("client-ca-file", "CA of client certificates (PEM)"),
        value("tls-cert-file", "serving certificate (PEM)"),
        value("tls-private-key-file", "key of --tls-cert-file (PEM)"),
        value("cert-dir", "folder of the certificates that are asked for (default: pki in --root-dir)"),
        switch("rotate-certificates", "renew the client certificate by requests to the cluster"),
        switch("rotate-server-certificates", "ask the cluster for the serving certificate, and renew it"),
        value("provider-id", "providerID of the Node"),
        value("container-log-max-size", "size at which logs are rotated, e.g. 10Mi"),
        value("container-log-max-files", "how many files of a log are kept").value_parser(clap::value_parser!(u32)),
        value("image-gc-high-threshold", "percent of the disk at which images are removed").value_parser(clap::value_parser!(u8)),
        value("image-gc-low-threshold", "percent of the disk down to which images are removed").value_parser(clap::value_parser!(u8)),
        value("eviction-hard", "thresholds: memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,pid.available<100"),
        value("system-reserved", "held back from allocatable: cpu=100m,memory=200Mi"),
        Arg::new("v").short('v').long("v").value_name("LEVEL").help("verbosity of the log").value_parser(clap::value_parser!(u8)),
    ])
}

pub fn parse(program: &'static str, args: impl IntoIterator<Item = String>) -> Result<Parsed, FlagError> {
    let args = std::iter::once(program.to_owned()).chain(args);
    from_matches(&command(program).try_get_matches_from(args)?)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    static_pod_path: Option<PathBuf>,
    address: Option<IpAddr>,
    port: Option<u16>,
    tls_cert_file: Option<PathBuf>,
    tls_private_key_file: Option<PathBuf>,
    rotate_certificates: Option<bool>,
    #[serde(rename = "serverTLSBootstrap")]
    server_tls_bootstrap: Option<bool>,
    authentication: Authentication,
    authorization: serde_json::Value,
    #[serde(rename = "clusterDNS")]
    cluster_dns: Option<Vec<IpAddr>>,
    cluster_domain: Option<String>,
    resolv_conf: Option<PathBuf>,
    cgroup_root: Option<String>,
    #[serde(rename = "cgroupsPerQOS")]
    cgroups_per_qos: Option<bool>,
    max_pods: Option<u32>,
    node_lease_duration_seconds: Option<i32>,
    container_log_max_size: Option<String>,
    container_log_max_files: Option<u32>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    image_gc_high_threshold_percent: Option<u8>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    image_gc_low_threshold_percent: Option<u8>,
    eviction_hard: Option<std::collections::BTreeMap<String, String>>,
    system_reserved: Option<std::collections::BTreeMap<String, String>>,
    register_node: Option<bool>,
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
    pod_logs_dir: Option<PathBuf>,
    fail_swap_on: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Authentication {
    x509: X509,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct X509 {
    #[serde(rename = "clientCAFile")]
    client_ca_file: Option<PathBuf>,
}

fn read(path: &Path) -> Result<String, FlagError> {
    std::fs::read_to_string(path).map_err(|source| FlagError::Read { path: path.into(), source })
}

fn read_file(path: &Path) -> Result<File, FlagError> {
    let file: File = tiphys_yaml::from_str(&read(path)?).map_err(|e| FlagError::File { path: path.into(), why: e.to_string() })?;
    let right = file.kind == "KubeletConfiguration" && file.api_version == "kubelet.config.k8s.io/v1beta1";
    if right { Ok(file) } else { Err(FlagError::File { path: path.into(), why: format!("it is {} of {}", file.kind, file.api_version) }) }
}

/// From the matches of [`command`], to which a program may have added flags of its own.
pub fn from_matches(m: &ArgMatches) -> Result<Parsed, FlagError> {
    let text = |name: &str| m.get_one::<String>(name).cloned();
    let path = |name: &str| text(name).map(PathBuf::from);
    let file = path("config").map(|p| read_file(&p)).transpose()?.unwrap_or_default();
    let name = text("hostname-override").unwrap_or_else(host_name).to_lowercase();
    let mut config = Config::new(name, path("root-dir").unwrap_or_else(|| "/var/lib/kubelet".into()));
    apply_plain(&mut config, m, &file)?;
    if let Some(ips) = text("node-ip") {
        config.node_ips = list("--node-ip", &ips)?;
    }
    config.node_labels = pairs(&text("node-labels").unwrap_or_default());
    config.register_with_taints = text("register-with-taints").map(|t| t.split(',').map(str::to_owned).collect()).unwrap_or_default();
    let ca = path("client-ca-file").or(file.authentication.x509.client_ca_file.clone());
    config.client_ca = ca.map(|p| read(&p)).transpose()?;
    config.serving =
        path("tls-cert-file").or(file.tls_cert_file.clone()).zip(path("tls-private-key-file").or(file.tls_private_key_file.clone()));
    let given = text("eviction-hard").map(|t| t.split(',').filter_map(|p| p.split_once('<')).map(own).collect());
    if let Some(thresholds) = given.or(file.eviction_hard.clone()) {
        eviction(&mut config, &thresholds)?;
    }
    let given = text("system-reserved").map(|t| pairs(&t).into_iter().collect());
    if let Some(reserved) = given.or(file.system_reserved.clone()) {
        reserve(&mut config, &reserved)?;
    }
    Ok(Parsed { config, kubeconfig: path("kubeconfig"), verbosity: m.get_one("v").copied().unwrap_or(0) })
}

fn apply_plain(config: &mut Config, m: &ArgMatches, file: &File) -> Result<(), FlagError> {
    let text = |name: &str| m.get_one::<String>(name).cloned();
    let path = |name: &str| text(name).map(PathBuf::from);
    let flag = |name: &str| m.get_one::<bool>(name).copied();
    config.static_pod_path = path("pod-manifest-path").or(file.static_pod_path.clone());
    config.listen.set_ip(m.get_one("address").copied().or(file.address).unwrap_or(config.listen.ip()));
    config.listen.set_port(m.get_one("port").copied().or(file.port).unwrap_or(config.listen.port()));
    if let Some(dns) = text("cluster-dns").map(|t| list("--cluster-dns", &t)).transpose()?.or(file.cluster_dns.clone()) {
        config.cluster_dns = dns;
    }
    set(&mut config.cluster_domain, text("cluster-domain").or(file.cluster_domain.clone()));
    set(&mut config.resolv_conf, path("resolv-conf").or(file.resolv_conf.clone()));
    set(&mut config.cgroup_root, text("cgroup-root").or(file.cgroup_root.clone()).filter(|r| !r.is_empty()));
    set(&mut config.cgroups_per_qos, flag("cgroups-per-qos").or(file.cgroups_per_qos));
    set(&mut config.register_node, flag("register-node").or(file.register_node));
    set(&mut config.cert_dir, path("cert-dir"));
    set(&mut config.rotate_client, flag("rotate-certificates").or(file.rotate_certificates));
    set(&mut config.rotate_serving, flag("rotate-server-certificates").or(file.server_tls_bootstrap));
    set(&mut config.max_pods, m.get_one("max-pods").copied().or(file.max_pods));
    set(&mut config.lease_seconds, file.node_lease_duration_seconds);
    set(&mut config.pod_logs_dir, file.pod_logs_dir.clone());
    let size = text("container-log-max-size").or(file.container_log_max_size.clone());
    set(&mut config.container_log_max_size, size.map(|s| bytes("container-log-max-size", &s)).transpose()?);
    set(&mut config.container_log_max_files, m.get_one("container-log-max-files").copied().or(file.container_log_max_files));
    set(&mut config.image_gc_high, m.get_one("image-gc-high-threshold").copied().or(file.image_gc_high_threshold_percent));
    set(&mut config.image_gc_low, m.get_one("image-gc-low-threshold").copied().or(file.image_gc_low_threshold_percent));
    config.provider_id = text("provider-id").or(file.provider_id.clone());
    config.status_report_frequency = Duration::from_secs(300);
    Ok(())
}

fn set<T>(place: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *place = given;
    }
}

fn own((a, b): (&str, &str)) -> (String, String) {
    (a.trim().to_owned(), b.trim().to_owned())
}

fn pairs(text: &str) -> Vec<(String, String)> {
    text.split(',').filter(|p| !p.is_empty()).map(|p| own(p.split_once('=').unwrap_or((p, "")))).collect()
}

fn list(name: &'static str, text: &str) -> Result<Vec<IpAddr>, FlagError> {
    text.split(',').map(|t| t.trim().parse().map_err(|_| FlagError::Value { name, why: format!("{t:?} is no address") })).collect()
}

fn bytes(name: &'static str, text: &str) -> Result<u64, FlagError> {
    let quantity = Quantity::parse(text).map_err(|e| FlagError::Value { name, why: e.to_string() })?;
    u64::try_from(quantity.value()).map_err(|_| FlagError::Value { name, why: format!("{text:?} is negative") })
}

fn eviction(config: &mut Config, thresholds: &std::collections::BTreeMap<String, String>) -> Result<(), FlagError> {
    let percent = |text: &str| {
        let why = || FlagError::Value { name: "eviction-hard", why: format!("{text:?} is no percentage") };
        text.parse::<u8>().ok().filter(|percent| *percent <= 100).ok_or_else(why)
    };
    for (signal, threshold) in thresholds {
        match (signal.as_str(), threshold.strip_suffix('%')) {
            ("memory.available", None) => config.eviction_memory_available = bytes("eviction-hard", threshold)?,
            ("nodefs.available", Some(text)) => config.eviction_disk_percent = percent(text)?,
            ("nodefs.inodesFree", Some(text)) => config.eviction_inodes_percent = percent(text)?,
            ("pid.available", None) => config.eviction_pids = bytes("eviction-hard", threshold)?,
            // Images lie on the same file system.
            ("imagefs.available" | "imagefs.inodesFree" | "containerfs.available" | "containerfs.inodesFree", _) => {}
            _ => return Err(FlagError::Value { name: "eviction-hard", why: format!("{signal}<{threshold} is not supported") }),
        }
    }
    Ok(())
}

fn reserve(config: &mut Config, reserved: &std::collections::BTreeMap<String, String>) -> Result<(), FlagError> {
    for (name, amount) in reserved {
        let quantity = Quantity::parse(amount).map_err(|e| FlagError::Value { name: "system-reserved", why: e.to_string() })?;
        match name.as_str() {
            "cpu" => config.reserved_cpu_milli = quantity.milli(),
            "memory" => config.reserved_memory = quantity.value(),
            "ephemeral-storage" | "pid" => {}
            other => return Err(FlagError::Value { name: "system-reserved", why: format!("unknown resource {other:?}") }),
        }
    }
    Ok(())
}

fn host_name() -> String {
    Some(platform::host_name()).filter(|name| !name.is_empty()).unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Parsed, FlagError> {
        parse("kubelet", args.iter().map(|a| (*a).to_owned()))
    }

    #[test]
    fn flags_outweigh_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.yaml");
        let text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 50\nport: 0\n\
                    clusterDNS: [10.0.0.10]\ncontainerLogMaxSize: 1Mi\nevictionHard: {memory.available: 50Mi, nodefs.available: 5%}\n";
        std::fs::write(&path, text).expect("written");
        let path = path.to_string_lossy().into_owned();
        let config = run(&["--config", &path, "--max-pods=7", "--node-ip=10.0.0.1", "--node-labels=a=b,c="]).expect("fine").config;
        assert_eq!((config.max_pods, config.listen.port(), config.container_log_max_size), (7, 0, 1 << 20));
        assert_eq!((config.eviction_memory_available, config.eviction_disk_percent), (50 << 20, 5));
        assert_eq!(config.node_labels, [("a".into(), "b".into()), ("c".into(), String::new())]);
        assert!(!config.rotate_client && run(&["--rotate-certificates"]).expect("fine").config.rotate_client);
        assert_eq!(config.cluster_dns, ["10.0.0.10".parse::<IpAddr>().expect("an address")]);
    }

    #[test]
    fn what_is_unknown_is_refused() {
        assert!(run(&["--no-such-flag"]).is_err());
        assert!(run(&["--node-ip=x"]).is_err());
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nnoSuchField: 1\n").expect("written");
        assert!(run(&["--config", &path.to_string_lossy()]).is_err());
    }
}
