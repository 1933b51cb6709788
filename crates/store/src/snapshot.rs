//! The compacted state in one file, so that opening need not read the whole past and old log segments can go.
//!
//! `snapshot-<revision>.snap` is a run of frames: the revision and the leases, then all pairs in order, then their number. It appears whole
//! or not at all: written under another name, synced, renamed, the folder synced.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::engine::Shared;
use crate::frame::{self, Entries, Entry, FrameBuilder};
use crate::index::{Scan, Scanned, Version};
use crate::types::{KeyRange, KeyValue, LeaseId, Revision, StoreError};
use crate::wal::{io_error, sync_dir};

const FRAME_BYTES: usize = 256 << 10;
/// Keys that are visited under one lock.
const CHUNK: usize = 512;

pub(crate) struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) leases: HashMap<LeaseId, i64>,
    pub(crate) pairs: Vec<(Bytes, Version)>,
    pub(crate) size: u64,
}

fn path_of(dir: &Path, revision: Revision) -> PathBuf {
    dir.join(format!("snapshot-{revision:020}.snap"))
}

/// All snapshots, oldest first. Unfinished ones are cleared away.
fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("reading", dir))? {
        let path = entry.map_err(io_error("reading", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("snapshot-") && name.ends_with(".snap") {
            paths.push(path);
        } else if name.starts_with("snapshot-") && name.ends_with(".tmp") {
            fs::remove_file(&path).map_err(io_error("removing", &path))?;
        }
    }
    paths.sort();
    Ok(paths)
}

/// The newest snapshot in `dir`; older ones are removed.
pub(crate) fn load(dir: &Path) -> Result<Option<Snapshot>, StoreError> {
    let mut paths = list(dir)?;
    let Some(newest) = paths.pop() else { return Ok(None) };
    let snapshot = read(&newest)?;
    for path in paths {
        fs::remove_file(&path).map_err(io_error("removing", &path))?;
    }
    Ok(Some(snapshot))
}

fn read(path: &Path) -> Result<Snapshot, StoreError> {
    let file = File::open(path).map_err(io_error("opening", path))?;
    let size = file.metadata().map_err(io_error("reading", path))?.len();
    let mut source = BufReader::with_capacity(FRAME_BYTES, file);
    let mut snapshot = Snapshot { revision: 0, leases: HashMap::new(), pairs: Vec::new(), size };
    let mut buffer = Vec::new();
    let mut at = 0;
    for sequence in 1.. {
        let corrupt = |what: &str| StoreError::Corrupt(format!("{}: {what} at offset {at}", path.display()));
        read_frame(&mut source, &mut buffer, size - at).map_err(io_error("reading", path))?;
        let frame = frame::parse(&buffer).filter(|frame| frame.sequence == sequence).ok_or_else(|| corrupt("damaged frame"))?;
        if snapshot.take(frame.payload).map_err(|why| corrupt(&why))? {
            break;
        }
        at += frame.size() as u64;
    }
    Ok(snapshot)
}

/// Reads one frame, or as much of it as there is.
fn read_frame(source: &mut impl Read, buffer: &mut Vec<u8>, rest: u64) -> io::Result<()> {
    buffer.clear();
    source.by_ref().take(frame::HEADER as u64).read_to_end(buffer)?;
    let length = frame::payload_length(buffer).min(rest);
    source.by_ref().take(length).read_to_end(buffer)?;
    Ok(())
}

impl Snapshot {
    /// Takes a frame; true when it was the last one.
    fn take(&mut self, payload: &[u8]) -> Result<bool, String> {
        for entry in Entries(payload) {
            match entry.map_err(|()| "an entry that makes no sense")? {
                Entry::Revision(revision) => self.revision = revision,
                Entry::Grant { id, ttl } => {
                    self.leases.insert(id, ttl);
                }
                Entry::Pair { key, value, create_revision, mod_revision, version, lease } => {
                    let value = Bytes::copy_from_slice(value);
                    let version = Version { value, create_revision, mod_revision, version, lease };
                    self.pairs.push((Bytes::copy_from_slice(key), version));
                }
                Entry::End { pairs } if pairs == self.pairs.len() as u64 => return Ok(true),
                Entry::End { pairs } => return Err(format!("{} pairs where {pairs} were written,", self.pairs.len())),
                other => return Err(format!("an entry that does not belong here ({other:?})")),
            }
        }
        Ok(false)
    }
}

struct SnapshotWriter {
    file: File,
    frame: FrameBuilder,
    sequence: u64,
    size: u64,
}

impl SnapshotWriter {
    fn flush(&mut self) -> io::Result<()> {
        self.sequence += 1;
        let bytes = self.frame.seal(self.sequence);
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        self.frame.clear();
        Ok(())
    }

    fn pair(&mut self, pair: &KeyValue) -> io::Result<()> {
        let KeyValue { ref key, ref value, create_revision, mod_revision, version, lease } = *pair;
        self.frame.add(&Entry::Pair { key, value, create_revision, mod_revision, version, lease });
        if self.frame.len() >= FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    fn content(&mut self, shared: &Shared, revision: Revision) -> io::Result<()> {
        self.frame.add(&Entry::Revision(revision));
        for (id, ttl) in shared.leases.granted() {
            self.frame.add(&Entry::Grant { id, ttl });
        }
        let everything = KeyRange::prefix("");
        let scan = Scan { revision, limit: usize::MAX, keys_only: false, budget: CHUNK };
        let mut after: Option<Bytes> = None;
        let mut pairs = 0;
        loop {
            let mut found = Scanned::default();
            after = shared.index.read().scan(&everything, after.as_deref(), scan, &mut found);
            pairs += found.count;
            found.kvs.iter().try_for_each(|pair| self.pair(pair))?;
            if after.is_none() {
                break;
            }
        }
        self.frame.add(&Entry::End { pairs });
        self.flush()?;
        self.file.sync_all()
    }
}

/// Writes the state at `revision`, which must not be compacted away meanwhile; answers with the file's size.
pub(crate) fn write(dir: &Path, shared: &Shared, revision: Revision) -> Result<u64, StoreError> {
    let path = path_of(dir, revision);
    let unfinished = path.with_extension("tmp");
    let file = File::create(&unfinished).map_err(io_error("creating", &unfinished))?;
    let mut writer = SnapshotWriter { file, frame: FrameBuilder::new(), sequence: 0, size: 0 };
    if let Err(error) = writer.content(shared, revision) {
        // The space is needed more than ever; a leftover would be cleared at the next start anyway.
        let _ = fs::remove_file(&unfinished);
        return Err(io_error("writing", &unfinished)(error));
    }
    fs::rename(&unfinished, &path).map_err(io_error("renaming", &unfinished))?;
    sync_dir(dir)?;
    for older in list(dir)?.into_iter().filter(|other| *other < path) {
        fs::remove_file(&older).map_err(io_error("removing", &older))?;
    }
    Ok(writer.size)
}
