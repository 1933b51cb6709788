//! `tiphys kubelet`: the node agent with the embedded runtime and our pod network; its containers are a supervisor's beside it.
//!
//! Absent: runtimes and network plugins of others (`--container-runtime-endpoint`), bootstrap kubeconfigs, nodes without an API server.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches};
use tiphys_base::pki::Identity as PemPair;
use tiphys_base::tasks::Tasks;
use tiphys_client::Client;
use tiphys_client::https::{Config as HttpsConfig, Identity};
use tiphys_cni::sysctl::{self, Recorded};
use tiphys_kubelet::certificates::client_files;
use tiphys_kubelet::flags::{self, FlagError, Parsed};
use tiphys_kubelet::{Config, Kubelet};
use tiphys_runtime::{EmbeddedRuntime, RuntimeConfig, SupervisorCommand};

use super::args::{self, text, texts};
use super::lone_network::LonePods;
use crate::images::{NodeImages, open_store};

/// Flags of ours, for what upstream leaves to containerd's configuration.
fn own_flags() -> [Arg; 2] {
    [
        args::value("registry-mirror", "HOST=URL: where images of a registry are pulled from instead; may be repeated")
            .action(ArgAction::Append),
        args::value("registry-hosts-dir", "containerd's hosts folder (default: /etc/containerd/certs.d, if there is one)"),
    ]
}

pub(super) fn run(program: &'static str, arguments: Vec<String>) -> Result<()> {
    let m = args::matches(flags::command(program).args(own_flags()), program, arguments);
    let parsed = match flags::from_matches(&m) {
        Err(FlagError::Usage(error)) => error.exit(),
        other => other?,
    };
    super::serve(parsed.verbosity, |tasks| async move { start(&m, parsed, tasks).await })
}

async fn start(m: &ArgMatches, parsed: Parsed, tasks: Tasks) -> Result<()> {
    let Some(kubeconfig) = parsed.kubeconfig else {
        bail!("--kubeconfig is needed: it says how to reach the API server");
    };
    let mut connection =
        HttpsConfig::from_kubeconfig(&kubeconfig, "").with_context(|| format!("--kubeconfig {} cannot be used", kubeconfig.display()))?;
    connection.user_agent = format!("tiphys-kubelet/{}", crate::VERSION);
    let mut config = parsed.config;
    if config.node_ips == [IpAddr::V4(Ipv4Addr::LOCALHOST)] {
        config.node_ips = vec![own_address(&connection.server)?];
    }
    config.version = crate::VERSION.into();
    if config.rotate_client {
        follow_rotation(&mut config, &mut connection)?;
    }
    let client = Client::https(connection)?;
    std::fs::create_dir_all(&config.root_dir).with_context(|| format!("cannot make {}", config.root_dir.display()))?;
    crate::node::share_mounts(&config.root_dir)?;
    for setting in ["net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"] {
        sysctl::set(setting, "1", &mut Recorded::default())?;
    }
    let hosts = text(m, "registry-hosts-dir").unwrap_or("/etc/containerd/certs.d");
    let hosts = Path::new(hosts).is_dir().then(|| hosts.into());
    let store = open_store(&config.root_dir.join("images"), &texts(m, "registry-mirror"), hosts)?;
    let images = Arc::new(NodeImages::new(store, config.node_name.clone(), None));
    images.register_builtin().await?;
    let runtime = open_runtime(&config, images.clone()).await?;
    let kubelet = Kubelet::start(config, client, Arc::new(runtime), images, crate::cluster::clock(), &tasks).await?;
    tracing::info!(address = %kubelet.address, "serving");
    std::future::pending().await
}

/// The client certificate of the kubeconfig is where it begins; from then on it is the one that was asked for last.
fn follow_rotation(config: &mut Config, connection: &mut HttpsConfig) -> Result<()> {
    let first = match &connection.identity {
        Identity::CertificateFiles { chain, key } => {
            let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
            PemPair { cert_pem: read(chain)?, key_pem: read(key)? }
        }
        Identity::Certificate { chain, key } => {
            let text = |pem: &[u8]| String::from_utf8(pem.to_vec()).context("a certificate of the kubeconfig is no text");
            PemPair { cert_pem: text(chain)?, key_pem: text(key)? }
        }
        _ => bail!("rotateCertificates needs a kubeconfig with a client certificate"),
    };
    let (current, at_once) = client_files(config, &first).with_context(|| format!("cannot use {}", config.cert_dir.display()))?;
    config.renew_client_at_once = at_once;
    connection.identity = Identity::CertificateFiles { chain: current.clone(), key: current };
    Ok(())
}

async fn open_runtime(config: &Config, images: Arc<NodeImages>) -> Result<EmbeddedRuntime> {
    let Some(IpAddr::V4(address)) = config.node_ips.first().copied() else {
        bail!("--node-ip: the pod network needs an IPv4 address first");
    };
    let network = LonePods {
        address,
        folder: config.root_dir.join("addresses"),
        table: format!("tiphys-{}-hostports", config.node_name),
        pods: OnceLock::new(),
    };
    let runtime = RuntimeConfig {
        root: config.root_dir.join("runtime"),
        name: config.node_name.clone(),
        supervisor: Some(SupervisorCommand {
            program: std::env::current_exe().context("cannot find this program's own file")?,
            arguments: vec!["supervisor".into()],
        }),
        network: Arc::new(network),
        images,
        clock: crate::cluster::clock(),
    };
    EmbeddedRuntime::open(runtime).await.context("the container runtime cannot start")
}

/// The address that this machine speaks to the API server from. Nothing is sent for it.
fn own_address(server: &str) -> Result<IpAddr> {
    let authority = server.trim_start_matches("https://").trim_end_matches('/');
    let authority = authority.split('/').next().unwrap_or_default();
    let found = UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| {
        if authority.contains(':') {
            socket.connect(authority)?
        } else {
            socket.connect((authority, 443))?
        }
        socket.local_addr()
    });
    Ok(found.with_context(|| format!("there is no way to {server}; name this node's address with --node-ip"))?.ip())
}
