//! `tiphys controller-manager`.

use std::sync::Arc;

use anyhow::Result;
use clap::{ArgMatches, Command};
use tiphys_client::{Client, Informers};
use tiphys_controllers::{Config, Controllers, Tokens};

use super::args::{self, Idle, duration, file, is_on, list, switch, text, texts, value};
use super::{connection, health, leader};

const NAME: &str = "kube-controller-manager";
const PORT: u16 = 10257;

static IDLE: [Idle; 4] = [
    Idle { name: "service-account-private-key-file", why: "the API server signs the tokens of Secrets" },
    Idle { name: "cluster-name", why: "there is no cloud provider to tell it to" },
    Idle { name: "service-cluster-ip-range", why: "nodes' ranges are cut from --cluster-cidr alone" },
    Idle { name: "configure-cloud-routes", why: "there is no cloud provider" },
];

fn command(program: &'static str) -> Command {
    let own = [
        list("controllers", "which to run: *, NAME, -NAME"),
        value("root-ca-file", "CA that pods get to trust (PEM)"),
        value("cluster-signing-cert-file", "CA that signs certificate requests (PEM)"),
        value("cluster-signing-key-file", "key of --cluster-signing-cert-file (PEM)"),
        switch("use-service-account-credentials", "let each controller act as a ServiceAccount of its own"),
        switch("allocate-node-cidrs", "give every node a range of --cluster-cidr"),
        list("cluster-cidr", "the pods' addresses"),
        value("node-cidr-mask-size", "size of a node's IPv4 range").value_parser(clap::value_parser!(u8)),
        value("node-cidr-mask-size-ipv4", "size of a node's IPv4 range").value_parser(clap::value_parser!(u8)),
        value("node-cidr-mask-size-ipv6", "size of a node's IPv6 range").value_parser(clap::value_parser!(u8)),
        value("node-monitor-grace-period", "after which a silent node is not ready"),
        value("terminated-pod-gc-threshold", "how many ended pods may stay").value_parser(clap::value_parser!(usize)),
        args::verbosity(),
    ];
    let idle = [&IDLE[..], &connection::IDLE, &leader::IDLE, &health::IDLE].into_iter().flat_map(args::idle);
    let command = Command::new(program).about("The Kubernetes controllers").args(connection::flags()).args(leader::flags());
    command.args(health::flags()).args(own).args(idle)
}

fn config(m: &ArgMatches) -> Result<Config> {
    let defaults = Config::default();
    let controllers = texts(m, "controllers");
    let ranges = if is_on(m, "allocate-node-cidrs", false) { texts(m, "cluster-cidr") } else { Vec::new() };
    let mask = |name: &str| m.get_one::<u8>(name).copied();
    Ok(Config {
        controllers: if controllers.is_empty() { defaults.controllers } else { controllers },
        root_ca: file(m, "root-ca-file")?,
        signing_ca: file(m, "cluster-signing-cert-file")?,
        signing_key: file(m, "cluster-signing-key-file")?,
        cluster_cidrs: ranges,
        node_cidr_mask_size_ipv4: mask("node-cidr-mask-size-ipv4")
            .or(mask("node-cidr-mask-size"))
            .unwrap_or(defaults.node_cidr_mask_size_ipv4),
        node_cidr_mask_size_ipv6: mask("node-cidr-mask-size-ipv6").unwrap_or(defaults.node_cidr_mask_size_ipv6),
        node_monitor_grace_period: duration(m, "node-monitor-grace-period", defaults.node_monitor_grace_period)?,
        terminated_pod_gc_threshold: m.get_one("terminated-pod-gc-threshold").copied().unwrap_or(defaults.terminated_pod_gc_threshold),
        ..Config::default()
    })
}

pub(super) fn run(program: &'static str, arguments: Vec<String>) -> Result<()> {
    let m = args::matches(command(program), program, arguments);
    let config = config(&m)?;
    super::serve(m.get_one("v").copied().unwrap_or(0), |tasks| async move {
        for idle in [&IDLE[..], &connection::IDLE, &leader::IDLE, &health::IDLE] {
            args::warn_of_idle(&m, idle);
        }
        if text(&m, "root-ca-file").is_none() {
            tracing::warn!("without --root-ca-file pods get no CA to trust the API server by");
        }
        let connection = connection::config(&m, "controller-manager")?;
        let client = Client::https(connection.clone())?;
        let mut config = config;
        if is_on(&m, "use-service-account-credentials", false) {
            config.accounts = Some(Arc::new(Tokens::new(client.clone(), connection)?));
        }
        health::start(&m, NAME, PORT, &tasks).await?;
        leader::elect(&m, NAME, client.clone(), &tasks, || {
            let informers = Informers::with_tasks(client.clone(), tasks.child());
            let controllers = Controllers::start_with(config, client, informers);
            let stop = tasks.token();
            tasks.spawn_draining("controllers", async move {
                stop.cancelled().await;
                controllers.stop().await;
            });
        })
        .await
    })
}
