//! What containers and pods use, for the kubelet's summary and for eviction.

use std::path::Path;

use tiphys_cri::{
    ContainerAttributes, ContainerStats, ContainerStatsFilter, CpuUsage, FilesystemUsage, MemoryUsage, NetworkInterfaceUsage, NetworkUsage,
    PodSandboxAttributes, PodSandboxStats, SwapUsage,
};
use tiphys_sys::{fs, ns, proc};

use super::state::{ContainerRecord, SandboxRecord};
use super::{Runtime, matches_id, matches_labels};

/// Walking a container's files takes long; who asks sooner gets the figure of the last walk.
const DISK_USAGE_AGE: i64 = 10_000_000_000;

impl Runtime {
    pub(super) fn stats_of(&self, record: &ContainerRecord) -> ContainerStats {
        let now = self.now();
        let stats = self.group(&record.launch.cgroup.path).stats();
        ContainerStats {
            attributes: ContainerAttributes {
                id: record.id.clone(),
                metadata: record.config.metadata.clone(),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            },
            cpu: cpu(&stats, now),
            memory: memory(&stats, now),
            writable_layer: Some(self.disk_usage_of(&record.id, now)),
            swap: Some(SwapUsage { timestamp: now, swap_available_bytes: stats.swap_limit, swap_usage_bytes: stats.swap_usage }),
        }
    }

    pub(super) fn stats_of_all(&self, filter: &ContainerStatsFilter) -> Vec<ContainerStats> {
        let wanted = |record: &ContainerRecord| {
            record.ended.is_none()
                && record.started_at != 0
                && matches_id(&record.id, filter.id.as_ref())
                && matches_id(&record.sandbox_id, filter.pod_sandbox_id.as_ref())
                && matches_labels(&record.config.labels, &filter.label_selector)
        };
        let records: Vec<ContainerRecord> =
            self.containers.lock().values().filter(|entry| wanted(&entry.record)).map(|entry| entry.record.clone()).collect();
        records.iter().map(|record| self.stats_of(record)).collect()
    }

    pub(super) fn pod_stats_of(&self, record: &SandboxRecord) -> PodSandboxStats {
        let now = self.now();
        let stats = self.group(&record.config.linux.cgroup_parent).stats();
        let filter = ContainerStatsFilter { pod_sandbox_id: Some(record.id.clone()), ..Default::default() };
        PodSandboxStats {
            attributes: PodSandboxAttributes {
                id: record.id.clone(),
                metadata: record.config.metadata.clone(),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            },
            cpu: cpu(&stats, now),
            memory: memory(&stats, now),
            network: record.net.as_deref().and_then(|netns| network(netns, now)),
            process_count: stats.pids,
            containers: self.stats_of_all(&filter),
        }
    }

    fn disk_usage_of(&self, id: &str, now: i64) -> FilesystemUsage {
        if let Some(known) = self.disk_usage.lock().get(id).filter(|known| now - known.timestamp < DISK_USAGE_AGE) {
            return known.clone();
        }
        let folder = self.folders.container(id);
        let (used_bytes, inodes_used) = fs::usage_below(&folder.join("upper"));
        let usage = FilesystemUsage { timestamp: now, mountpoint: folder.to_string_lossy().into_owned(), used_bytes, inodes_used };
        self.disk_usage.lock().insert(id.to_owned(), usage.clone());
        usage
    }
}

fn cpu(stats: &tiphys_cgroups::Stats, now: i64) -> CpuUsage {
    CpuUsage { timestamp: now, usage_core_nano_seconds: stats.cpu_usage_nanos, usage_nano_cores: None }
}

fn memory(stats: &tiphys_cgroups::Stats, now: i64) -> MemoryUsage {
    MemoryUsage {
        timestamp: now,
        working_set_bytes: stats.memory_working_set,
        available_bytes: stats.memory_limit.map(|limit| limit.saturating_sub(stats.memory_working_set)),
        usage_bytes: stats.memory_usage,
        rss_bytes: stats.memory_rss,
        page_faults: stats.page_faults,
        major_page_faults: stats.major_page_faults,
    }
}

/// The counters of a pod's interfaces, eth0 first, without the loopback one.
fn network(netns: &Path, now: i64) -> Option<NetworkUsage> {
    let text = ns::in_network_namespace(netns, || std::fs::read_to_string("/proc/thread-self/net/dev")).ok()?;
    let mut interfaces: Vec<NetworkInterfaceUsage> = proc::network_counters(&text)
        .into_iter()
        .filter(|(name, ..)| name != "lo")
        .map(|(name, rx_bytes, rx_errors, tx_bytes, tx_errors)| NetworkInterfaceUsage { name, rx_bytes, rx_errors, tx_bytes, tx_errors })
        .collect();
    interfaces.sort_by_key(|interface| interface.name != "eth0");
    Some(NetworkUsage { timestamp: now, interfaces })
}
