//! A server in memory with a PKI of its own, and clients of it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tiphys_apiserver::config::{KubeletClient, Pem};
use tiphys_apiserver::{Config, Running, Server};
use tiphys_base::pki::{Authority, Identity, Names, Subject, Use, generate_key_pem};
use tiphys_base::{Clock, SystemClock};
use tokio::net::TcpListener;

pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

pub(crate) struct Cluster {
    pub(crate) ca: Authority,
    pub(crate) running: Running,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Cluster::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let ca = Authority::generate("kubernetes-ca", SystemClock.now(), YEAR).expect("CA");
        let mut config = Config::new(issue(&ca, "kube-apiserver", &[], Use::Server).into(), Pem::Text(generate_key_pem().expect("key")));
        config.client_ca = Some(Pem::Text(ca.cert_pem().to_owned()));
        config.kubelet = KubeletClient {
            client: Some(issue(&ca, "kube-apiserver-kubelet-client", &["system:masters"], Use::Client).into()),
            ca: Some(Pem::Text(ca.cert_pem().to_owned())),
            preferred_address_types: vec![],
        };
        config.service_cluster_ip_ranges = vec!["10.96.0.0/16".into()];
        change(&mut config);
        let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
        let running = Server::start_on(listener, config).await.expect("starts");
        Cluster { ca, running }
    }

    pub(crate) fn issue(&self, name: &str, groups: &[&str], usage: Use) -> Identity {
        issue(&self.ca, name, groups, usage)
    }
}

fn issue(ca: &Authority, name: &str, groups: &[&str], usage: Use) -> Identity {
    let subject = Subject { common_name: name.into(), organizations: groups.iter().map(|g| (*g).to_owned()).collect() };
    let names = Names { dns: vec!["localhost".into()], ips: vec![LOOPBACK] };
    ca.issue(&subject, &names, usage, SystemClock.now(), YEAR).expect("issued")
}
