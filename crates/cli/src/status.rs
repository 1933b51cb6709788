//! `tiphys status`: what a cluster consists of right now.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use tiphys_client::Client;
use tiphys_client::https::Config;

use crate::cluster::{Cluster, Layout};
use crate::processes::{self, Process};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub name: String,
    pub running: bool,
    /// What is wrong with what runs: a store that takes no writes, a process that is being started again.
    pub problems: Vec<String>,
    pub version: String,
    pub api_server: String,
    pub kubeconfig: String,
    pub ca_certificate: String,
    pub log: String,
    pub data_dir: String,
    pub pod_cidr: String,
    pub service_cidr: String,
    pub nodes: Vec<Node>,
    pub processes: Vec<Process>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    pub address: String,
    pub kubelet_port: u16,
    pub pod_cidr: String,
    pub certificate: String,
}

pub fn gather(layout: &Layout, cluster: &Cluster, version: &str) -> Result<Status> {
    let processes = processes::of(layout);
    let node = |number: u32| {
        let name = cluster.node_name(number);
        Ok(Node {
            address: cluster.node_address(number)?.to_string(),
            kubelet_port: 10250,
            pod_cidr: cluster.node_pods(number)?.to_string(),
            certificate: layout.pki().join(format!("kubelet-{name}.crt")).display().to_string(),
            name,
        })
    };
    Ok(Status {
        name: cluster.name.clone(),
        problems: problems(layout, &processes),
        running: processes.iter().any(|p| p.role == "run"),
        version: version.to_owned(),
        api_server: cluster.api_url(),
        kubeconfig: layout.kubeconfig().display().to_string(),
        ca_certificate: layout.pki().join("ca.crt").display().to_string(),
        log: layout.log().display().to_string(),
        data_dir: layout.data_dir.display().to_string(),
        pod_cidr: cluster.network.pods.to_string(),
        service_cidr: cluster.network.services.to_string(),
        nodes: (1..=cluster.nodes).map(node).collect::<Result<_>>()?,
        processes,
    })
}

fn problems(layout: &Layout, processes: &[Process]) -> Vec<String> {
    match (layout.wanted().exists(), processes.iter().any(|p| p.role == "run")) {
        (true, false) => vec![format!(
            "the cluster's process does not run; its supervisor starts it again, and {} says why it ended",
            layout.log().display()
        )],
        (_, true) => ask(layout).err().map(|why| format!("{why:#}")).into_iter().collect(),
        (false, false) => Vec::new(),
    }
}

/// Asks the API server how its store is.
fn ask(layout: &Layout) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::https(Config::from_kubeconfig(&layout.kubeconfig(), "")?)?;
        match tokio::time::timeout(PATIENCE, client.text("/livez/etcd")).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => bail!("the store: {}", error.to_string().trim_start_matches("internal server error: ").trim()),
            Err(_) => bail!("the API server does not answer within {} s", PATIENCE.as_secs()),
        }
    })
}

/// The status for a person.
pub fn text(status: &Status) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let state = if status.running { "running" } else { "stopped" };
    let _ = writeln!(out, "cluster {} is {state} ({})", status.name, status.version);
    for problem in &status.problems {
        let _ = writeln!(out, "  PROBLEM     {problem}");
    }
    let _ = writeln!(out, "  API server  {}", status.api_server);
    let _ = writeln!(out, "  kubeconfig  {}", status.kubeconfig);
    let _ = writeln!(out, "  log         {}", status.log);
    let _ = writeln!(out, "  pods        {}   services {}", status.pod_cidr, status.service_cidr);
    for node in &status.nodes {
        let _ = writeln!(out, "  node        {}  {}  pods {}", node.name, node.address, node.pod_cidr);
    }
    for process in &status.processes {
        let _ = writeln!(out, "  process     {:>7}  {:<11} {:>6} KiB", process.pid, process.role, process.memory_kib);
    }
    out
}
