//! `tiphys dns`: the cluster's name server. CoreDNS has a language for its settings; here the few that there are are flags.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use clap::Command;
use tiphys_client::Informers;
use tiphys_dns::{ClusterZone, Config};

use super::args::{self, text, texts, value};
use super::connection;

fn command(program: &'static str) -> Command {
    let idle = args::idle(&connection::IDLE);
    Command::new(program).about("The cluster's DNS server").args(connection::flags()).args(idle).args([
        value("address", "where to listen (default: 0.0.0.0)").value_parser(clap::value_parser!(IpAddr)),
        value("port", "port to listen on (default: 53)").value_parser(clap::value_parser!(u16)),
        value("cluster-domain", "domain of the cluster (default: cluster.local)"),
        value("resolv-conf", "where the machine's own name servers stand (default: /etc/resolv.conf)"),
        args::list("own-addresses", "addresses that lead here and must not be asked, such as the DNS Service's"),
        args::verbosity(),
    ])
}

pub(super) fn run(program: &'static str, arguments: Vec<String>) -> Result<()> {
    let m = args::matches(command(program), program, arguments);
    let address = m.get_one("address").copied().unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let listen = SocketAddr::new(address, m.get_one("port").copied().unwrap_or(53));
    let others = texts(&m, "own-addresses").iter().map(|a| a.parse()).collect::<Result<Vec<IpAddr>, _>>()?;
    let config = Config {
        listen,
        domain: text(&m, "cluster-domain").unwrap_or("cluster.local").trim_matches('.').to_owned(),
        resolv_conf: text(&m, "resolv-conf").unwrap_or("/etc/resolv.conf").into(),
        own: std::iter::once(address).chain(others).collect(),
    };
    super::serve(m.get_one("v").copied().unwrap_or(0), |tasks| async move {
        args::warn_of_idle(&m, &connection::IDLE);
        let informers = Informers::with_tasks(connection::client(&m, "dns")?, tasks.child());
        let bound = tiphys_dns::start(config, Arc::new(ClusterZone::new(&informers)), &tasks).await?;
        tracing::info!(address = %bound, "answering");
        std::future::pending().await
    })
}
