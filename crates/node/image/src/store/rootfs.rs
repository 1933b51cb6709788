//! A container's root file system: the image's layers below, a writable one above.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{ImageError, Result, io_error};
use crate::spec::to_json;
use crate::store::ImageStore;
use crate::store::files::{FileLock, discard};

/// What to give overlayfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The uppermost first, as overlayfs wants them.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// An empty folder to mount it on, if no better place is known.
    pub merged: PathBuf,
}

impl Rootfs {
    /// mount(2)'s data. `volatile` spares the unmount its sync of everything the container wrote, which nobody reads after a power cut;
    /// `index=off` lets layers be shared among mounts without a claim on them.
    pub fn mount_options(&self) -> String {
        let lower: Vec<_> = self.lower.iter().map(|path| escape(path)).collect();
        let (upper, work) = (escape(&self.upper), escape(&self.work));
        format!("index=off,volatile,lowerdir={},upperdir={upper},workdir={work}", lower.join(":"))
    }

    /// For a volume that only shows the image (KEP-4639): no writable layer. overlayfs wants two layers then, so an empty one goes on top.
    pub fn read_only_mount_options(&self) -> String {
        let lower: Vec<_> = std::iter::once(&self.upper).chain(&self.lower).map(|path| escape(path)).collect();
        format!("lowerdir={}", lower.join(":"))
    }
}

/// overlayfs takes a backslash before what it would read otherwise.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// Who uses which layers: garbage collection reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsRecord {
    pub image: Digest,
    /// Chain ids, the lowest first.
    pub layers: Vec<Digest>,
    /// Who made it, so that nodes that share the store can tell theirs.
    #[serde(default)]
    pub owner: String,
}

impl ImageStore {
    fn rootfs_folder(&self, container: &str) -> Result<PathBuf> {
        let safe = !container.is_empty() && container.len() <= 128 && !container.starts_with('.');
        if !safe || !container.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
            return Err(ImageError::InvalidReference(format!("{container:?} is no container id")));
        }
        Ok(self.paths.containers().join(container))
    }

    fn stack(&self, folder: &Path, record: &RootfsRecord) -> Rootfs {
        let lower = record.layers.iter().rev().map(|layer| self.layers.path(layer)).collect();
        Rootfs { lower, upper: folder.join("upper"), work: folder.join("work"), merged: folder.join("merged") }
    }

    /// A fresh root file system for a container of the image `image` (an id or any name). Blocks for a moment.
    pub fn prepare_rootfs(&self, container: &str, image: &str, owner: &str) -> Result<Rootfs> {
        let folder = self.rootfs_folder(container)?;
        let _use = FileLock::shared(&self.paths.lock("collect"))?;
        let image = self.find(image)?.ok_or_else(|| ImageError::NotFound(format!("image {image}: not found")))?;
        let layers: Vec<_> = image.layers.iter().map(|layer| layer.chain_id.clone()).collect();
        if let Some(missing) = layers.iter().find(|layer| self.layers.get(layer).is_none()) {
            return Err(ImageError::Corrupt(format!(
                "layer {missing} of image {} is missing; remove the image and pull it again",
                image.id
            )));
        }
        let record = RootfsRecord { image: image.id.clone(), layers, owner: owner.to_owned() };
        let rootfs = self.stack(&folder, &record);
        for folder in [&folder, &rootfs.upper, &rootfs.work, &rootfs.merged] {
            fs::create_dir(folder).map_err(io_error("creating", folder))?;
        }
        self.inherit_root(&rootfs)?;
        // The record is last but for the mount: a folder without one is what a crash left.
        // No sync: after a power cut no container is left to need it.
        let (path, beside) = (folder.join("rootfs.json"), folder.join("rootfs.tmp"));
        fs::write(&beside, to_json(&record)).map_err(io_error("writing", &beside))?;
        fs::rename(&beside, &path).map_err(io_error("renaming", &beside))?;
        Ok(rootfs)
    }

    /// The merged root has the upper folder's owner and permissions; they must be the image's.
    fn inherit_root(&self, rootfs: &Rootfs) -> Result<()> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
        let permissions = match rootfs.lower.first() {
            Some(top) => {
                let found = fs::metadata(top).map_err(io_error("reading", top))?;
                chown(&rootfs.upper, Some(found.uid()), Some(found.gid())).map_err(io_error("changing", &rootfs.upper))?;
                found.permissions()
            }
            None => fs::Permissions::from_mode(0o755),
        };
        fs::set_permissions(&rootfs.upper, permissions).map_err(io_error("changing", &rootfs.upper))
    }

    /// The root file system that was prepared for a container.
    pub fn rootfs(&self, container: &str) -> Result<Option<Rootfs>> {
        let folder = self.rootfs_folder(container)?;
        Ok(read_record(&folder).map(|record| self.stack(&folder, &record)))
    }

    /// Removes a container's root file system, which must not be mounted any more. Nothing there is fine.
    pub fn remove_rootfs(&self, container: &str) -> Result<()> {
        let folder = self.rootfs_folder(container)?;
        discard(&self.paths, &folder)
    }

    /// All prepared root file systems by container; a node removes those of its own that it does not know.
    pub fn list_rootfs(&self) -> Result<Vec<(String, RootfsRecord)>> {
        let containers = self.paths.containers();
        let mut found = Vec::new();
        for entry in fs::read_dir(&containers).map_err(io_error("reading", &containers))? {
            let entry = entry.map_err(io_error("reading", &containers))?;
            if let (Some(record), Ok(name)) = (read_record(&entry.path()), entry.file_name().into_string()) {
                found.push((name, record));
            }
        }
        Ok(found)
    }

    /// Bytes and inodes that the container has written. Walks its files; blocks.
    pub fn rootfs_usage(&self, container: &str) -> Result<(u64, u64)> {
        Ok(disk_usage(&self.rootfs_folder(container)?.join("upper")))
    }
}

fn read_record(folder: &Path) -> Option<RootfsRecord> {
    serde_json::from_slice(&fs::read(folder.join("rootfs.json")).ok()?).ok()
}

/// What vanishes while it is counted does not count.
fn disk_usage(folder: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let (mut bytes, mut inodes) = (0, 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        inodes += 1;
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            bytes += found.blocks() * 512;
            if found.is_dir() {
                folders.push(entry.path());
            } else {
                inodes += 1;
            }
        }
    }
    (bytes, inodes)
}
