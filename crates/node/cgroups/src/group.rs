//! One group: making, joining, killing, removing.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tiphys_sys::{process, signal, time, watch};

use crate::error::{CgroupError, Result, read, write};
use crate::hierarchy::{Hierarchy, Version};
use crate::limits::Limits;
use crate::{v1, v2};

/// A path that stands for one folder in every hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    pub(crate) hierarchy: Arc<Hierarchy>,
    path: String,
}

/// How a new process gets into a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinPlan {
    /// The version 2 folder to be born into (CLONE_INTO_CGROUP).
    pub born_into: Option<PathBuf>,
    /// Version 1: files to which the process itself, with one thread, writes `0`. (`tasks` and not `cgroup.procs`:
    /// moving just the calling thread spares the kernel a lock over all processes, which takes milliseconds to get.)
    pub tasks: Vec<PathBuf>,
}

impl Cgroup {
    /// `path` is below the mount points: `/kubepods/burstable`.
    pub fn new(hierarchy: Arc<Hierarchy>, path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != "." && *part != "..").collect();
        Self { hierarchy, path: format!("/{}", parts.join("/")) }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn child(&self, name: &str) -> Self {
        Self::new(self.hierarchy.clone(), &format!("{}/{name}", self.path))
    }

    fn below(&self, root: &Path) -> PathBuf {
        root.join(self.path.trim_start_matches('/'))
    }

    /// The folder in which a controller's files are.
    pub fn folder(&self, controller: &str) -> Option<PathBuf> {
        match self.hierarchy.version {
            Version::V1 => self.hierarchy.controllers.get(controller).map(|root| self.below(root)),
            Version::V2 => self.unified_folder(),
        }
    }

    pub(crate) fn unified_folder(&self) -> Option<PathBuf> {
        self.hierarchy.unified.as_ref().map(|root| self.below(root))
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        self.hierarchy.roots().iter().map(|root| self.below(root)).collect()
    }

    /// Whether it is there in every hierarchy.
    pub fn exists(&self) -> bool {
        self.folders().iter().all(|folder| folder.is_dir())
    }

    /// Makes it, and its ancestors, wherever they are missing.
    pub fn create(&self) -> Result<()> {
        for root in self.hierarchy.roots() {
            self.create_below(&root)?;
        }
        Ok(())
    }

    fn create_below(&self, root: &Path) -> Result<()> {
        let controllers = self.hierarchy.version == Version::V2 && self.hierarchy.unified.as_deref() == Some(root);
        let cpuset = self.hierarchy.controllers.get("cpuset").map(PathBuf::as_path) == Some(root);
        let mut folder = root.to_owned();
        for part in self.path.split('/').filter(|part| !part.is_empty()) {
            if controllers {
                v2::delegate(&folder)?;
            }
            folder.push(part);
            match std::fs::create_dir(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(CgroupError::Create { path: folder, source }),
            }
            if cpuset {
                v1::seed_cpuset(&folder)?;
            }
        }
        Ok(())
    }

    pub fn apply(&self, limits: &Limits) -> Result<()> {
        match self.hierarchy.version {
            Version::V1 => v1::apply(self, limits),
            Version::V2 => v2::apply(self, limits),
        }
    }

    pub fn join_plan(&self) -> JoinPlan {
        let unified = self.hierarchy.unified.as_ref();
        JoinPlan {
            born_into: self.unified_folder(),
            tasks: self.hierarchy.roots().iter().filter(|root| Some(*root) != unified).map(|root| self.below(root).join("tasks")).collect(),
        }
    }

    /// Moves a whole process into the group.
    pub fn add_process(&self, pid: i32) -> Result<()> {
        self.folders().iter().try_for_each(|folder| write(folder, "cgroup.procs", &pid.to_string()))
    }

    /// One hierarchy's folder that knows all processes of the group.
    fn process_folder(&self) -> Option<PathBuf> {
        self.unified_folder().or_else(|| self.folder("pids")).or_else(|| self.folders().into_iter().next())
    }

    /// The processes in the group itself (without subgroups).
    pub fn processes(&self) -> Vec<i32> {
        self.process_folder().map(|folder| processes_in(&folder)).unwrap_or_default()
    }

    /// The processes in the group and everything below it.
    pub fn all_processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for folder in self.process_folder().map(|folder| subfolders(&folder)).unwrap_or_default() {
            found.extend(processes_in(&folder));
        }
        found
    }

    /// The names of its subgroups.
    pub fn children(&self) -> Vec<String> {
        let folders = self.folders();
        let mut names: Vec<String> = folders.iter().flat_map(|folder| child_names(folder)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Stops everything in the group from running, or lets it go on.
    pub fn set_frozen(&self, frozen: bool) -> Result<()> {
        match self.unified_folder().filter(|folder| folder.join("cgroup.freeze").exists()) {
            Some(folder) => write(&folder, "cgroup.freeze", if frozen { "1" } else { "0" }),
            None => v1::set_frozen(self, frozen),
        }
    }

    /// Sends SIGKILL to everything in the group and below, with nothing escaping by forking.
    pub fn kill_all(&self) -> Result<()> {
        if let Some(folder) = self.unified_folder().filter(|folder| folder.join("cgroup.kill").exists()) {
            write(&folder, "cgroup.kill", "1")?;
            if self.hierarchy.version == Version::V2 {
                return Ok(());
            }
        }
        // In the mixture a process may be in the version 1 folders only (moved there by hand): those are killed one by one.
        let rest = self.all_v1_processes();
        if rest.is_empty() {
            return Ok(());
        }
        v1::set_frozen(self, true).ok();
        for pid in self.all_v1_processes() {
            process::kill(pid, signal::SIGKILL).ok();
        }
        v1::set_frozen(self, false)
    }

    fn all_v1_processes(&self) -> Vec<i32> {
        let folder = self.folder("freezer").or_else(|| self.folder("pids"));
        folder.map(|folder| subfolders(&folder).iter().flat_map(|folder| processes_in(folder)).collect()).unwrap_or_default()
    }

    /// Waits until no process is left; false if the time is over before.
    pub fn wait_empty(&self, limit: Duration) -> bool {
        let deadline = time::monotonic_nanos() + limit.as_nanos() as i64;
        while let Some(&pid) = self.all_processes().first() {
            let left = deadline - time::monotonic_nanos();
            if left <= 0 {
                return false;
            }
            let Ok(pidfd) = process::pidfd_open(pid) else { continue };
            wait_readable(pidfd.as_fd(), Duration::from_nanos(left as u64));
        }
        true
    }

    /// Removes the group and everything below it, waiting a little for processes that are still ending.
    pub fn remove(&self) -> Result<()> {
        let deadline = time::monotonic_nanos() + 5_000_000_000;
        self.folders().iter().try_for_each(|folder| self.remove_tree(folder, deadline))
    }

    /// Removes it where it is there and has no process, now or never.
    pub fn remove_if_empty(&self) {
        for folder in self.folders() {
            std::fs::remove_dir(folder).ok();
        }
    }

    fn remove_tree(&self, folder: &Path, deadline: i64) -> Result<()> {
        subfolders(folder).into_iter().rev().try_for_each(|folder| self.remove_folder(&folder, deadline))
    }

    fn remove_folder(&self, folder: &Path, deadline: i64) -> Result<()> {
        loop {
            match std::fs::remove_dir(folder) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && time::monotonic_nanos() < deadline => self.wait_for_change(),
                Err(source) => return Err(CgroupError::Remove { path: folder.into(), source }),
            }
        }
    }

    /// A process leaves its group only after its parent could have heard of its end; this bridges that moment.
    fn wait_for_change(&self) {
        let events = self.unified_folder().and_then(|folder| std::fs::File::open(folder.join("cgroup.events")).ok());
        match events {
            Some(events) => drop(watch::wait_priority(events.as_fd(), Duration::from_millis(2))),
            None => std::thread::yield_now(),
        }
    }
}

fn wait_readable(fd: std::os::fd::BorrowedFd<'_>, limit: Duration) {
    if let Ok(mut poll) = tiphys_sys::poll::Poll::new() {
        let added = poll.add(fd, 0, tiphys_sys::poll::EventFlags::IN);
        added.and_then(|()| poll.wait(Some(limit))).ok();
    }
}

fn processes_in(folder: &Path) -> Vec<i32> {
    read(folder, "cgroup.procs").map(|text| text.lines().filter_map(|line| line.parse().ok()).collect()).unwrap_or_default()
}

fn child_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The folder and everything below it, parents first. Empty if it is not there.
fn subfolders(folder: &Path) -> Vec<PathBuf> {
    if !folder.is_dir() {
        return Vec::new();
    }
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let here = found[next].clone();
        found.extend(child_names(&here).into_iter().map(|name| here.join(name)));
        next += 1;
    }
    found
}
