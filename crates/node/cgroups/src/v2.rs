//! Version 2: one folder for everything.

use std::os::fd::AsFd;
use std::path::Path;

use crate::devices::{self, DeviceRule};
use crate::error::{CgroupError, Result, read, write};
use crate::group::Cgroup;
use crate::limits::{Limits, weight_of_shares};

pub(crate) fn apply(group: &Cgroup, limits: &Limits) -> Result<()> {
    let Some(folder) = group.unified_folder() else { return Ok(()) };
    cpu(&folder, limits)?;
    for (file, value) in [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)] {
        if let Some(value) = value {
            write(&folder, file, value)?;
        }
    }
    memory(&folder, limits)?;
    if let Some(pids) = limits.pids {
        write(&folder, "pids.max", &max_or(pids))?;
    }
    for (size, bytes) in &limits.hugepages {
        write(&folder, &format!("hugetlb.{size}.max"), &bytes.to_string())?;
    }
    device_filter(&folder, limits)?;
    limits.unified.iter().filter(|(file, _)| !file.contains('/')).try_for_each(|(file, value)| write(&folder, file, value))
}

fn max_or(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn cpu(folder: &Path, limits: &Limits) -> Result<()> {
    if let Some(weight) = limits.cpu_shares.map(weight_of_shares).filter(|weight| *weight > 0) {
        write(folder, "cpu.weight", &weight.to_string())?;
    }
    if limits.cpu_quota.is_none() && limits.cpu_period.is_none() {
        return Ok(());
    }
    let quota = limits.cpu_quota.map_or_else(|| current_quota(folder), max_or);
    let value = limits.cpu_period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}"));
    write(folder, "cpu.max", &value)
}

fn current_quota(folder: &Path) -> String {
    read(folder, "cpu.max").ok().and_then(|text| text.split_whitespace().next().map(str::to_owned)).unwrap_or_else(|| "max".into())
}

fn memory(folder: &Path, limits: &Limits) -> Result<()> {
    if let Some(swap) = limits.memory_swap.filter(|_| folder.join("memory.swap.max").exists()) {
        // Version 1 counts both together, version 2 swap alone.
        let alone = if swap < 0 { -1 } else { (swap - limits.memory.unwrap_or(0)).max(0) };
        write(folder, "memory.swap.max", &max_or(alone))?;
    }
    limits.memory.map_or(Ok(()), |bytes| write(folder, "memory.max", &max_or(bytes)))
}

fn device_filter(folder: &Path, limits: &Limits) -> Result<()> {
    limits.devices.as_ref().map_or(Ok(()), |rules| install_device_filter(folder, rules))
}

/// Attaches a program to a version 2 folder that allows only these devices.
pub fn install_device_filter(folder: &Path, rules: &[DeviceRule]) -> Result<()> {
    let install = || {
        let program = tiphys_sys::bpf::load_device_program(&devices::compile(rules))?;
        let cgroup = tiphys_sys::fs::open_directory(folder)?;
        tiphys_sys::bpf::attach_device_program(cgroup.as_fd(), program.as_fd())
    };
    install().map_err(|source| CgroupError::Devices { path: folder.into(), source })
}

/// Lets the children of `folder` have every controller that it has itself. What cannot be handed down is left out.
pub(crate) fn delegate(folder: &Path) -> Result<()> {
    let have = read(folder, "cgroup.controllers")?;
    let given = read(folder, "cgroup.subtree_control")?;
    let missing: Vec<String> =
        have.split_whitespace().filter(|name| !given.split_whitespace().any(|one| one == *name)).map(|name| format!("+{name}")).collect();
    if missing.is_empty() || write(folder, "cgroup.subtree_control", &missing.join(" ")).is_ok() {
        return Ok(());
    }
    for controller in missing {
        write(folder, "cgroup.subtree_control", &controller).ok();
    }
    Ok(())
}
