//! Volumes of pods on this node. A folder per plugin; `Volumes` asks the right one and keeps what is mounted.
//!
//! Set up when a pod starts and refreshed when something it shows has changed (told by watches, not polled).
//! Secrets and tokens stand in one tmpfs for the whole node instead of one each: as far from the disk, without a mount per volume.
//! Deliberately absent: CSI, attachable and network volumes, block devices, SELinux relabelling.

mod atomic;
mod claim;
mod empty_dir;
mod host_path;
mod ownership;
mod payload;
mod subpath;

pub(crate) use payload::{Known, Need};
pub(crate) use subpath::mounts_of;

use crate::env::Sources;
use crate::pod::spec;
use crate::security;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use tiphys_cri as cri;
use tiphys_types::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

/// A volume that stands ready.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
    /// An image volume: the runtime mounts the image itself.
    pub(crate) image: Option<cri::ImageSpec>,
}

impl Mounted {
    fn at(path: impl Into<PathBuf>) -> Self {
        Mounted { path: path.into(), read_only: false, image: None }
    }
}

/// A volume that could not be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountError {
    pub(crate) volume: String,
    pub(crate) message: String,
}

/// The folders of the kubelet's data.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
}

impl Layout {
    pub(crate) fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    pub(crate) fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    pub(crate) fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.root.join("memory")
    }

    fn secret_volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.memory().join(uid).join(format!("kubernetes.io~{plugin}")).join(name)
    }

    pub(crate) fn container(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("containers").join(container)
    }

    pub(crate) fn subpaths(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volume-subpaths")
    }

    pub(crate) fn etc_hosts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }
}

/// What volumes of one pod are made from.
pub(crate) struct Request<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) sources: &'a Sources,
    pub(crate) known: &'a Known,
    pub(crate) claims: &'a BTreeMap<String, Result<(PersistentVolumeClaim, PersistentVolume), String>>,
    /// Bytes that a tmpfs without any limit may take.
    pub(crate) node_memory: i64,
}

pub(crate) struct Volumes {
    layout: Layout,
    mounted: Mutex<HashMap<String, BTreeMap<String, Mounted>>>,
}

impl Volumes {
    pub(crate) fn new(layout: Layout) -> Self {
        Volumes { layout, mounted: Mutex::default() }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The tmpfs for secrets; one that a former kubelet mounted goes on.
    pub(crate) fn prepare(&self, in_memory: bool) -> std::io::Result<()> {
        std::fs::create_dir_all(self.layout.pods())?;
        let memory = self.layout.memory();
        std::fs::create_dir_all(&memory)?;
        if !in_memory || is_mount_point(&memory) {
            return Ok(());
        }
        match tiphys_sys::mount::mount("tmpfs", &memory, "tmpfs", 0, "mode=0750") {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                tracing::warn!(%error, "no tmpfs for secrets: they are kept on disk");
                Ok(())
            }
            other => other,
        }
    }

    /// Sets up all volumes of a pod, or brings them up to date. Returns on the first that cannot be.
    pub(crate) fn set_up(&self, request: &Request<'_>) -> Result<BTreeMap<String, Mounted>, MountError> {
        let mut mounted = BTreeMap::new();
        for volume in spec::spec(request.pod).volumes.iter().flatten() {
            let one = self.one(request, volume).map_err(|message| MountError { volume: volume.name.clone(), message })?;
            mounted.insert(volume.name.clone(), one);
        }
        self.mounted.lock().insert(spec::uid(request.pod).to_owned(), mounted.clone());
        Ok(mounted)
    }

    /// Writes again what has changed in volumes that are mounted already.
    pub(crate) fn refresh(&self, request: &Request<'_>) -> Result<(), MountError> {
        for volume in spec::spec(request.pod).volumes.iter().flatten().filter(|v| payload::is_payload(v)) {
            self.one(request, volume).map_err(|message| MountError { volume: volume.name.clone(), message })?;
        }
        Ok(())
    }

    pub(crate) fn is_set_up(&self, uid: &str) -> bool {
        self.mounted.lock().contains_key(uid)
    }

    fn one(&self, request: &Request<'_>, volume: &Volume) -> Result<Mounted, String> {
        let uid = spec::uid(request.pod);
        let group = security::fs_group(request.pod);
        if let Some(source) = &volume.empty_dir {
            let path = self.layout.volume(uid, "empty-dir", &volume.name);
            return empty_dir::set_up(&path, source, request.pod, group, request.node_memory);
        }
        if let Some(source) = &volume.host_path {
            return host_path::set_up(source);
        }
        if let Some(source) = &volume.persistent_volume_claim {
            return claim::set_up(&volume.name, source, request.claims);
        }
        if volume.ephemeral.is_some() {
            let name = format!("{}-{}", spec::name(request.pod), volume.name);
            return claim::bound(request.claims.get(&volume.name), &name, false);
        }
        if let Some(source) = &volume.image {
            let spec = cri::ImageSpec {
                image: source.reference.clone().unwrap_or_default(),
                user_specified_image: source.reference.clone().unwrap_or_default(),
                ..cri::ImageSpec::default()
            };
            return Ok(Mounted { path: PathBuf::new(), read_only: true, image: Some(spec) });
        }
        let Some(written) = payload::make(request.pod, volume, request.sources, request.known)? else {
            return Err("volume source is not supported by this node".into());
        };
        let path = match written.plugin {
            "downward-api" | "configmap" => self.layout.volume(uid, written.plugin, &volume.name),
            plugin => self.layout.secret_volume(uid, plugin, &volume.name),
        };
        atomic::write(&path, &written.files, group).map_err(|e| format!("writing {}: {e}", path.display()))?;
        Ok(Mounted { path, read_only: true, image: None })
    }

    /// Removes everything of a pod. What is still mounted in its folder is unmounted first, so that no user's data is deleted.
    pub(crate) fn tear_down(&self, uid: &str) -> std::io::Result<()> {
        let folder = self.layout.pod(uid);
        unmount_below(&folder)?;
        remove_tree(&folder)?;
        remove_tree(&self.layout.memory().join(uid))?;
        self.mounted.lock().remove(uid);
        Ok(())
    }

    /// Folders of pods that nobody knows any more.
    pub(crate) fn orphans(&self, alive: &HashSet<String>) -> Vec<String> {
        let mut found = HashSet::new();
        for folder in [self.layout.pods(), self.layout.memory()] {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            found.extend(entries.map(|e| e.file_name().to_string_lossy().into_owned()));
        }
        found.retain(|uid| !alive.contains(uid));
        found.into_iter().collect()
    }
}

fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |p: &Path| std::fs::metadata(p).map(|m| m.dev()).ok();
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

fn unmount_below(folder: &Path) -> std::io::Result<()> {
    let Ok(real) = folder.canonicalize() else { return Ok(()) };
    let mut points: Vec<PathBuf> =
        tiphys_sys::proc::mounts()?.into_iter().map(|m| m.mount_point).filter(|p| p.starts_with(&real)).collect();
    // The deepest first, and the last mounted first where several lie on one another.
    points.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    for point in points {
        tiphys_sys::mount::detach(&point)?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
