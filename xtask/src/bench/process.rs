//! Memory and CPU time of processes, as proc(5) tells them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// All processes of the machine.
fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

pub(super) fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

/// Those that run this very file, by whatever name: what a container of the built-in image runs is a hard link to it.
pub(super) fn running(program: &Path) -> BTreeSet<u32> {
    let Ok(file) = fs::metadata(program) else { return BTreeSet::new() };
    let same = |pid: &u32| fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|exe| (exe.dev(), exe.ino()) == (file.dev(), file.ino()));
    all().filter(same).collect()
}

/// Those in a named network namespace, and what descends from them, wherever that is.
pub(super) fn in_namespace(name: &str) -> BTreeSet<u32> {
    let Ok(namespace) = fs::metadata(format!("/run/netns/{name}")) else { return BTreeSet::new() };
    let inside = |pid: &u32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns.ino() == namespace.ino());
    let mut found: BTreeSet<u32> = all().filter(inside).collect();
    let parents: Vec<(u32, u32)> = all().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    loop {
        let before = found.len();
        let children: Vec<u32> = parents.iter().filter(|(_, parent)| found.contains(parent)).map(|(pid, _)| *pid).collect();
        found.extend(children);
        if found.len() == before {
            return found;
        }
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Proportional set size: shared pages count by the share. In KiB.
pub(super) fn pss_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// CPU time of all threads so far, in nanoseconds. What threads that ended had used is not in it.
pub(super) fn cpu_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let one = |task: fs::DirEntry| -> Option<u64> {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse().ok()
    };
    tasks.filter_map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_measured() {
        let own = std::process::id();
        let program = std::env::current_exe().expect("a program runs this");
        assert!(running(&program).contains(&own));
        assert!(pss_kib(own) > 100 && cpu_ns(own) > 0);
        assert!(!command_line(own).is_empty());
        assert!(parent(own).is_some_and(|parent| parent > 0));
        assert!(in_namespace("no namespace has this name").is_empty());
    }
}
