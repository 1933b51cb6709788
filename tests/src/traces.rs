//! What a cluster could leave behind: links, addresses, routes, rules, namespaces, nftables, mounts, control groups, processes, settings.
//! The network is the test's own namespace and compared whole; of what the machine's other users have too, only what carries the cluster's name.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::run;

#[derive(Debug, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    pub fn take(name: &str, folder: &Path) -> Result<Traces> {
        let mut all = BTreeSet::new();
        let listings: [&[&str]; 8] = [
            &["ip", "-d", "link"],
            &["ip", "addr"],
            &["ip", "route", "show", "table", "all"],
            &["ip", "rule"],
            &["ip", "netns"],
            &["ip", "neigh"],
            &["nft", "list", "ruleset"],
            &["ip", "-6", "route", "show", "table", "all"],
        ];
        for words in listings {
            let text = run(Command::new(words[0]).args(&words[1..]))?;
            all.extend(text.lines().map(|line| format!("{}: {line}", words.join(" "))));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let ours = |line: &&str| line.contains(&*folder.to_string_lossy());
        all.extend(mounts.lines().filter(ours).map(|line| format!("mount: {line}")));
        groups(Path::new("/sys/fs/cgroup"), &format!("tiphys/{name}"), &mut all);
        processes(folder, &mut all)?;
        settings(Path::new("/proc/sys/net"), &mut all);
        Ok(Traces(all))
    }

    pub fn same_as(&self, before: &Traces) -> Result<()> {
        let new: Vec<_> = self.0.difference(&before.0).collect();
        let gone: Vec<_> = before.0.difference(&self.0).collect();
        ensure!(new.is_empty() && gone.is_empty(), "left behind: {new:#?}\ntaken away: {gone:#?}");
        Ok(())
    }
}

fn groups(folder: &Path, part: &str, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        let path = entry.path();
        if path.to_string_lossy().contains(part) {
            all.insert(format!("group: {}", path.display()));
        }
        groups(&path, part, all);
    }
}

fn processes(folder: &Path, all: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&*folder.to_string_lossy()) {
            all.insert(format!("process: {line}"));
        }
    }
    Ok(())
}

/// The kernel's network settings in this namespace, without those that count.
fn settings(folder: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            settings(&path, all);
        } else if let Ok(value) = fs::read_to_string(&path)
            && !path.ends_with("nf_conntrack_count")
        {
            all.insert(format!("setting: {} = {}", path.display(), value.trim()));
        }
    }
}
