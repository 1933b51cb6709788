//! Blobs by digest. One appears in its place only when all of it is there and is what its digest says.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Hashing};
use crate::error::{ImageError, Result, io_error};
use crate::store::files::{FileLock, Paths};

#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    paths: Paths,
}

impl Blobs {
    pub(crate) fn new(paths: Paths) -> Self {
        Blobs { paths }
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.paths.blob(digest)
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// A small blob: a manifest, a configuration.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.path(digest);
        fs::read(&path).map_err(io_error("reading", &path))
    }

    pub(crate) fn open(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(io_error("opening", &path))
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has(&digest) {
            let path = self.path(&digest);
            let beside = self.paths.fresh_tmp("blob");
            fs::write(&beside, bytes).map_err(io_error("writing", &beside))?;
            fs::rename(&beside, &path).map_err(io_error("renaming", &beside))?;
        }
        Ok(digest)
    }

    /// Takes over a finished file.
    pub(crate) fn adopt(&self, file: &Path, digest: &Digest) -> Result<()> {
        fs::rename(file, self.path(digest)).map_err(io_error("renaming", file))
    }

    pub(crate) fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("removing", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Waits for the right to fetch a blob; none when meanwhile someone else has. Blocks.
    pub(crate) fn ingest(&self, digest: &Digest) -> Result<Option<Ingest>> {
        loop {
            if self.has(digest) {
                return Ok(None);
            }
            let path = self.paths.ingest(digest);
            let lock = FileLock::exclusive(&path)?;
            // Whoever held it may have finished and renamed it: then the lock is on the blob itself, or on nothing that has a name.
            let same = |held: &fs::Metadata, named: &fs::Metadata| {
                use std::os::unix::fs::MetadataExt;
                held.ino() == named.ino() && held.dev() == named.dev()
            };
            let held = lock.file().metadata().map_err(io_error("reading", &path))?;
            if fs::metadata(&path).is_ok_and(|named| same(&held, &named)) {
                return Ingest::resume(path, lock, digest.clone(), self.path(digest)).map(Some);
            }
        }
    }
}

/// A blob on its way in. What has come stays when the way is broken off, and the next try goes on from there.
#[derive(Debug)]
pub(crate) struct Ingest {
    path: PathBuf,
    lock: FileLock,
    digest: Digest,
    place: PathBuf,
    hash: Hashing<io::Sink>,
    size: u64,
}

impl std::fmt::Debug for Hashing<io::Sink> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hashing")
    }
}

impl Ingest {
    fn resume(path: PathBuf, lock: FileLock, digest: Digest, place: PathBuf) -> Result<Self> {
        let mut ingest = Ingest { path, lock, digest, place, hash: Hashing::new(io::sink()), size: 0 };
        let mut file = ingest.lock.file();
        ingest.size = file.rewind().and_then(|()| io::copy(&mut file, &mut ingest.hash)).map_err(io_error("reading", &ingest.path))?;
        Ok(ingest)
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut file = self.lock.file();
        file.write_all(bytes).and_then(|()| self.hash.write_all(bytes)).map_err(io_error("writing", &self.path))?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Nobody needs the blob any more.
    pub(crate) fn abandon(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(io_error("removing", &self.path))
    }

    pub(crate) fn restart(&mut self) -> Result<()> {
        let mut file = self.lock.file();
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(io_error("truncating", &self.path))?;
        (self.hash, self.size) = (Hashing::new(io::sink()), 0);
        Ok(())
    }

    /// Puts the blob in its place if it is the right one; else forgets it.
    pub(crate) fn finish(mut self) -> Result<()> {
        let hash = std::mem::replace(&mut self.hash, Hashing::new(io::sink()));
        let (found, size) = hash.finish();
        if found != self.digest {
            self.restart()?;
            let text = format!("failed commit on {}: unexpected digest: {found} after {size} bytes", self.digest);
            return Err(ImageError::Corrupt(text));
        }
        fs::rename(&self.path, &self.place).map_err(io_error("renaming", &self.path))
    }
}

/// Copies a stream into a file of its own; for archives, whose blobs may be named only later.
pub(crate) fn spool(source: &mut impl Read, path: &Path) -> Result<(Digest, u64)> {
    let file = File::create(path).map_err(io_error("creating", path))?;
    let mut out = Hashing::new(file);
    io::copy(source, &mut out).map_err(io_error("writing", path))?;
    Ok(out.finish())
}
