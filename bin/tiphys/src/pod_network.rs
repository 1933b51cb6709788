//! The pod network that the runtime asks: an address of the node's range, a routed link, host ports.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use async_trait::async_trait;
use tiphys_cli::delete::POD_LINK_PREFIX;
use tiphys_cni::Cidr;
use tiphys_cni::ipam::Ipam;
use tiphys_cni::pod::PodLinks;
use tiphys_cri::PortMapping;
use tiphys_proxy::{HostPort, HostPorts, Port, Protocol};
use tiphys_runtime::{PodNetwork, PodNetworkRequest};

const MTU: u32 = 1500;

pub(crate) struct RoutedPods(std::sync::Arc<Inner>);

struct Inner {
    addresses: Ipam,
    links: PodLinks,
    ports: Mutex<Ports>,
}

/// The host ports of all pods, by sandbox.
struct Ports {
    table: HostPorts,
    by_sandbox: std::collections::BTreeMap<String, Vec<HostPort>>,
}

impl RoutedPods {
    /// `range` is the node's part of the pods' addresses, `node` its own, `table` that of host ports.
    pub(crate) fn open(range: Cidr, node: Ipv4Addr, table: &str, folder: &Path) -> Result<RoutedPods> {
        Ok(RoutedPods(std::sync::Arc::new(Inner {
            addresses: Ipam::open(range, folder)?,
            links: PodLinks { prefix: POD_LINK_PREFIX.into(), mtu: MTU, node },
            ports: Mutex::new(Ports { table: HostPorts::open(table)?, by_sandbox: Default::default() }),
        })))
    }
}

#[async_trait]
impl PodNetwork for RoutedPods {
    async fn set_up(&self, pod: &PodNetworkRequest) -> Result<Vec<IpAddr>, String> {
        let (inner, pod) = (self.0.clone(), pod.clone());
        blocking(move || inner.set_up(&pod)).await
    }

    async fn tear_down(&self, pod: &PodNetworkRequest) -> Result<(), String> {
        let (inner, pod) = (self.0.clone(), pod.clone());
        blocking(move || inner.tear_down(&pod)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| format!("{error:#}")),
        Err(error) => Err(error.to_string()),
    }
}

impl Inner {
    fn set_up(&self, pod: &PodNetworkRequest) -> Result<Vec<IpAddr>> {
        let address = self.addresses.allocate(&pod.sandbox_id)?;
        let connect = || -> Result<()> {
            let netns = std::fs::File::open(&pod.netns)?;
            self.links.set_up(netns.as_fd(), address)?;
            self.set_ports(&pod.sandbox_id, host_ports(&pod.port_mappings, address))
        };
        if let Err(error) = connect() {
            let _ = self.links.tear_down(address);
            self.addresses.release(&pod.sandbox_id);
            return Err(error);
        }
        Ok(vec![IpAddr::V4(address)])
    }

    fn tear_down(&self, pod: &PodNetworkRequest) -> Result<()> {
        self.set_ports(&pod.sandbox_id, Vec::new())?;
        for address in self.addresses.of(&pod.sandbox_id) {
            self.links.tear_down(address)?;
        }
        self.addresses.release(&pod.sandbox_id);
        Ok(())
    }

    fn set_ports(&self, sandbox: &str, ports: Vec<HostPort>) -> Result<()> {
        let mut all = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let unchanged = if ports.is_empty() {
            all.by_sandbox.remove(sandbox).is_none()
        } else {
            all.by_sandbox.insert(sandbox.to_owned(), ports.clone()) == Some(ports)
        };
        if unchanged {
            return Ok(());
        }
        let together: Vec<HostPort> = all.by_sandbox.values().flatten().cloned().collect();
        Ok(all.table.set(&together)?)
    }
}

fn host_ports(mappings: &[PortMapping], pod_ip: Ipv4Addr) -> Vec<HostPort> {
    let read = |m: &PortMapping| {
        let protocol = match m.protocol {
            tiphys_cri::Protocol::Tcp => Protocol::Tcp,
            tiphys_cri::Protocol::Udp => Protocol::Udp,
            tiphys_cri::Protocol::Sctp => Protocol::Sctp,
        };
        let number = u16::try_from(m.host_port).ok().filter(|p| *p > 0)?;
        let host_ip = if m.host_ip.is_empty() { Ipv4Addr::UNSPECIFIED } else { m.host_ip.parse().ok()? };
        Some(HostPort { host_ip, port: Port { protocol, number }, pod_ip, pod_port: u16::try_from(m.container_port).ok()? })
    };
    mappings.iter().filter_map(read).collect()
}
