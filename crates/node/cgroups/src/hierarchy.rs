//! What is mounted where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tiphys_sys::proc::{MountInfo, mounts};

use crate::error::{CgroupError, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// The mounted hierarchies.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    pub(crate) version: Version,
    /// Version 1: controller (or `name=systemd`'s bare name) → mount point. Several may share one.
    pub(crate) controllers: BTreeMap<String, PathBuf>,
    /// Version 2's mount point; beside version 1 it has no controllers.
    pub(crate) unified: Option<PathBuf>,
}

/// The controllers in which groups are made. Others (blkio, net_cls, perf_event) have no limits that Kubernetes sets;
/// each would cost every container start a folder and a write.
const USED_V1: [&str; 8] = ["cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "pids"];

impl Hierarchy {
    /// Reads what this process sees mounted.
    pub fn detect() -> Result<Self> {
        let mounts = mounts().map_err(|source| CgroupError::Read { path: "/proc/self/mountinfo".into(), source })?;
        Self::from_mounts(&mounts).ok_or(CgroupError::NotMounted)
    }

    fn from_mounts(mounts: &[MountInfo]) -> Option<Self> {
        let mut controllers = BTreeMap::new();
        for mount in mounts.iter().filter(|mount| mount.kind == "cgroup") {
            for option in mount.super_options.iter().filter(|option| USED_V1.contains(&option.as_str())) {
                controllers.entry(option.clone()).or_insert_with(|| mount.mount_point.clone());
            }
        }
        let unified = mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.mount_point.clone());
        match (controllers.is_empty(), &unified) {
            (true, None) => None,
            (true, Some(_)) => Some(Self { version: Version::V2, controllers, unified }),
            (false, _) => Some(Self { version: Version::V1, controllers, unified }),
        }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Where version 2 is mounted, alone or beside version 1.
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// The controllers that can be used. In version 2: what the root offers.
    pub fn controllers(&self) -> Vec<String> {
        match (&self.version, &self.unified) {
            (Version::V2, Some(root)) => crate::error::read(root, "cgroup.controllers")
                .map(|text| text.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            _ => self.controllers.keys().cloned().collect(),
        }
    }

    pub fn has(&self, controller: &str) -> bool {
        self.controllers().iter().any(|known| known == controller)
    }

    /// All mount points, each once.
    pub(crate) fn roots(&self) -> Vec<PathBuf> {
        let mut roots: Vec<PathBuf> = self.controllers.values().cloned().chain(self.unified.clone()).collect();
        roots.sort();
        roots.dedup();
        roots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, point: &str, options: &str) -> MountInfo {
        MountInfo {
            id: 1,
            parent: 0,
            root: "/".into(),
            mount_point: point.into(),
            options: vec![],
            shared: false,
            kind: kind.into(),
            source: kind.into(),
            super_options: options.split(',').map(str::to_owned).collect(),
        }
    }

    #[test]
    fn versions_are_told_apart() {
        let hybrid = [
            mount("cgroup", "/c/cpu,cpuacct", "rw,cpu,cpuacct"),
            mount("cgroup", "/c/memory", "rw,memory"),
            mount("cgroup2", "/c/u", "rw"),
        ];
        let found = Hierarchy::from_mounts(&hybrid).unwrap();
        assert_eq!(found.version, Version::V1);
        assert_eq!(found.roots().len(), 3);
        assert_eq!(found.controllers(), ["cpu", "cpuacct", "memory"]);
        let pure = Hierarchy::from_mounts(&hybrid[2..]).unwrap();
        assert_eq!(pure.version, Version::V2);
        assert!(Hierarchy::from_mounts(&[]).is_none());
    }
}
