//! Who uses which layers: a container claims those of its image, so that they stay when the image goes.
//!
//! A claim is one small file. Mounting, and the container's own writable files, are the runtime's matter.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{ImageError, Result, io_error};
use crate::spec::to_json;
use crate::store::ImageStore;
use crate::store::db::Image;
use crate::store::files::{FileLock, discard};

/// What a container got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub image: Arc<Image>,
    /// Unpacked layers, the uppermost first, as overlayfs wants them.
    pub layers: Vec<PathBuf>,
}

/// What garbage collection reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub image: Digest,
    /// Chain ids, the lowest first.
    pub layers: Vec<Digest>,
    /// Who made it, so that nodes that share the store can tell theirs.
    #[serde(default)]
    pub owner: String,
}

impl ImageStore {
    fn claim_file(&self, container: &str) -> Result<PathBuf> {
        let safe = !container.is_empty() && container.len() <= 128 && !container.starts_with('.');
        if !safe || !container.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
            return Err(ImageError::InvalidReference(format!("{container:?} is no container id")));
        }
        Ok(self.paths.containers().join(container))
    }

    /// The layers of the image `image` (an id or any name), kept until the container lets go. A second claim replaces the first.
    /// Blocks for a moment.
    pub fn claim(&self, container: &str, image: &str, owner: &str) -> Result<Claimed> {
        let file = self.claim_file(container)?;
        let _use = FileLock::shared(&self.paths.lock("collect"))?;
        let image = self.find(image)?.ok_or_else(|| ImageError::NotFound(format!("image {image:?}: not found")))?;
        let layers: Vec<_> = image.layers.iter().map(|layer| layer.chain_id.clone()).collect();
        if let Some(missing) = layers.iter().find(|layer| self.layers.get(layer).is_none()) {
            return Err(ImageError::Corrupt(format!(
                "layer {missing} of image {} is missing; remove the image and pull it again",
                image.id
            )));
        }
        let paths = layers.iter().rev().map(|layer| self.layers.path(layer)).collect();
        let claim = Claim { image: image.id.clone(), layers, owner: owner.to_owned() };
        // Not synced: after a power cut no container is left to need it. Torn by a kill it is none, and whoever asked is gone too.
        fs::write(&file, to_json(&claim)).map_err(io_error("writing", &file))?;
        Ok(Claimed { image, layers: paths })
    }

    /// Lets go. Nothing there is fine.
    pub fn release(&self, container: &str) -> Result<()> {
        let file = self.claim_file(container)?;
        match fs::remove_file(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            // Older stores kept a folder for each container.
            Err(_) if file.is_dir() => discard(&self.paths, &file),
            other => other.map_err(io_error("removing", &file)),
        }
    }

    /// All claims by container; a node lets go of those of its own that it does not know.
    pub fn claims(&self) -> Result<Vec<(String, Claim)>> {
        let containers = self.paths.containers();
        let mut found = Vec::new();
        for entry in fs::read_dir(&containers).map_err(io_error("reading", &containers))? {
            let entry = entry.map_err(io_error("reading", &containers))?;
            if let (Some(claim), Ok(name)) = (read_claim(&entry.path()), entry.file_name().into_string()) {
                found.push((name, claim));
            }
        }
        Ok(found)
    }
}

/// None: not there, or torn.
pub(super) fn read_claim(path: &Path) -> Option<Claim> {
    let file = if path.is_dir() { path.join("rootfs.json") } else { path.to_owned() };
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}
