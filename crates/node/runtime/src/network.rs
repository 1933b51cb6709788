//! What the runtime asks of the pod network.

use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use tiphys_cri::PortMapping;

/// A pod that is to be connected, or disconnected.
#[derive(Debug, Clone, Default)]
pub struct PodNetworkRequest {
    pub sandbox_id: String,
    /// The pinned network namespace; the loopback interface is up in it.
    pub netns: PathBuf,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub port_mappings: Vec<PortMapping>,
    pub annotations: tiphys_cri::Map,
}

/// Links and addresses of pods that have a network namespace of their own.
#[async_trait]
pub trait PodNetwork: Send + Sync {
    /// Connects the pod; answers its addresses, the primary one first. Called again after a failure, with a new sandbox.
    async fn set_up(&self, pod: &PodNetworkRequest) -> Result<Vec<IpAddr>, String>;
    /// Takes back everything, however little was there. Idempotent.
    async fn tear_down(&self, pod: &PodNetworkRequest) -> Result<(), String>;
    /// The node's pod range, once it is known.
    async fn configure(&self, _pod_cidr: &str) -> Result<(), String> {
        Ok(())
    }
    /// Why pods cannot be connected yet.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Pods have a loopback interface and nothing else: for tests, and for a node whose network is not there yet.
pub struct LoopbackOnly;

#[async_trait]
impl PodNetwork for LoopbackOnly {
    async fn set_up(&self, _: &PodNetworkRequest) -> Result<Vec<IpAddr>, String> {
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }

    async fn tear_down(&self, _: &PodNetworkRequest) -> Result<(), String> {
        Ok(())
    }
}
