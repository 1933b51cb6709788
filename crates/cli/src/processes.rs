//! Which processes are a cluster's: every one carries `--name NAME` and `--data-dir DIR` in its command line.

use std::fs;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cluster::Layout;

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub pid: i32,
    /// `run`, `node`, `supervisor`, or `up` for the command in front.
    pub role: String,
    pub command: Vec<String>,
    /// Proportional set size, in KiB.
    pub memory_kib: u64,
}

fn value_of<'a>(args: &'a [String], flag: &str) -> Option<&'a str> {
    let after = |a: &'a String| a.strip_prefix(flag)?.strip_prefix('=');
    let at = args.iter().position(|a| a == flag || after(a).is_some())?;
    after(args.get(at)?).or_else(|| args.get(at + 1).map(String::as_str))
}

fn command_of(pid: i32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let args: Vec<String> = bytes.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
    Some(args.into_iter().filter(|a| !a.is_empty()).collect())
}

fn memory_kib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The cluster's processes, except the calling one. Containers are not among them: they are the supervisor's.
pub fn of(layout: &Layout) -> Vec<Process> {
    let own = tiphys_sys::process::pid();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: i32| {
        let command = command_of(pid)?;
        let same_dir = std::path::absolute(value_of(&command, "--data-dir")?).is_ok_and(|d| d == layout.data_dir);
        let same = same_dir && value_of(&command, "--name") == Some(layout.name.as_str());
        let role = match command.get(1)?.as_str() {
            role @ ("up" | "run" | "node" | "supervisor") => role,
            _ => return None,
        };
        let role = role.to_owned();
        same.then(|| Process { pid, role, command, memory_kib: memory_kib(pid) })
    };
    let mut found: Vec<Process> = pids.filter(|p| *p != own).filter_map(ours).collect();
    found.sort_by_key(|p| p.pid);
    found
}

/// Sends `signal` and waits until all are gone, at most `limit`; gives those that are still there.
pub fn end(pids: &[i32], signal: i32, limit: Duration) -> Vec<i32> {
    let handles: Vec<_> = pids.iter().filter_map(|pid| Some((*pid, tiphys_sys::process::pidfd_open(*pid).ok()?))).collect();
    let start = Instant::now();
    for (_, handle) in &handles {
        let _ = tiphys_sys::process::pidfd_send_signal(std::os::fd::AsFd::as_fd(handle), signal);
    }
    handles.into_iter().filter(|(_, handle)| !gone(handle, limit.saturating_sub(start.elapsed()))).map(|(pid, _)| pid).collect()
}

/// A pidfd is readable once its process has ended.
fn gone(handle: &std::os::fd::OwnedFd, limit: Duration) -> bool {
    let timeout =
        rustix::event::Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: limit.subsec_nanos().into() };
    let mut wait = [rustix::event::PollFd::new(handle, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut wait, Some(&timeout)).is_ok_and(|ready| ready > 0)
}
