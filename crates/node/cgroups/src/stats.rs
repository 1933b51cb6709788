//! What a group uses.

use crate::error::{read, read_number, value_of};
use crate::group::Cgroup;
use crate::hierarchy::Version;

/// Usage of one group with everything below it; zero where a controller is missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu_usage_nanos: u64,
    pub memory_usage: u64,
    /// Usage without the file pages that could be dropped at once; what eviction counts.
    pub memory_working_set: u64,
    pub memory_rss: u64,
    /// None without a limit.
    pub memory_limit: Option<u64>,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap_usage: u64,
    pub swap_limit: Option<u64>,
    pub pids: u64,
}

/// Version 1 says "no limit" as a huge number, rounded down to pages.
const V1_UNLIMITED: u64 = 1 << 62;

impl Cgroup {
    pub fn stats(&self) -> Stats {
        match self.hierarchy.version {
            Version::V1 => self.stats_v1(),
            Version::V2 => self.stats_v2(),
        }
    }

    fn stats_v1(&self) -> Stats {
        let mut stats = Stats::default();
        if let Some(folder) = self.folder("cpuacct") {
            stats.cpu_usage_nanos = read_number(&folder, "cpuacct.usage").unwrap_or(0);
        }
        if let Some(folder) = self.folder("pids") {
            stats.pids = read_number(&folder, "pids.current").unwrap_or(0);
        }
        let Some(folder) = self.folder("memory") else { return stats };
        let text = read(&folder, "memory.stat").unwrap_or_default();
        let value = |key: &str| value_of(&text, key).unwrap_or(0);
        stats.memory_usage = read_number(&folder, "memory.usage_in_bytes").unwrap_or(0);
        stats.memory_working_set = stats.memory_usage.saturating_sub(value("total_inactive_file"));
        stats.memory_rss = value("total_rss");
        stats.memory_limit = Some(value("hierarchical_memory_limit")).filter(|limit| (1..V1_UNLIMITED).contains(limit));
        stats.page_faults = value("total_pgfault");
        stats.major_page_faults = value("total_pgmajfault");
        let with_swap = read_number(&folder, "memory.memsw.usage_in_bytes");
        stats.swap_usage = with_swap.map_or(0, |both| both.saturating_sub(stats.memory_usage));
        stats
    }

    fn stats_v2(&self) -> Stats {
        let Some(folder) = self.unified_folder() else { return Stats::default() };
        let cpu = read(&folder, "cpu.stat").unwrap_or_default();
        let memory = read(&folder, "memory.stat").unwrap_or_default();
        let value = |key: &str| value_of(&memory, key).unwrap_or(0);
        // The root group has no memory.current.
        let usage = read_number(&folder, "memory.current").unwrap_or_else(|| value("anon") + value("file"));
        Stats {
            cpu_usage_nanos: value_of(&cpu, "usage_usec").unwrap_or(0) * 1000,
            memory_usage: usage,
            memory_working_set: usage.saturating_sub(value("inactive_file")),
            memory_rss: value("anon"),
            memory_limit: read_number(&folder, "memory.max"),
            page_faults: value("pgfault"),
            major_page_faults: value("pgmajfault"),
            swap_usage: read_number(&folder, "memory.swap.current").unwrap_or(0),
            swap_limit: read_number(&folder, "memory.swap.max"),
            pids: read_number(&folder, "pids.current").unwrap_or(0),
        }
    }

    /// How often the kernel has killed a process in it for lack of memory.
    pub fn oom_kills(&self) -> u64 {
        let Some(folder) = self.folder("memory") else { return 0 };
        let file = if self.hierarchy.version == Version::V1 { "memory.oom_control" } else { "memory.events" };
        read(&folder, file).ok().and_then(|text| value_of(&text, "oom_kill")).unwrap_or(0)
    }
}
