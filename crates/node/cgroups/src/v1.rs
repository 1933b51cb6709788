//! Version 1: one folder per controller.

use crate::devices::DeviceRule;
use crate::error::{Result, read, write};
use crate::group::Cgroup;
use crate::limits::Limits;

pub(crate) fn apply(group: &Cgroup, limits: &Limits) -> Result<()> {
    cpu(group, limits)?;
    cpuset(group, limits)?;
    memory(group, limits)?;
    if let (Some(folder), Some(pids)) = (group.folder("pids"), limits.pids) {
        write(&folder, "pids.max", &max_or(pids))?;
    }
    if let Some(folder) = group.folder("hugetlb") {
        for (size, bytes) in &limits.hugepages {
            write(&folder, &format!("hugetlb.{size}.limit_in_bytes"), &bytes.to_string())?;
        }
    }
    devices(group, limits.devices.as_deref())
}

fn max_or(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn cpu(group: &Cgroup, limits: &Limits) -> Result<()> {
    let Some(folder) = group.folder("cpu") else { return Ok(()) };
    if let Some(shares) = limits.cpu_shares {
        write(&folder, "cpu.shares", &shares.to_string())?;
    }
    let period = limits.cpu_period.map(|period| ("cpu.cfs_period_us", period.to_string()));
    let quota = limits.cpu_quota.map(|quota| ("cpu.cfs_quota_us", quota.to_string()));
    both_ways(&folder, period, quota)
}

/// Writes two files that bound each other: in whichever order the kernel accepts.
fn both_ways(folder: &std::path::Path, first: Option<(&str, String)>, second: Option<(&str, String)>) -> Result<()> {
    let (Some((first, first_value)), Some((second, second_value))) = (&first, &second) else {
        return first.or(second).map_or(Ok(()), |(file, value)| write(folder, file, &value));
    };
    if write(folder, first, first_value).is_ok() && write(folder, second, second_value).is_ok() {
        return Ok(());
    }
    write(folder, second, second_value)?;
    write(folder, first, first_value)
}

fn cpuset(group: &Cgroup, limits: &Limits) -> Result<()> {
    let Some(folder) = group.folder("cpuset") else { return Ok(()) };
    if let Some(cpus) = &limits.cpuset_cpus {
        write(&folder, "cpuset.cpus", cpus)?;
    }
    if let Some(mems) = &limits.cpuset_mems {
        write(&folder, "cpuset.mems", mems)?;
    }
    Ok(())
}

fn memory(group: &Cgroup, limits: &Limits) -> Result<()> {
    let Some(folder) = group.folder("memory") else { return Ok(()) };
    let memory = limits.memory.map(|bytes| ("memory.limit_in_bytes", bytes.to_string()));
    // Without swap accounting the file is not there; then there is nothing to limit.
    let swap = limits.memory_swap.filter(|_| folder.join("memory.memsw.limit_in_bytes").exists());
    both_ways(&folder, memory, swap.map(|bytes| ("memory.memsw.limit_in_bytes", bytes.to_string())))
}

fn devices(group: &Cgroup, rules: Option<&[DeviceRule]>) -> Result<()> {
    let (Some(folder), Some(rules)) = (group.folder("devices"), rules) else { return Ok(()) };
    if rules.contains(&DeviceRule::EVERYTHING) {
        // A child cannot get back what its parent denies; then its list is its parent's, which is as much as there is.
        return write(&folder, "devices.allow", "a").or(Ok(()));
    }
    write(&folder, "devices.deny", "a")?;
    rules.iter().try_for_each(|rule| write(&folder, "devices.allow", &rule.to_string()))
}

/// A new cpuset folder is empty and takes no process until it has its parent's processors and memory nodes.
pub(crate) fn seed_cpuset(folder: &std::path::Path) -> Result<()> {
    let Some(parent) = folder.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(folder, file)?.trim().is_empty() {
            write(folder, file, read(parent, file)?.trim())?;
        }
    }
    Ok(())
}

pub(crate) fn set_frozen(group: &Cgroup, frozen: bool) -> Result<()> {
    let Some(folder) = group.folder("freezer") else { return Ok(()) };
    write(&folder, "freezer.state", if frozen { "FROZEN" } else { "THAWED" })
}
