//! What if the power goes? Images count as soon as they are unpacked, before the disk has them: writing everything out takes longer than
//! the pull of a small image, and a pod is waiting. Instead a marker says since when there may be something unwritten, and in which boot.
//! It is durable before anything else is written and goes when a sync in the background is done. A store that finds the marker of
//! another boot drops what is younger than it: those images are pulled again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::error::{Result, io_error};
use crate::spec::to_json;
use crate::store::db::Database;
use crate::store::files::{FileLock, Paths, discard};
use crate::store::layers::Layers;
use crate::store::read_folder;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    boot: String,
    /// Seconds since the epoch, by the file system's clock.
    since: i64,
    /// Raised by everyone who begins to write, so that a sync knows whether it covers all.
    generation: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Settling {
    paths: Paths,
    boot: String,
}

impl Settling {
    pub(crate) fn new(paths: Paths) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Settling { paths, boot: boot.trim().to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.paths.root().join("unsettled.json")
    }

    fn lock(&self) -> Result<FileLock> {
        FileLock::exclusive(&self.paths.lock("settle"))
    }

    fn read(&self) -> Option<Marker> {
        serde_json::from_slice(&fs::read(self.path()).ok()?).ok()
    }

    /// Before anything is written. Blocks for one small sync if nobody else is writing.
    pub(crate) fn begin(&self) -> Result<()> {
        let _lock = self.lock()?;
        let path = self.path();
        match self.read() {
            Some(marker) => {
                // Only running processes read the generation, so it need not be durable.
                let marker = Marker { generation: marker.generation + 1, ..marker };
                let beside = self.paths.fresh_tmp("marker");
                fs::write(&beside, to_json(&marker)).map_err(io_error("writing", &beside))?;
                fs::rename(&beside, &path).map_err(io_error("renaming", &beside))
            }
            None => {
                let now = self.paths.fresh_tmp("now");
                fs::write(&now, b"").map_err(io_error("writing", &now))?;
                let since = fs::metadata(&now).map_err(io_error("reading", &now))?.mtime();
                fs::remove_file(&now).map_err(io_error("removing", &now))?;
                let marker = Marker { boot: self.boot.clone(), since, generation: 1 };
                tiphys_base::files::write_atomic(&path, &to_json(&marker), 0o600).map_err(io_error("writing", &path))
            }
        }
    }

    /// Writes everything out and takes the marker away, unless someone has begun to write meanwhile. Blocks.
    pub(crate) fn settle(&self) -> Result<()> {
        let Some(before) = self.read() else { return Ok(()) };
        let root = self.paths.root();
        let folder = tiphys_sys::fs::open_directory(root).map_err(io_error("opening", root))?;
        rustix::fs::syncfs(folder).map_err(|error| io_error("syncing", root)(error.into()))?;
        let _lock = self.lock()?;
        if self.read().as_ref() == Some(&before) {
            let path = self.path();
            fs::remove_file(&path).map_err(io_error("removing", &path))?;
        }
        Ok(())
    }

    /// As [`settle`](Self::settle), in the background where there is a runtime.
    pub(crate) fn settle_soon(&self) {
        let settling = self.clone();
        let settle = move || {
            if let Err(error) = settling.settle() {
                tracing::warn!(%error, "images could not be written out; a power cut now would cost them");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(settle)),
            Err(_) => settle(),
        }
    }

    /// After a power cut: forgets what may be incomplete. The caller is alone with the store.
    pub(crate) fn recover(&self, layers: &Layers, database: &Database) -> Result<()> {
        let Some(marker) = self.read().filter(|marker| marker.boot != self.boot) else { return Ok(()) };
        tracing::warn!("the machine stopped while images were being written; those are forgotten");
        let doubtful = |path: &Path| fs::metadata(path).is_ok_and(|found| found.mtime() >= marker.since);
        for folder in [self.paths.blobs(), self.paths.ingests()] {
            for path in read_folder(&folder)?.into_iter().filter(|path| doubtful(path)) {
                fs::remove_file(&path).map_err(io_error("removing", &path))?;
            }
        }
        for path in read_folder(&self.paths.layers())? {
            let info = path.extension().is_some_and(|extension| extension == "json");
            if info && doubtful(&path) {
                fs::remove_file(&path).map_err(io_error("removing", &path))?;
                discard(&self.paths, &path.with_extension(""))?;
            }
        }
        database.update(|images| images.retain(|image| image.layers.iter().all(|layer| layers.get(&layer.chain_id).is_some())))?;
        let path = self.path();
        fs::remove_file(&path).map_err(io_error("removing", &path))
    }
}

/// Held while something is added: others may add too, nobody may collect. Once something has been written, all is written out in the
/// background afterwards.
pub(crate) struct Adding {
    _use: FileLock,
    settling: Arc<Settling>,
    writing: OnceLock<()>,
}

impl Adding {
    /// Blocks.
    pub(crate) fn begin(paths: &Paths, settling: &Arc<Settling>) -> Result<Self> {
        let lock = FileLock::shared(&paths.lock("collect"))?;
        Ok(Adding { _use: lock, settling: settling.clone(), writing: OnceLock::new() })
    }

    /// To be called before the first write. Blocks for a moment.
    pub(crate) fn write(&self) -> Result<()> {
        if self.writing.set(()).is_ok() { self.settling.begin() } else { Ok(()) }
    }
}

impl Drop for Adding {
    fn drop(&mut self) {
        if self.writing.get().is_some() {
            self.settling.settle_soon();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::builtin::Builtin;
    use crate::store::{ImageStore, Options};
    use std::fs;

    fn layer_count(store: &ImageStore) -> usize {
        fs::read_dir(store.root().join("layers")).expect("a folder").count()
    }

    /// An image of another boot that was never written out is dropped; one that was stays.
    #[test]
    fn a_power_cut_costs_only_what_was_unwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || ImageStore::open(Options::new(dir.path())).expect("opens");
        let store = open();
        let program = std::env::current_exe().expect("this program");
        let image = |name: &str, place: &str| Builtin {
            name: name.into(),
            program: program.clone(),
            place: place.into(),
            libraries: Vec::new(),
            labels: Default::default(),
        };
        let marker = dir.path().join("unsettled.json");
        store.register_builtin(&image("old", "/old")).expect("registered");
        assert!(!marker.exists(), "settled at once where there is no runtime");
        for layer in fs::read_dir(dir.path().join("layers")).expect("a folder") {
            let long_ago = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
            let path = layer.expect("an entry").path();
            fs::File::open(&path).and_then(|file| file.set_times(long_ago)).expect("set");
        }
        for blob in fs::read_dir(dir.path().join("blobs/sha256")).expect("a folder") {
            let long_ago = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
            fs::File::open(blob.expect("an entry").path()).and_then(|file| file.set_times(long_ago)).expect("set");
        }
        store.settling.begin().expect("marked");
        store.register_builtin(&image("young", "/young")).expect("registered");
        assert_eq!(layer_count(&store), 4);
        store.settling.begin().expect("marked");
        let text = fs::read_to_string(&marker).expect("the marker");
        drop(store);
        assert_eq!(open().list().expect("readable").len(), 2, "the same boot: nothing is lost");
        fs::write(&marker, text.replace("boot\":\"", "boot\":\"another-")).expect("written");
        let store = open();
        assert!(store.find("old").expect("readable").is_some() && store.find("young").expect("readable").is_none());
        assert_eq!((layer_count(&store), marker.exists()), (2, false));
    }
}
