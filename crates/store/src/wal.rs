//! The log on disk: segments of frames, appended to and synced by the writer alone.
//!
//! A segment is `wal-<number of its first frame>.log`: a header with that number and the revision before it, then frames numbered without
//! a gap across segments. The header is synced before anything follows, and a segment is begun only when the one before is safe.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::frame::{self, FrameBuilder};
use crate::types::{Revision, StoreError};

const MAGIC: [u8; 8] = *b"TphsWAL1";
const HEADER: usize = 28;

/// What the log needs of a file; tests put one that fails in its place.
pub(crate) trait LogFile: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

pub(crate) type Wrap = fn(File) -> Box<dyn LogFile>;

pub(crate) fn io_error(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let context = format!("{doing} {}", path.display());
    move |source| StoreError::Io { context: format!("{context}: {source}"), source }
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("syncing", dir))
}

/// A segment that is no longer written to.
#[derive(Debug, Clone)]
struct Closed {
    path: PathBuf,
    /// No revision in it is later than this one.
    last_revision: Revision,
    size: u64,
}

/// The segments that are done; the writer adds, maintenance takes away.
#[derive(Debug, Default)]
pub(crate) struct ClosedSegments {
    segments: Mutex<Vec<Closed>>,
    /// Bytes in all segments, the active one included.
    bytes: AtomicU64,
}

impl ClosedSegments {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that a snapshot at `revision` would make superfluous.
    pub(crate) fn obsolete_bytes(&self, revision: Revision) -> u64 {
        self.segments.lock().iter().take_while(|segment| segment.last_revision <= revision).map(|segment| segment.size).sum()
    }

    /// Removes the segments that a snapshot at `revision` has made superfluous, oldest first so that no gap can arise.
    pub(crate) fn remove_obsolete(&self, revision: Revision) -> Result<(), StoreError> {
        let mut segments = self.segments.lock();
        while let Some(segment) = segments.first().filter(|segment| segment.last_revision <= revision) {
            fs::remove_file(&segment.path).map_err(io_error("removing", &segment.path))?;
            self.bytes.fetch_sub(segment.size, Ordering::Relaxed);
            segments.remove(0);
        }
        Ok(())
    }
}

pub(crate) struct Wal {
    dir: PathBuf,
    path: PathBuf,
    file: Box<dyn LogFile>,
    wrap: Wrap,
    size: u64,
    segment_bytes: u64,
    next_sequence: u64,
    closed: Arc<ClosedSegments>,
}

fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("wal-{sequence:016x}.log"))
}

fn header(sequence: u64, revision: Revision) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..24].copy_from_slice(&revision.to_le_bytes());
    let sum = crc32fast::hash(&header[..24]);
    header[24..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The number of the first frame and the revision before it.
fn parse_header(bytes: &[u8]) -> Option<(u64, Revision)> {
    let sequence = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    let revision = i64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?);
    (bytes.get(..HEADER)? == header(sequence, revision)).then_some((sequence, revision))
}

/// What a frame's payload is given to when the log is read.
pub(crate) trait Replay {
    /// The revision reached so far.
    fn revision(&self) -> Revision;
    fn frame(&mut self, payload: &[u8]) -> Result<(), String>;
}

struct Segments {
    next_sequence: Option<u64>,
    closed: Vec<Closed>,
}

/// The segment files in order.
fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("reading", dir))? {
        let path = entry.map_err(io_error("reading", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("wal-") && name.ends_with(".log") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

impl Segments {
    /// Reads one segment. In the last one a broken end is cut off; answers with the size that counts, none if the segment was never begun.
    fn read(&mut self, path: &Path, last: bool, replay: &mut dyn Replay) -> Result<Option<u64>, StoreError> {
        let bytes = fs::read(path).map_err(io_error("reading", path))?;
        let corrupt = |at: usize, what: &str| StoreError::Corrupt(format!("{}: {what} at offset {at}", path.display()));
        let Some((sequence, revision)) = parse_header(&bytes) else {
            if last && !frame::any_later(&bytes, 0) {
                return Ok(None);
            }
            return Err(corrupt(0, "damaged segment header"));
        };
        if self.next_sequence.is_some_and(|expected| expected != sequence) {
            let expected = self.next_sequence.unwrap_or_default();
            return Err(corrupt(0, &format!("segment begins with frame {sequence}, but {expected} is next: a segment is missing")));
        }
        if revision > replay.revision() {
            return Err(corrupt(
                0,
                &format!("segment follows revision {revision}, but only {} is known: the log's beginning is missing", replay.revision()),
            ));
        }
        let mut sequence = sequence;
        let mut at = HEADER;
        while at < bytes.len() {
            let Some(frame) = frame::parse(&bytes[at..]).filter(|frame| frame.sequence == sequence) else {
                if last && !frame::any_later(&bytes[at..], sequence + 1) {
                    break;
                }
                return Err(corrupt(at, "damaged frame"));
            };
            replay.frame(frame.payload).map_err(|why| corrupt(at, &why))?;
            at += frame.size();
            sequence += 1;
        }
        self.next_sequence = Some(sequence);
        Ok(Some(at as u64))
    }
}

fn truncate(path: &Path, size: u64) -> Result<File, StoreError> {
    let file = OpenOptions::new().append(true).open(path).map_err(io_error("opening", path))?;
    if file.metadata().map_err(io_error("reading", path))?.len() > size {
        tracing::warn!(path = %path.display(), size, "cutting off a write that was not finished before the last stop");
        file.set_len(size).and_then(|()| file.sync_all()).map_err(io_error("truncating", path))?;
    }
    Ok(file)
}

impl Wal {
    /// Reads the whole log into `replay` and stands ready to append.
    pub(crate) fn open(dir: &Path, segment_bytes: u64, wrap: Wrap, replay: &mut dyn Replay) -> Result<Self, StoreError> {
        let paths = list(dir)?;
        let mut segments = Segments { next_sequence: None, closed: Vec::new() };
        let mut active = None;
        for (at, path) in paths.iter().enumerate() {
            match segments.read(path, at + 1 == paths.len(), replay)? {
                Some(size) => active = Some((path.clone(), size)),
                None => fs::remove_file(path).map_err(io_error("removing", path))?,
            }
            if let Some((path, size)) = active.clone().filter(|_| at + 1 < paths.len()) {
                segments.closed.push(Closed { path, last_revision: replay.revision(), size });
            }
        }
        // When the last file was never begun, the one before it is the active one again.
        if let Some((path, _)) = &active
            && segments.closed.last().is_some_and(|closed| closed.path == *path)
        {
            segments.closed.pop();
        }
        let next_sequence = segments.next_sequence.unwrap_or(1);
        let closed_bytes: u64 = segments.closed.iter().map(|segment| segment.size).sum();
        let closed = Arc::new(ClosedSegments { segments: Mutex::new(segments.closed), bytes: AtomicU64::new(closed_bytes) });
        let (path, file, size) = match active {
            Some((path, size)) => (path.clone(), truncate(&path, size)?, size),
            None => create(dir, next_sequence, replay.revision())?,
        };
        closed.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(Wal { dir: dir.to_owned(), path, file: wrap(file), wrap, size, segment_bytes, next_sequence, closed })
    }

    pub(crate) fn closed(&self) -> Arc<ClosedSegments> {
        self.closed.clone()
    }

    /// Makes the frame durable. `revision` is the one reached before it.
    pub(crate) fn append(&mut self, frame: &mut FrameBuilder, revision: Revision) -> Result<(), StoreError> {
        if self.size >= self.segment_bytes {
            self.roll(revision)?;
        }
        let bytes = frame.seal(self.next_sequence);
        self.file.append(bytes).map_err(io_error("writing", &self.path))?;
        self.file.sync().map_err(io_error("syncing", &self.path))?;
        self.next_sequence += 1;
        self.size += bytes.len() as u64;
        self.closed.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn roll(&mut self, revision: Revision) -> Result<(), StoreError> {
        let (path, file, size) = create(&self.dir, self.next_sequence, revision)?;
        self.closed.bytes.fetch_add(size, Ordering::Relaxed);
        let path = std::mem::replace(&mut self.path, path);
        let size = std::mem::replace(&mut self.size, size);
        self.file = (self.wrap)(file);
        self.closed.segments.lock().push(Closed { path, last_revision: revision, size });
        Ok(())
    }
}

fn create(dir: &Path, sequence: u64, revision: Revision) -> Result<(PathBuf, File, u64), StoreError> {
    let path = segment_path(dir, sequence);
    let mut file = OpenOptions::new().create_new(true).append(true).open(&path).map_err(io_error("creating", &path))?;
    file.write_all(&header(sequence, revision)).map_err(io_error("writing", &path))?;
    file.sync_all().map_err(io_error("syncing", &path))?;
    sync_dir(dir)?;
    Ok((path, file, HEADER as u64))
}
