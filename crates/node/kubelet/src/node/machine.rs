//! What the machine is: read once from /proc, /sys and /etc.

use crate::agent::Machine;
use crate::config::Config;
use std::path::Path;
use tiphys_base::platform;
use tiphys_cri::VersionResponse;
use tiphys_types::api::core::v1::NodeSystemInfo;

fn word(path: &str) -> String {
    std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// A field of /proc/meminfo in bytes.
pub(crate) fn memory_field(name: &str) -> i64 {
    let text = word("/proc/meminfo");
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|l| l.split_whitespace().next()?.parse::<i64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Total and available bytes of the filesystem that holds a path.
pub(crate) fn disk(path: &Path) -> Option<(u64, u64)> {
    let existing = path.ancestors().find(|p| p.exists())?;
    let (total, _free, available, ..) = tiphys_sys::fs::filesystem_space(existing).ok()?;
    Some((total, available))
}

/// Total and free inodes of the filesystem that holds a path.
pub(crate) fn inodes(path: &Path) -> Option<(u64, u64)> {
    let existing = path.ancestors().find(|p| p.exists())?;
    let (.., total, free) = tiphys_sys::fs::filesystem_space(existing).ok()?;
    Some((total, free))
}

/// How many processes and threads there may be at a time.
pub(crate) fn max_processes() -> u64 {
    let number = |path: &str| word(path).parse::<u64>().unwrap_or(u64::MAX);
    number("/proc/sys/kernel/pid_max").min(number("/proc/sys/kernel/threads-max"))
}

/// How many there are: the fourth field of loadavg is running/total.
pub(crate) fn processes() -> u64 {
    let text = word("/proc/loadavg");
    text.split_whitespace().nth(3).and_then(|f| f.split_once('/')?.1.parse().ok()).unwrap_or(0)
}

pub(crate) fn machine(config: &Config) -> Machine {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as i64);
    let ephemeral = disk(&config.root_dir).map_or(0, |(total, _)| total as i64);
    Machine { cpus, memory: memory_field("MemTotal"), ephemeral }
}

pub(crate) fn system_info(config: &Config, runtime: &VersionResponse) -> NodeSystemInfo {
    let release = word("/etc/os-release");
    let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).map(|v| v.trim_matches('"').to_owned());
    let machine_id = word("/etc/machine-id");
    let uuid = word("/sys/class/dmi/id/product_uuid").to_lowercase();
    NodeSystemInfo {
        architecture: platform::architecture().into(),
        boot_id: word("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("{}://{}", runtime.runtime_name, runtime.runtime_version),
        kernel_version: word("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: config.version.clone(),
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        operating_system: "linux".into(),
        os_image: pretty.unwrap_or_else(|| "Linux".into()),
        swap: None,
    }
}
