//! The life of a container: created, started, stopped, removed.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tiphys_cri::{
    ContainerConfig, ContainerEventType, ContainerState, CriError, LinuxContainerUser, MountPropagation, NamespaceMode, Result,
};
use tiphys_sys::{fs, mount, signal};
use tokio::sync::watch;

use super::sandbox::remove_folder;
use super::state::{ContainerRecord, Ended, SandboxRecord, new_id, save};
use super::{ContainerEntry, Runtime, blocking, plan};
use crate::images::ContainerImage;
use crate::oci::users::{self, User, Wanted};
use crate::supervisor::protocol::{Exit, Request};

/// What Kubernetes shows for a container that could not be started.
const START_ERROR: &str = "StartError";
const START_ERROR_CODE: i32 = 128;

/// After SIGKILL to everything there is nothing left to wait for but the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(120);

impl Runtime {
    pub(super) async fn create_container(self: &Arc<Self>, sandbox_id: &str, config: ContainerConfig) -> Result<String> {
        let sandbox = self.sandbox(sandbox_id)?;
        if !sandbox.ready {
            return Err(CriError::FailedPrecondition(format!("sandbox {sandbox_id:?} is not ready")));
        }
        let options = &config.linux.security_context.namespace_options;
        if options.pid == NamespaceMode::Target && self.container(&options.target_id)?.sandbox_id != sandbox_id {
            return Err(CriError::InvalidArgument(format!("container {} is not in this pod", options.target_id)));
        }
        let id = new_id()?;
        let result = self.build_container(&id, sandbox, config).await;
        if result.is_err() {
            self.clean_container(&id, None).await.ok();
        }
        result?;
        self.announce(&id, sandbox_id, ContainerEventType::Created);
        Ok(id)
    }

    async fn build_container(self: &Arc<Self>, id: &str, sandbox: SandboxRecord, config: ContainerConfig) -> Result<()> {
        let image = self.images.acquire(&config.image, id).await?;
        let mut volumes = Vec::new();
        for (index, spec) in config.mounts.iter().filter_map(|mount| mount.image.as_ref()).enumerate() {
            volumes.push(self.images.acquire(spec, &volume_owner(id, index)).await?);
        }
        let (runtime, id) = (self.clone(), id.to_owned());
        blocking(move || runtime.lay_out_container(&id, &sandbox, config, &image, &volumes)).await
    }

    /// Everything on disk and in the kernel that a start needs, so that a start is little more than a fork.
    fn lay_out_container(
        &self,
        id: &str,
        sandbox: &SandboxRecord,
        config: ContainerConfig,
        image: &ContainerImage,
        volumes: &[ContainerImage],
    ) -> Result<()> {
        let folder = self.folders.container(id);
        let mapped = sandbox.user.as_deref().map(|path| Mapped::open(path, sandbox)).transpose()?;
        let rootfs = mount_rootfs(&folder, &image.layers, mapped.as_ref())?;
        let image_mounts = mount_image_volumes(&folder, &config, volumes, mapped.as_ref())?;
        make_missing_sources(&config)?;
        let user = resolve_user(&rootfs, &config, image)?;
        let group = self.group(&sandbox.config.linux.cgroup_parent).child(id);
        let launch = plan::launch(&plan::Inputs {
            id,
            sandbox,
            sandbox_folder: sandbox.files.as_deref().unwrap_or(&self.folders.sandbox(&sandbox.id)),
            config: &config,
            image: &image.config,
            user: &user,
            rootfs,
            group: &group,
            hierarchy: &self.hierarchy,
            image_mounts: &image_mounts,
        })?;
        group.create().map_err(CriError::internal)?;
        group.apply(&plan::limits(&config)?).map_err(CriError::internal)?;
        let stop_signal = [&config.stop_signal, &image.config.stop_signal].into_iter().find(|text| !text.is_empty()).cloned();
        let record = ContainerRecord {
            id: id.to_owned(),
            sandbox_id: sandbox.id.clone(),
            image_id: image.id.clone(),
            image_ref: image.reference.clone(),
            created_at: self.now(),
            user: LinuxContainerUser {
                uid: i64::from(user.uid),
                gid: i64::from(user.gid),
                supplemental_groups: user.groups.iter().map(|gid| i64::from(*gid)).collect(),
            },
            resources: config.linux.resources.clone().unwrap_or_default(),
            stop_signal: stop_signal.unwrap_or_else(|| "SIGTERM".into()),
            config,
            launch: Arc::new(launch),
            image_mounts,
            ..ContainerRecord::default()
        };
        save(&folder, &record)?;
        self.containers.lock().insert(id.to_owned(), ContainerEntry::new(record));
        Ok(())
    }

    pub(super) async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let record = self.container(id)?;
        if record.state() != ContainerState::Created {
            return Err(CriError::FailedPrecondition(format!("container {id} has been started before")));
        }
        let now = self.now();
        self.set_starting(id, true);
        match self.call(Request::Start(record.launch)).await {
            Ok(_) => {
                self.update_container(id, |record| record.started_at = if record.started_at == 0 { now } else { record.started_at });
                self.announce(id, &record.sandbox_id, ContainerEventType::Started);
                // It may have ended before the answer came; that is told now, in the order in which it happened.
                if self.set_starting(id, false) {
                    self.announce(id, &record.sandbox_id, ContainerEventType::Stopped);
                }
                Ok(())
            }
            Err(error) => {
                self.set_starting(id, false);
                let CriError::Internal(reason) = error else { return Err(error) };
                let message = format!(
                    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: \
                     unable to start container process: error during container init: {reason}"
                );
                self.failed_to_start(id, &record.sandbox_id, &message);
                Err(CriError::Internal(message))
            }
        }
    }

    /// Whether it has ended meanwhile.
    fn set_starting(&self, id: &str, starting: bool) -> bool {
        let mut containers = self.containers.lock();
        containers.get_mut(id).is_some_and(|entry| {
            entry.starting = starting;
            entry.record.ended.is_some()
        })
    }

    fn failed_to_start(&self, id: &str, sandbox_id: &str, message: &str) {
        let finished_at = self.now();
        let ended = Ended { code: START_ERROR_CODE, finished_at, reason: START_ERROR.into(), message: message.to_owned() };
        self.update_container(id, |record| record.ended = Some(ended));
        self.announce(id, sandbox_id, ContainerEventType::Stopped);
    }

    /// A container has ended, or had ended while nobody listened.
    pub(super) fn container_exited(&self, id: &str, exit: &Exit) {
        let reason = match exit.code {
            0 => "Completed",
            _ if exit.oom_killed => "OOMKilled",
            _ => "Error",
        };
        let change = |entry: &mut ContainerEntry| {
            let record = &mut entry.record;
            if record.ended.is_some() {
                return None;
            }
            record.started_at = if record.started_at == 0 { exit.started_at } else { record.started_at };
            record.ended = Some(Ended { code: exit.code, finished_at: exit.finished_at, reason: reason.into(), message: String::new() });
            (!entry.starting).then(|| record.sandbox_id.clone())
        };
        if let Some(Some(sandbox_id)) = self.update_entry(id, change) {
            self.announce(id, &sandbox_id, ContainerEventType::Stopped);
        }
    }

    pub(super) fn watch_end(&self, id: &str) -> Option<watch::Receiver<bool>> {
        self.containers.lock().get(id).map(|entry| entry.ended.subscribe())
    }

    async fn wait_for_end(&self, id: &str, limit: Duration) -> bool {
        let Some(mut ended) = self.watch_end(id) else { return true };
        let result = tokio::time::timeout(limit, ended.wait_for(|ended| *ended)).await;
        // The sender goes with the container's record: gone is ended.
        result.is_ok()
    }

    pub(super) async fn stop_container(self: &Arc<Self>, id: &str, grace: Duration) -> Result<()> {
        let Ok(record) = self.container(id) else { return Ok(()) };
        if record.state() != ContainerState::Running {
            return Ok(());
        }
        if !grace.is_zero() {
            let number = signal::by_name(&record.stop_signal).unwrap_or(signal::SIGTERM);
            self.call(Request::Signal { id: id.into(), signal: number }).await?;
            if self.wait_for_end(id, grace).await {
                return Ok(());
            }
        }
        self.call(Request::KillAll { id: id.into() }).await?;
        if self.wait_for_end(id, KILL_LIMIT).await {
            return Ok(());
        }
        Err(CriError::DeadlineExceeded(format!("container {id} does not end though it was killed")))
    }

    pub(super) async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(record) = self.container(id) else { return Ok(()) };
        self.stop_container(id, Duration::ZERO).await?;
        self.call(Request::Forget { id: id.into() }).await?;
        self.clean_container(id, Some(&record)).await?;
        self.disk_usage.lock().remove(id);
        let removed = self.containers.lock().remove(id);
        if removed.is_some() {
            self.announce(id, &record.sandbox_id, ContainerEventType::Deleted);
        }
        Ok(())
    }

    /// Takes back what [`Self::lay_out_container`] made, all or part of it.
    pub(super) async fn clean_container(&self, id: &str, record: Option<&ContainerRecord>) -> Result<()> {
        let folder = self.folders.container(id);
        let group = record.map(|record| self.group(&record.launch.cgroup.path));
        let volumes = blocking(move || {
            let volumes = (0..).take_while(|index| folder.join(volume_folder(*index)).is_dir()).count();
            if let Some(group) = group {
                group.kill_all().ok();
                group.remove().map_err(CriError::internal)?;
            }
            unmount_all(&folder)?;
            remove_folder(&folder)?;
            Ok(volumes)
        })
        .await?;
        self.images.release(id).await;
        for index in 0..volumes {
            self.images.release(&volume_owner(id, index)).await;
        }
        Ok(())
    }
}

/// The name under which an image volume's layers are kept.
fn volume_owner(id: &str, index: usize) -> String {
    format!("{id}-{}", volume_folder(index))
}

fn volume_folder(index: usize) -> String {
    format!("image-{index}")
}

/// A pod's user namespace, and who its root is outside.
struct Mapped {
    namespace: std::fs::File,
    root: (u32, u32),
}

impl Mapped {
    fn open(path: &Path, sandbox: &SandboxRecord) -> Result<Self> {
        Ok(Self { namespace: std::fs::File::open(path)?, root: sandbox.outside(0, 0).unwrap_or_default() })
    }

    /// Mounts a layer with its owners mapped, below a container's folder; an overlay of it keeps it when this mount goes.
    fn layer(&self, layer: &Path, target: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(target)?;
        let tree = mount::open_tree(layer, false)?;
        mount::set_idmap(tree.as_fd(), self.namespace.as_fd())?;
        mount::move_mount(tree.as_fd(), fs::open_directory(target)?.as_fd())
    }

    /// Overlays layers with their owners mapped.
    fn overlay(&self, folder: &Path, layers: &[PathBuf], upper: Option<(&Path, &Path)>, target: &Path) -> std::io::Result<()> {
        let places: Vec<PathBuf> = (0..layers.len()).map(|index| folder.join(format!("layer-{index}"))).collect();
        let mounted = layers.iter().zip(&places).try_for_each(|(layer, place)| self.layer(layer, place));
        let result = mounted.and_then(|()| mount::overlay(&places, upper, target));
        for place in &places {
            mount::detach(place)?;
            std::fs::remove_dir(place).ok();
        }
        result
    }
}

fn mount_rootfs(folder: &Path, layers: &[PathBuf], mapped: Option<&Mapped>) -> Result<PathBuf> {
    let [rootfs, upper, work] = ["rootfs", "upper", "work"].map(|name| folder.join(name));
    for path in [&rootfs, &upper, &work] {
        std::fs::create_dir_all(path)?;
    }
    // The upper folder's owner and mode become those of `/`.
    if let Some(metadata) = layers.first().and_then(|layer| std::fs::metadata(layer).ok()) {
        std::fs::set_permissions(&upper, metadata.permissions())?;
    }
    let mounted = match mapped {
        None => mount::overlay(layers, Some((&upper, &work)), &rootfs),
        Some(mapped) => std::os::unix::fs::chown(&upper, Some(mapped.root.0), Some(mapped.root.1))
            .and_then(|()| mapped.overlay(folder, layers, Some((&upper, &work)), &rootfs)),
    };
    mounted.map_err(|error| CriError::Internal(format!("cannot mount the container's root file system: {error}")))?;
    Ok(rootfs)
}

/// Mounts each image volume below the container's folder (KEP-4639); the answer names what to bind.
fn mount_image_volumes(
    folder: &Path,
    config: &ContainerConfig,
    volumes: &[ContainerImage],
    mapped: Option<&Mapped>,
) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let mounts = config.mounts.iter().filter(|mount| mount.image.is_some());
    for (index, (wanted, image)) in mounts.zip(volumes).enumerate() {
        let target = folder.join(volume_folder(index));
        std::fs::create_dir_all(&target)?;
        let failed = |error| CriError::Internal(format!("cannot mount image volume {}: {error}", wanted.container_path));
        match (image.layers.as_slice(), mapped) {
            ([single], Some(mapped)) => mapped.layer(single, &target).map_err(failed)?,
            (layers, Some(mapped)) => mapped.overlay(folder, layers, None, &target).map_err(failed)?,
            ([single], None) => mount::bind(single, &target, false).map_err(failed)?,
            (layers, None) => mount::overlay(layers, None, &target).map_err(failed)?,
        }
        paths.push(sub_path(&target, &wanted.image_sub_path)?);
    }
    Ok(paths)
}

fn sub_path(target: &Path, sub: &str) -> Result<PathBuf> {
    if sub.is_empty() {
        return Ok(target.to_owned());
    }
    let root = fs::open_directory(target)?;
    let found = fs::resolve_in_root(root.as_fd(), Path::new(sub));
    let found = found.map_err(|error| CriError::InvalidArgument(format!("image volume sub path {sub:?}: {error}")))?;
    Ok(std::fs::read_link(mount::fd_path(&found))?)
}

/// Host folders that are not there are made, as containerd does; a mount that is to give back must be able to.
fn make_missing_sources(config: &ContainerConfig) -> Result<()> {
    for wanted in config.mounts.iter().filter(|mount| mount.image.is_none()) {
        let source = Path::new(&wanted.host_path);
        if !source.exists() {
            let made = std::fs::create_dir_all(source);
            made.map_err(|error| {
                CriError::Internal(format!("failed to generate container mounts: failed to mkdir {:?}: {error}", wanted.host_path))
            })?;
        }
        if wanted.propagation == MountPropagation::Bidirectional {
            let holder = tiphys_sys::proc::mount_of(source)?;
            if !holder.shared {
                let text =
                    format!("path {:?} is mounted on {:?} but it is not a shared mount", wanted.host_path, holder.mount_point.display());
                return Err(CriError::Internal(text));
            }
        }
    }
    Ok(())
}

fn resolve_user(rootfs: &Path, config: &ContainerConfig, image: &ContainerImage) -> Result<User> {
    let root = fs::open_directory(rootfs)?;
    let read = |file: &str| -> String {
        let bytes = fs::read_in_root(root.as_fd(), Path::new(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let security = &config.linux.security_context;
    let number = |value: i64| u32::try_from(value).map_err(|_| CriError::InvalidArgument(format!("{value} is no user or group")));
    let supplemental = security.supplemental_groups.iter().map(|gid| number(*gid)).collect::<Result<Vec<u32>>>()?;
    let wanted = Wanted {
        uid: security.run_as_user.map(number).transpose()?,
        name: &security.run_as_username,
        gid: security.run_as_group.map(number).transpose()?,
        supplemental: &supplemental,
        policy: security.supplemental_groups_policy,
        image_user: &image.config.user,
    };
    users::resolve(&wanted, &read("/etc/passwd"), &read("/etc/group")).map_err(CriError::InvalidArgument)
}

/// Unmounts what is mounted below a container's folder.
pub(super) fn unmount_all(folder: &Path) -> Result<()> {
    mount::detach(&folder.join("rootfs"))?;
    for index in 0.. {
        let target = folder.join(volume_folder(index));
        if !target.is_dir() {
            break;
        }
        mount::detach(&target)?;
    }
    Ok(())
}
