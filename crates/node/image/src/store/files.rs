//! Where things are in the store's folder, and the locks that several processes share.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::Digest;
use crate::error::{ImageError, Result, io_error};

#[derive(Debug, Clone)]
pub(crate) struct Paths {
    root: PathBuf,
}

impl Paths {
    pub(crate) fn create(root: &Path) -> Result<Self> {
        let paths = Paths { root: root.to_owned() };
        for folder in ["blobs/sha256", "ingest", "layers", "containers", "locks", "tmp"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(io_error("creating", &folder))?;
        }
        Ok(paths)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("images.json")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn ingests(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn ingest(&self, digest: &Digest) -> PathBuf {
        self.ingests().join(digest.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A name nobody else uses, in this process or another, for what is being made or thrown away.
    pub(crate) fn fresh_tmp(&self, what: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.tmp().join(format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn lock(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }
}

/// A lock between processes and between tasks; the kernel lets go of it when its holder dies.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
}

fn lock_file(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(io_error("opening", path))
}

impl FileLock {
    /// Waits; not for async code.
    pub(crate) fn exclusive(path: &Path) -> Result<Self> {
        let file = lock_file(path)?;
        file.lock().map_err(io_error("locking", path))?;
        Ok(FileLock { file })
    }

    pub(crate) fn shared(path: &Path) -> Result<Self> {
        let file = lock_file(path)?;
        file.lock_shared().map_err(io_error("locking", path))?;
        Ok(FileLock { file })
    }

    /// None when someone else holds it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        let file = lock_file(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(FileLock { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(io_error("locking", path)(error)),
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Removes a folder so that it is gone for everyone at once: renamed first, then emptied.
pub(crate) fn discard(paths: &Paths, path: &Path) -> Result<()> {
    let trash = paths.fresh_tmp("trash");
    match fs::rename(path, &trash) {
        Ok(()) => match fs::remove_dir_all(&trash) {
            // Garbage collection may have been faster.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("removing", &trash)(error)),
            _ => Ok(()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("renaming", path)(error)),
    }
}

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ImageError::Io(format!("the work was broken off: {error}"))))
}
