use std::collections::BTreeMap;
use std::sync::Arc;

use tiphys_base::tasks::Tasks;
use tiphys_client::{Delta, Informers};
use tiphys_netfilter::{Change, Nft, NftError, Ruleset, conntrack, diff};
use tiphys_types::api::core::v1::{Node, Service};
use tiphys_types::api::discovery::v1::EndpointSlice;
use tokio::sync::Notify;

use crate::health::HealthChecks;
use crate::hostport::{self, HostPort};
use crate::rules::ruleset;
use crate::services::{NodeConfig, Place, Protocol, Range, ServicePort, read, read_health};

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("cannot set up the service rules")]
    Nft(#[from] NftError),
}

/// A table of the kernel that is kept equal to a [`Ruleset`].
struct Table {
    nft: Nft,
    current: Ruleset,
}

impl Table {
    /// Takes the table over: what was in it is replaced, in the transaction that first fills it.
    fn open(name: &str, first: Ruleset) -> Result<Table, NftError> {
        let mut nft = Nft::open(name)?;
        let mut changes = vec![Change::AddTable, Change::DeleteTable, Change::AddTable];
        changes.extend(diff(&Ruleset::default(), &first));
        nft.apply(&changes)?;
        Ok(Table { nft, current: first })
    }

    fn set(&mut self, next: Ruleset) -> Result<(), NftError> {
        self.nft.apply(&diff(&self.current, &next))?;
        self.current = next;
        Ok(())
    }
}

/// The service proxy of one node; it lives as long as its tasks. The rules stay when it stops, so that connections go on.
pub struct Proxy {
    services: BTreeMap<String, ServicePort>,
    node: NodeConfig,
    place: Place,
    table: Table,
}

impl Proxy {
    /// Takes the table over in the calling thread's network namespace and follows the API server from then on.
    pub fn start(table: &str, node: NodeConfig, informers: &Informers, tasks: &Tasks) -> Result<(), ProxyError> {
        let services = BTreeMap::new();
        let first = ruleset(&services, &node, &Place::default());
        let proxy = Proxy { services, table: Table::open(table, first)?, node, place: Place::default() };
        let nodes = informers.of::<Node>();
        let (services, slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
        let changed = Arc::new(Notify::new());
        let (on_service, on_slice) = (changed.clone(), changed.clone());
        services.on_change(move |_| {
            on_service.notify_one();
            true
        });
        slices.on_change(move |_| {
            on_slice.notify_one();
            true
        });
        let (on_node, own_name) = (changed.clone(), proxy.node.name.clone());
        nodes.on_change(move |delta| {
            let moved = match delta {
                Delta::Updated { old, new } => place_of(old) != place_of(new),
                Delta::Added(_) => true,
                Delta::Deleted(_) => false,
            };
            if moved && delta.object().metadata.name.as_deref() == Some(&own_name) {
                on_node.notify_one();
            }
            true
        });
        let mut health = HealthChecks::new(tasks);
        tasks.spawn("proxy", async move {
            services.synced().await;
            slices.synced().await;
            let mut proxy = proxy;
            loop {
                let (all, endpoints) = (services.list(), slices.list());
                let place = nodes.get("", &proxy.node.name).map(|n| place_of(&n)).unwrap_or_default();
                let next = read(&all, &endpoints, &proxy.node, &place);
                health.set(read_health(&all, &endpoints, &proxy.node));
                proxy = proxy.sync(next, place).await;
                changed.notified().await;
            }
        });
        Ok(())
    }

    /// Makes the kernel's rules those of `next`. A refusal is logged and the table is made anew, whole.
    async fn sync(mut self, next: BTreeMap<String, ServicePort>, place: Place) -> Proxy {
        if next == self.services && place == self.place {
            return self;
        }
        let done = tokio::task::spawn_blocking(move || {
            self.place = place;
            self.apply(next);
            self
        });
        match done.await {
            Ok(proxy) => proxy,
            // The thread can only have panicked; the panic goes on to the supervised task, which is logged and counted.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn apply(&mut self, next: BTreeMap<String, ServicePort>) {
        let rules = ruleset(&next, &self.node, &self.place);
        if let Err(error) = self.table.set(rules.clone()) {
            tracing::error!(error = &error as &dyn std::error::Error, "service rules refused; making the table anew");
            if let Err(error) = self.renew(rules) {
                tracing::error!(error = &error as &dyn std::error::Error, "service rules refused again; they stay as they were");
                return;
            }
        }
        forget_stale_udp(&self.services, &next);
        self.services = next;
    }

    fn renew(&mut self, rules: Ruleset) -> Result<(), NftError> {
        let mut changes = vec![Change::AddTable, Change::DeleteTable, Change::AddTable];
        changes.extend(diff(&Ruleset::default(), &rules));
        self.table.nft.apply(&changes)?;
        self.table.current = rules;
        Ok(())
    }
}

fn place_of(node: &Node) -> Place {
    let zone = node.metadata.labels.as_ref().and_then(|l| l.get("topology.kubernetes.io/zone")).cloned().unwrap_or_default();
    let own_pods = node.spec.as_ref().and_then(|s| s.pod_cidr.as_deref()).and_then(Range::parse);
    Place { zone, own_pods }
}

/// UDP flows to endpoints that are gone, or that began before there were any, would live as long as packets come.
fn forget_stale_udp(before: &BTreeMap<String, ServicePort>, after: &BTreeMap<String, ServicePort>) {
    let udp = |p: &&ServicePort| p.port.protocol == Protocol::Udp;
    let changed: Vec<(&ServicePort, Option<&ServicePort>)> = before
        .values()
        .filter(udp)
        .map(|was| (was, after.get(&was.id)))
        .filter(|(was, is)| is.is_none_or(|is| is.endpoints != was.endpoints || is.cluster_ip != was.cluster_ip))
        .chain(after.values().filter(udp).filter(|is| !before.contains_key(&is.id)).map(|is| (is, Some(is))))
        .collect();
    if changed.is_empty() {
        return;
    }
    let stale = |flow: &conntrack::Flow| {
        flow.protocol == conntrack::UDP
            && changed.iter().any(|(was, is)| {
                let own = |ip| flow.destination == ip && flow.destination_port == was.port.number;
                let mut outer = was.external_ips.iter().chain(&was.load_balancer_ips);
                let addressed = own(was.cluster_ip) || outer.any(|ip| own(*ip)) || Some(flow.destination_port) == was.node_port;
                addressed && !is.is_some_and(|is| is.endpoints.iter().chain(&is.local).any(|e| e.address == flow.answers_from))
            })
    };
    if let Err(error) = conntrack::forget(stale) {
        tracing::warn!(%error, "stale UDP flows could not be forgotten; they end when their clients are silent for a while");
    }
}

/// The host ports of one node's pods.
pub struct HostPorts {
    table: Table,
}

impl HostPorts {
    pub fn open(table: &str) -> Result<HostPorts, ProxyError> {
        Ok(HostPorts { table: Table::open(table, hostport::ruleset(&[]))? })
    }

    /// All host ports there should be, from now on.
    pub fn set(&mut self, ports: &[HostPort]) -> Result<(), ProxyError> {
        Ok(self.table.set(hostport::ruleset(ports))?)
    }
}

/// Removes a proxy's or host ports' table; that there is none is fine.
pub fn remove_table(name: &str) -> Result<(), ProxyError> {
    Ok(Nft::open(name)?.delete_table()?)
}
