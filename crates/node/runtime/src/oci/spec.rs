//! The description of a container, an exec and a sandbox, as the node process sends it to the supervisor.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A container to start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Launch {
    pub id: String,
    /// The mounted root file system.
    pub rootfs: PathBuf,
    pub readonly_rootfs: bool,
    pub namespaces: Namespaces,
    /// In the order of mounting.
    pub mounts: Vec<Mount>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub devices: Vec<DeviceNode>,
    pub cgroup: Cgroup,
    pub process: Process,
    /// Where output goes, in the CRI's log format. None: nowhere but to those attached.
    pub log_path: Option<PathBuf>,
    pub stdin: bool,
    /// The first client that detaches closes standard input for good.
    pub stdin_once: bool,
    /// In a user namespace: the program's user and group as the host sees them.
    pub outside: Option<(u32, u32)>,
}

/// A command to run in a container that runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    pub exec_id: String,
    pub container: String,
    pub process: Process,
    pub cgroup: Cgroup,
    /// As [`Launch::outside`].
    pub outside: Option<(u32, u32)>,
}

/// A pod's shared namespaces to make. Each is pinned by a bind mount of its descriptor at the path given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    pub id: String,
    pub net: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    pub hostname: String,
    pub sysctls: BTreeMap<String, String>,
    /// A tmpfs for /dev/shm of all containers, and its size.
    pub shm: Option<(PathBuf, u64)>,
    /// Whether the containers share a PID namespace; then a process holds it, as its init.
    pub shared_pid: bool,
    pub cgroup: Cgroup,
    /// A user namespace that owns all the others.
    pub users: Option<Users>,
}

/// A user namespace to make and pin, and what its users are outside: (inside, outside, count).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Users {
    pub path: PathBuf,
    pub uids: Vec<(u32, u32, u32)>,
    pub gids: Vec<(u32, u32, u32)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Pinned namespaces to join; None is the host's.
    pub net: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    pub user: Option<PathBuf>,
    pub pid: PidNamespace,
    /// Version 2 only: a cgroup namespace of its own.
    pub cgroup: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    #[default]
    New,
    Host,
    /// The one of this container or sandbox.
    Of(String),
}

/// Where a process belongs among the cgroups, and how everything there is killed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    /// The path below the mount points.
    pub path: String,
    pub born_into: Option<PathBuf>,
    pub tasks: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    Slave,
    Shared,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Inside the container.
    pub target: String,
    pub kind: MountKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    Bind {
        source: PathBuf,
        readonly: bool,
        recursive_readonly: bool,
        propagation: Propagation,
        /// In a user namespace: owners are shown through its map.
        idmap: bool,
    },
    Proc,
    Sysfs {
        readonly: bool,
    },
    Tmpfs {
        options: String,
        nosuid: bool,
        nodev: bool,
        noexec: bool,
    },
    /// /dev with its nodes and links.
    Devices,
    Devpts,
    Mqueue,
    /// Version 2: the container's own view.
    Cgroup2 {
        readonly: bool,
    },
    /// Version 1: (name below the target, the folder of the container's own group).
    Cgroup1 {
        folders: Vec<(String, PathBuf)>,
        readonly: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    pub path: String,
    /// c or b.
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// The program and who it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Bounding set; also permitted and effective while the user is root.
    pub capabilities: u64,
    /// Kept by any user and across execve (KEP-2763).
    pub ambient: u64,
    /// The compiled filter, one instruction a number; empty is unconfined.
    pub seccomp: Vec<u64>,
    pub seccomp_flags: u32,
    pub no_new_privs: bool,
    /// (name, soft, hard)
    pub rlimits: Vec<(String, u64, u64)>,
    pub oom_score_adj: Option<i64>,
    pub tty: bool,
}
