//! The pod network of a node agent that runs alone: ours, once the Node has its range of addresses (`spec.podCIDR`).
//!
//! Absent: routes to the pods of other nodes, which upstream leaves to a network plugin or a cloud provider as well.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::OnceLock;

use async_trait::async_trait;
use tiphys_cni::Cidr;
use tiphys_runtime::{PodNetwork, PodNetworkRequest};

use crate::pod_network::RoutedPods;

pub(super) struct LonePods {
    /// The node's own address.
    pub(super) address: Ipv4Addr,
    pub(super) folder: PathBuf,
    /// The nftables table of host ports.
    pub(super) table: String,
    pub(super) pods: OnceLock<RoutedPods>,
}

impl LonePods {
    fn opened(&self) -> Result<&RoutedPods, String> {
        self.pods.get().ok_or_else(|| "the node has no range of pod addresses (spec.podCIDR) yet".to_owned())
    }
}

#[async_trait]
impl PodNetwork for LonePods {
    async fn set_up(&self, pod: &PodNetworkRequest) -> Result<Vec<IpAddr>, String> {
        self.opened()?.set_up(pod).await
    }

    async fn tear_down(&self, pod: &PodNetworkRequest) -> Result<(), String> {
        match self.pods.get() {
            Some(pods) => pods.tear_down(pod).await,
            None => Ok(()),
        }
    }

    async fn configure(&self, pod_cidr: &str) -> Result<(), String> {
        if pod_cidr.is_empty() || self.pods.get().is_some() {
            return Ok(());
        }
        let range: Cidr = pod_cidr.parse().map_err(|error| format!("{pod_cidr:?}: {error}"))?;
        let opened = RoutedPods::open(range, self.address, &self.table, &self.folder).map_err(|error| format!("{error:#}"))?;
        // Somebody else may have been first; both read the same folder.
        let _ = self.pods.set(opened);
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.opened().map(drop)
    }
}
