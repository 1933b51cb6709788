//! What the runtime remembers of sandboxes and containers, in memory and on disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tiphys_cri::{
    Container, ContainerConfig, ContainerState, ContainerStatus, IdMapping, LinuxContainerResources, LinuxContainerUser, PodSandbox,
    PodSandboxConfig, PodSandboxState, PodSandboxStatus,
};

use crate::network::PodNetworkRequest;
use crate::oci::spec::{Launch, Users};

/// One sandbox, as its `state.json` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SandboxRecord {
    pub(super) id: String,
    pub(super) config: PodSandboxConfig,
    pub(super) runtime_handler: String,
    pub(super) created_at: i64,
    pub(super) ready: bool,
    pub(super) ips: Vec<String>,
    /// The pinned namespaces; None is the host's.
    pub(super) net: Option<PathBuf>,
    pub(super) ipc: Option<PathBuf>,
    pub(super) uts: Option<PathBuf>,
    /// The user namespace that owns the others.
    pub(super) user: Option<PathBuf>,
    pub(super) shm: Option<PathBuf>,
    pub(super) shared_pid: bool,
    pub(super) hostname: String,
    /// Where pins and files are; of old, the sandbox's own folder.
    pub(super) files: Option<PathBuf>,
}

/// One container, as its `state.json` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ContainerRecord {
    pub(super) id: String,
    pub(super) sandbox_id: String,
    pub(super) config: ContainerConfig,
    pub(super) image_id: String,
    pub(super) image_ref: String,
    pub(super) created_at: i64,
    pub(super) started_at: i64,
    pub(super) ended: Option<Ended>,
    pub(super) user: LinuxContainerUser,
    pub(super) resources: LinuxContainerResources,
    pub(super) stop_signal: String,
    /// What the supervisor is told; also what an exec inherits.
    pub(super) launch: Arc<Launch>,
    /// Image volumes that are mounted for it.
    pub(super) image_mounts: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) finished_at: i64,
    pub(super) reason: String,
    pub(super) message: String,
}

impl SandboxRecord {
    pub(super) fn state(&self) -> PodSandboxState {
        if self.ready { PodSandboxState::Ready } else { PodSandboxState::NotReady }
    }

    pub(super) fn status(&self) -> PodSandboxStatus {
        PodSandboxStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state(),
            created_at: self.created_at,
            ips: self.ips.clone(),
            namespaces: self.config.linux.security_context.namespace_options.clone(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }

    pub(super) fn summary(&self) -> PodSandbox {
        PodSandbox {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state(),
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }

    /// What a user and a group inside are outside; None without a user namespace. Whom no map names is nobody.
    pub(super) fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        const NOBODY: u32 = 65534;
        self.user.as_ref()?;
        let users = self.config.linux.security_context.namespace_options.userns_options.as_ref()?;
        let find = |maps: &[IdMapping], id: u32| {
            let map = maps.iter().find(|m| id >= m.container_id && id - m.container_id < m.length);
            map.map_or(NOBODY, |m| m.host_id + (id - m.container_id))
        };
        Some((find(&users.uids, uid), find(&users.gids, gid)))
    }

    /// The user namespace to make.
    pub(super) fn users(&self) -> Option<Users> {
        let users = self.config.linux.security_context.namespace_options.userns_options.as_ref()?;
        let maps = |of: &[IdMapping]| of.iter().map(|m| (m.container_id, m.host_id, m.length)).collect();
        Some(Users { path: self.user.clone()?, uids: maps(&users.uids), gids: maps(&users.gids) })
    }

    /// None on the host's network.
    pub(super) fn network_request(&self) -> Option<PodNetworkRequest> {
        Some(PodNetworkRequest {
            sandbox_id: self.id.clone(),
            netns: self.net.clone()?,
            namespace: self.config.metadata.namespace.clone(),
            name: self.config.metadata.name.clone(),
            uid: self.config.metadata.uid.clone(),
            port_mappings: self.config.port_mappings.clone(),
            annotations: self.config.annotations.clone(),
        })
    }
}

impl ContainerRecord {
    pub(super) fn state(&self) -> ContainerState {
        match (&self.ended, self.started_at) {
            (Some(_), _) => ContainerState::Exited,
            (None, 0) => ContainerState::Created,
            (None, _) => ContainerState::Running,
        }
    }

    pub(super) fn status(&self) -> ContainerStatus {
        let ended = self.ended.clone().unwrap_or_default();
        ContainerStatus {
            id: self.id.clone(),
            pod_sandbox_id: self.sandbox_id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state(),
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: ended.finished_at,
            exit_code: ended.code,
            image: self.config.image.clone(),
            image_ref: self.image_ref.clone(),
            image_id: self.image_id.clone(),
            reason: ended.reason,
            message: ended.message,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            mounts: self.config.mounts.clone(),
            log_path: self.launch.log_path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
            resources: Some(self.resources.clone()),
            user: Some(self.user.clone()),
            stop_signal: self.stop_signal.clone(),
        }
    }

    pub(super) fn summary(&self) -> Container {
        Container {
            id: self.id.clone(),
            pod_sandbox_id: self.sandbox_id.clone(),
            metadata: self.config.metadata.clone(),
            image: self.config.image.clone(),
            image_ref: self.image_ref.clone(),
            image_id: self.image_id.clone(),
            state: self.state(),
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        }
    }
}

/// The folders of a runtime.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    pub(super) root: PathBuf,
}

/// Where the supervisor of a runtime's folder has its socket.
pub fn supervisor_dir(root: &Path) -> PathBuf {
    root.join("supervisor")
}

impl Folders {
    pub(super) fn sandbox(&self, id: &str) -> PathBuf {
        self.root.join("sandboxes").join(id)
    }

    /// What of a sandbox cannot outlive the machine's uptime: pins, and the files that its containers see.
    pub(super) fn passing(&self, id: &str) -> PathBuf {
        self.run().join(id)
    }

    /// In memory: making files on a disk is what costs most of a pod's start.
    pub(super) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(super) fn container(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// The supervisor's folder.
    pub(super) fn supervisor(&self) -> PathBuf {
        supervisor_dir(&self.root)
    }

    pub(super) fn all<T: DeserializeOwned>(&self, kind: &str) -> io::Result<Vec<(PathBuf, Option<T>)>> {
        let folder = self.root.join(kind);
        std::fs::create_dir_all(&folder)?;
        let entries = std::fs::read_dir(&folder)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        Ok(entries.map(|entry| (entry.path(), load(&entry.path()))).collect())
    }
}

fn load<T: DeserializeOwned>(folder: &Path) -> Option<T> {
    let text = std::fs::read(folder.join("state.json")).ok()?;
    // What follows the first value is the end of an older, longer one.
    serde_json::Deserializer::from_slice(&text).into_iter().next()?.ok()
}

/// Writes `state.json` over itself: in one call, which a kill cannot tear, and without a new file each time, whose making is what
/// costs on a busy disk. Not synced: what it speaks of does not survive a loss of power either.
pub(super) fn save(folder: &Path, record: &impl Serialize) -> io::Result<()> {
    use std::io::Write;
    let text = serde_json::to_vec(record)?;
    let mut file = std::fs::File::options().create(true).truncate(false).write(true).open(folder.join("state.json"))?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)
}

/// 64 hexadecimal digits by chance, as ids of containers are everywhere.
pub(super) fn new_id() -> io::Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use tiphys_cri::{NamespaceMode, UserNamespace};

    use super::*;

    #[test]
    fn a_record_is_written_over_a_longer_one() {
        let folder = std::env::temp_dir().join(format!("tiphys-rt-state-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let record = |id: &str| SandboxRecord { id: id.into(), ..SandboxRecord::default() };
        let read = || load::<SandboxRecord>(&folder).map(|record| record.id);
        assert_eq!(read(), None);
        save(&folder, &record("a long name")).unwrap();
        let long = std::fs::read(folder.join("state.json")).unwrap();
        save(&folder, &record("x")).unwrap();
        assert_eq!(read().as_deref(), Some("x"));
        // Killed before the rest was cut off.
        let short = std::fs::read(folder.join("state.json")).unwrap();
        std::fs::write(folder.join("state.json"), [&short[..], &long[short.len()..]].concat()).unwrap();
        assert_eq!(read().as_deref(), Some("x"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn users_inside_are_others_outside() {
        let mut sandbox = SandboxRecord::default();
        assert_eq!(sandbox.outside(0, 0), None);
        let map = |host_id| vec![IdMapping { host_id, container_id: 0, length: 65536 }];
        let users = UserNamespace { mode: NamespaceMode::Pod, uids: map(131_072), gids: map(262_144) };
        sandbox.config.linux.security_context.namespace_options.userns_options = Some(users);
        sandbox.user = Some("/u".into());
        assert_eq!(sandbox.outside(0, 10), Some((131_072, 262_154)));
        assert_eq!(sandbox.outside(65536, 65535), Some((65534, 327_679)));
        assert_eq!(sandbox.users().map(|u| u.uids), Some(vec![(0, 131_072, 65536)]));
    }
}
