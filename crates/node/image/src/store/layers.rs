//! Unpacked layers, each a folder named after its chain id, ready to be stacked by overlayfs.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{ImageError, Result, io_error};
use crate::spec::to_json;
use crate::store::files::{FileLock, Paths, discard};
use crate::unpack::{Unpacked, unpack};

/// What is known of a layer that is here. The file with it appears last: without it there is no layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerInfo {
    pub(crate) chain_id: Digest,
    pub(crate) diff_id: Digest,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

#[derive(Debug)]
pub(crate) struct Layers {
    paths: Paths,
    /// Infos never change, so they are read once.
    known: Mutex<HashMap<Digest, LayerInfo>>,
}

/// Short, for overlayfs takes all lower folders in one page of text.
fn short(chain_id: &Digest) -> &str {
    &chain_id.hex()[..16]
}

impl Layers {
    pub(crate) fn new(paths: Paths) -> Self {
        Layers { paths, known: Mutex::default() }
    }

    pub(crate) fn path(&self, chain_id: &Digest) -> PathBuf {
        self.paths.layers().join(short(chain_id))
    }

    fn info_path(&self, chain_id: &Digest) -> PathBuf {
        self.paths.layers().join(format!("{}.json", short(chain_id)))
    }

    pub(crate) fn get(&self, chain_id: &Digest) -> Option<LayerInfo> {
        let path = self.info_path(chain_id);
        let mut known = self.known.lock();
        if !path.exists() {
            known.remove(chain_id);
            return None;
        }
        if let Some(info) = known.get(chain_id) {
            return Some(info.clone());
        }
        let info: LayerInfo = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        if info.chain_id != *chain_id {
            return None;
        }
        known.insert(chain_id.clone(), info.clone());
        Some(info)
    }

    /// Puts a layer on disk unless it is there. Blocks; others who want the same layer wait.
    pub(crate) fn add(&self, layer: impl Read + 'static, diff_id: &Digest, parents: &[Digest]) -> Result<LayerInfo> {
        let lowers: Vec<PathBuf> = parents.iter().rev().map(|parent| self.path(parent)).collect();
        self.make(diff_id, parents.last(), |target| {
            let unpacked = unpack(layer, target, &lowers)?;
            if unpacked.diff_id != *diff_id {
                return Err(ImageError::Corrupt(format!("wrong diff id calculated on extraction: {}, not {diff_id}", unpacked.diff_id)));
            }
            Ok(unpacked)
        })
    }

    /// Makes a layer by `fill`, which gets an empty folder, unless it is there.
    pub(crate) fn make(
        &self,
        diff_id: &Digest,
        parent: Option<&Digest>,
        fill: impl FnOnce(&Path) -> Result<Unpacked>,
    ) -> Result<LayerInfo> {
        let chain_id = Digest::chain(parent, diff_id);
        let _lock = FileLock::exclusive(&self.paths.lock(&format!("layer-{}", short(&chain_id))))?;
        if let Some(info) = self.get(&chain_id) {
            return Ok(info);
        }
        let target = self.paths.fresh_tmp("layer");
        fs::create_dir(&target).map_err(io_error("creating", &target))?;
        let filled = fill(&target).and_then(|unpacked| self.commit(&target, chain_id, unpacked));
        if filled.is_err() {
            // What is left over goes with the next garbage collection at the latest.
            let _ = fs::remove_dir_all(&target);
        }
        filled
    }

    fn commit(&self, target: &Path, chain_id: Digest, unpacked: Unpacked) -> Result<LayerInfo> {
        let place = self.path(&chain_id);
        // A folder without an info is what a crash left.
        discard(&self.paths, &place)?;
        fs::rename(target, &place).map_err(io_error("renaming", target))?;
        let info = LayerInfo { chain_id, diff_id: unpacked.diff_id, bytes: unpacked.bytes, inodes: unpacked.inodes };
        let (path, beside) = (self.info_path(&info.chain_id), self.paths.fresh_tmp("info"));
        fs::write(&beside, to_json(&info)).map_err(io_error("writing", &beside))?;
        fs::rename(&beside, &path).map_err(io_error("renaming", &beside))?;
        Ok(info)
    }

    /// Bytes and inodes of all layers.
    pub(crate) fn usage(&self) -> Result<(u64, u64)> {
        let infos = self.all()?;
        Ok(infos.iter().fold((0, 0), |(bytes, inodes), info| (bytes + info.bytes, inodes + info.inodes)))
    }

    pub(crate) fn all(&self) -> Result<Vec<LayerInfo>> {
        let folder = self.paths.layers();
        let mut infos = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io_error("reading", &folder))? {
            let path = entry.map_err(io_error("reading", &folder))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                infos.extend(fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<LayerInfo>(&bytes).ok()));
            }
        }
        Ok(infos)
    }

    /// Only under the store's exclusive lock. The info goes first: what has none is no layer.
    pub(crate) fn remove(&self, chain_id: &Digest) -> Result<()> {
        let info = self.info_path(chain_id);
        fs::remove_file(&info).map_err(io_error("removing", &info))?;
        self.known.lock().remove(chain_id);
        discard(&self.paths, &self.path(chain_id))
    }
}
