//! What all parts of one kubelet share.

use crate::cgroups::PodGroups;
use crate::config::Config;
use crate::events::Events;
use crate::images::Images;
use crate::metrics::Metrics;
use crate::node::eviction::plan::Pressure;
use crate::objects::Objects;
use crate::pod::sandbox::SandboxNode;
use crate::pod::worker::Workers;
use crate::server::rates::Rates;
use crate::static_pods::Statics;
use crate::tokens::Tokens;
use crate::users::UserRanges;
use crate::volumes::Volumes;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use tiphys_base::clock::Clock;
use tiphys_base::tasks::Tasks;
use tiphys_client::{Client, Informer};
use tiphys_cri as cri;
use tiphys_types::api::core::v1::{ConfigMap, Node, Secret, Service};

pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: Arc<dyn cri::RuntimeService>,
    pub(crate) images: Images,
    pub(crate) volumes: Volumes,
    pub(crate) groups: PodGroups,
    pub(crate) users: UserRanges,
    pub(crate) config_maps: Arc<Objects<ConfigMap>>,
    pub(crate) secrets: Arc<Objects<Secret>>,
    pub(crate) tokens: Tokens,
    pub(crate) services: Informer<Service>,
    pub(crate) node: Informer<Node>,
    pub(crate) events: Events,
    pub(crate) tasks: Tasks,
    pub(crate) workers: Workers,
    pub(crate) statics: Statics,
    pub(crate) machine: Machine,
    pub(crate) metrics: Metrics,
    pub(crate) rates: Rates,
    /// What the node is short of, or was a moment ago.
    pub(crate) pressure: Mutex<Pressure>,
    /// The port that the server listens on, once it does.
    pub(crate) port: OnceLock<u16>,
}

/// What the node has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) cpus: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral: i64,
}

impl Agent {
    pub(crate) fn host_ips(&self) -> Vec<String> {
        self.config.node_ips.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn sandbox_node(&self) -> SandboxNode {
        SandboxNode {
            cluster_dns: crate::dns::ClusterDns {
                servers: self.config.cluster_dns.iter().map(ToString::to_string).collect(),
                domain: self.config.cluster_domain.clone(),
            },
            cgroup_root: self.config.cgroup_root.clone(),
            pod_logs: self.config.pod_logs_dir.clone(),
            resolv_conf: std::fs::read_to_string(&self.config.resolv_conf).unwrap_or_default(),
        }
    }

    pub(crate) fn field_known(&self, pod_ips: &[String]) -> crate::field::Known {
        crate::field::Known {
            pod_ips: pod_ips.to_vec(),
            host_ips: self.host_ips(),
            node_cpu_milli: self.machine.cpus * 1000,
            node_memory: self.machine.memory,
            node_ephemeral: self.machine.ephemeral,
        }
    }
}
