//! The kubelet's Summary API (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`), as far as metrics need it.

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Summary {
    pub(super) node: Stats,
    #[serde(default)]
    pub(super) pods: Vec<PodStats>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStats {
    pub(super) pod_ref: PodRef,
    #[serde(default)]
    pub(super) containers: Vec<Stats>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct PodRef {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
}

/// Of a node or of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) start_time: String,
    pub(super) cpu: Option<Cpu>,
    pub(super) memory: Option<Memory>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cpu {
    pub(super) time: String,
    pub(super) usage_nano_cores: Option<u64>,
    pub(super) usage_core_nano_seconds: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    pub(super) working_set_bytes: Option<u64>,
}
