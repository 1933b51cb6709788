//! Further nodes on this machine: a process each, in a network namespace of its own, that speaks to the API server over TLS.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ArgMatches;
use tiphys_base::logging;
use tiphys_base::tasks::Tasks;
use tiphys_cli::cluster::{Cluster, Layout};
use tiphys_cli::{flags, pki, processes};
use tiphys_client::https::{Config as HttpsConfig, Identity as Credential};
use tiphys_client::{Client, Informers};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::node::{self, NodeParts};

/// Waits between restarts of a node process that ends by itself.
const RESTART_AFTER: Duration = Duration::from_secs(1);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// What a predecessor's processes have to end by themselves.
const LEFT_LIMIT: Duration = Duration::from_secs(1);

/// Starts the processes of all nodes but the first and keeps them running.
pub(crate) fn start_all(layout: &Layout, cluster: &Cluster, tasks: &Tasks) -> Result<()> {
    // Processes that a killed predecessor left are replaced; their containers run on under the supervisors.
    let left: Vec<i32> = processes::of(layout).iter().filter(|p| p.role == "node").map(|p| p.pid).collect();
    // They may be waiting for an API server that is gone, and nothing is lost with them: so they are given little time.
    let slow = processes::end(&left, 15, LEFT_LIMIT);
    processes::end(&slow, 9, STOP_LIMIT);
    for number in 2..=cluster.nodes {
        std::fs::create_dir_all(layout.node(number))?;
        let netns = namespace(&layout.netns(number))?;
        cluster.network.connect_node(number, &netns).with_context(|| format!("cannot connect node {number}"))?;
        let layout = layout.clone();
        let stop = tasks.token();
        tasks.spawn_draining("node process", async move {
            while !stop.is_cancelled() {
                if let Err(error) = run_one(&layout, number, &netns, &stop).await {
                    tracing::error!(error = format!("{error:#}"), node = number, "a node's process ended");
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(RESTART_AFTER) => {}
                }
            }
        });
    }
    Ok(())
}

async fn run_one(layout: &Layout, number: u32, netns: &OwnedFd, stop: &CancellationToken) -> Result<()> {
    let mut command = node_command(layout, number)?;
    // A child is born in the namespace of the thread that makes it.
    let handle = tokio::runtime::Handle::current();
    let spawned = tiphys_cni::rtnl::in_namespace(netns.as_fd(), || {
        let _inside = handle.enter();
        Ok(command.spawn())
    });
    let mut child = spawned?.context("cannot start the node's process")?;
    tokio::select! {
        status = child.wait() => anyhow::bail!("{}", status?),
        () = stop.cancelled() => {
            if let Some(pid) = child.id().and_then(|p| i32::try_from(p).ok()) {
                let _ = tiphys_sys::process::kill(pid, 15);
            }
            let _ = tokio::time::timeout(STOP_LIMIT, child.wait()).await;
            Ok(())
        }
    }
}

fn node_command(layout: &Layout, number: u32) -> Result<tokio::process::Command> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(layout.node(number).join("node.log"))?;
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.arg("node").args(["--name", &layout.name, "--data-dir"]).arg(&layout.data_dir).args(["--node", &number.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).kill_on_drop(false);
    Ok(command)
}

/// The network namespace that is bind-mounted at `path`, made where it is missing.
fn namespace(path: &Path) -> Result<OwnedFd> {
    const CLONE_NEWNET: i32 = 0x4000_0000;
    let what = || format!("cannot make the network namespace {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(what)?;
    }
    let mounted = tiphys_sys::proc::mounts()?.iter().any(|m| m.mount_point == path);
    if !mounted {
        std::fs::write(path, b"").with_context(what)?;
        let made = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                tiphys_sys::ns::unshare(CLONE_NEWNET)?;
                tiphys_sys::mount::bind(Path::new("/proc/thread-self/ns/net"), path, false)
            });
            inside.join()
        });
        made.map_err(|_| anyhow::anyhow!("{}", what()))?.with_context(what)?;
    }
    Ok(std::fs::File::open(path).with_context(what)?.into())
}

/// `tiphys node`: in the namespace already.
pub(crate) fn run(m: &ArgMatches) -> Result<()> {
    let (layout, cluster) = flags::existing(m)?;
    logging::init(flags::text(m, "log").unwrap_or("info"), logging::Format::Text);
    let number: u32 = flags::text(m, "node").unwrap_or("").parse().context("--node takes the node's number")?;
    crate::commands::runtime()?.block_on(async {
        let tasks = Tasks::new();
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            started = start(&layout, &cluster, number, &tasks) => started?,
            _ = terminate.recv() => return Ok(()),
        }
        terminate.recv().await;
        tasks.shut_down(STOP_LIMIT).await;
        Ok(())
    })
}

async fn start(layout: &Layout, cluster: &Cluster, number: u32, tasks: &Tasks) -> Result<()> {
    let name = cluster.node_name(number);
    let path = layout.pki().join("ca.crt");
    let ca = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let as_who = |certificate: &str| client(layout, cluster, &ca, certificate);
    let informers = Informers::with_tasks(as_who(&pki::node_services(&name))?, tasks.child());
    let parts = NodeParts { number, client: as_who(&pki::kubelet(&name))?, client_ca: ca.clone(), informers };
    node::start(layout, cluster, parts, tasks).await
}

fn client(layout: &Layout, cluster: &Cluster, ca: &str, certificate: &str) -> Result<Client> {
    let (chain, key) = pki::files(layout, certificate);
    let config = HttpsConfig {
        server: cluster.api_url_of_nodes()?,
        ca: ca.as_bytes().to_vec(),
        identity: Credential::CertificateFiles { chain, key },
        user_agent: format!("tiphys/{}", crate::VERSION),
        ..HttpsConfig::default()
    };
    Ok(Client::https(config)?)
}
