//! The embedded engine and its twin without a disk.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use crate::frame::{Entries, Entry};
use crate::hub::Hub;
use crate::index::{Index, Scanned};
use crate::lease::Leases;
use crate::maintenance::{Disk, Maintenance};
use crate::snapshot;
use crate::types::*;
use crate::wal::{ClosedSegments, Replay, Wal, Wrap, io_error};
use crate::writer::{Command, Reply, Writer, answer, check_revision, holds, scan_of};

/// An empty store stands at 1, as etcd's does.
const EMPTY: Revision = 1;
/// Keys that a reader visits under one lock.
const READ_CHUNK: usize = 1024;

#[derive(Debug, Clone)]
pub struct Options {
    pub dir: PathBuf,
    /// A log segment is closed when it has this size.
    pub segment_bytes: u64,
    /// A snapshot is written when it saves at least this much log.
    pub snapshot_after: u64,
    /// Events that a watcher may be behind before it is ended.
    pub watch_queue: usize,
}

impl Options {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Options { dir: dir.into(), segment_bytes: 16 << 20, snapshot_after: 16 << 20, watch_queue: 8192 }
    }
}

/// What readers, writer, watchers and maintenance share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) index: RwLock<Index>,
    pub(crate) hub: Hub,
    pub(crate) leases: Leases,
    compacted: AtomicI64,
    pub(crate) snapshot_bytes: AtomicU64,
    /// Set once, by the write that failed.
    pub(crate) refusal: OnceLock<String>,
}

impl Shared {
    fn new(recovered: Recovered, watch_queue: usize) -> Arc<Self> {
        let shared = Shared {
            hub: Hub::new(recovered.revision, watch_queue),
            leases: Leases::default(),
            compacted: AtomicI64::new(recovered.compacted),
            snapshot_bytes: AtomicU64::new(recovered.snapshot_bytes),
            refusal: OnceLock::new(),
            index: RwLock::default(),
        };
        recovered.leases.iter().for_each(|(id, ttl)| shared.leases.insert(*id, *ttl));
        recovered.index.leased().for_each(|(id, key)| shared.leases.attach(key, 0, id));
        *shared.index.write() = recovered.index;
        Arc::new(shared)
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.compacted.load(Ordering::Acquire)
    }

    /// Under the index's lock, so that a reader who has checked is not overtaken while it reads.
    pub(crate) fn set_compacted(&self, revision: Revision) {
        let _index = self.index.write();
        self.compacted.store(revision, Ordering::Release);
    }
}

/// The state that the files of a store add up to.
struct Recovered {
    index: Index,
    revision: Revision,
    compacted: Revision,
    leases: HashMap<LeaseId, i64>,
    /// Revisions up to here are in the snapshot already.
    base: Revision,
    snapshot_bytes: u64,
}

impl Recovered {
    fn empty() -> Self {
        Recovered { index: Index::default(), revision: EMPTY, compacted: 0, leases: HashMap::new(), base: EMPTY, snapshot_bytes: 0 }
    }

    fn from_snapshot(dir: &Path) -> Result<Self, StoreError> {
        let Some(found) = snapshot::load(dir)? else { return Ok(Self::empty()) };
        Ok(Recovered {
            index: Index::load(found.pairs),
            revision: found.revision,
            compacted: found.revision,
            leases: found.leases,
            base: found.revision,
            snapshot_bytes: found.size,
        })
    }

    /// Begins a revision of the log; false when the snapshot has it.
    fn begin(&mut self, revision: Revision) -> Result<bool, String> {
        if revision <= self.base {
            return Ok(false);
        }
        if revision != self.revision + 1 {
            return Err(format!("revision {revision} follows {}, one is missing,", self.revision));
        }
        self.revision = revision;
        Ok(true)
    }

    fn finish(&mut self) {
        self.compacted = self.compacted.min(self.revision);
        while self.index.compact(self.compacted, usize::MAX) {}
    }
}

impl Replay for Recovered {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn frame(&mut self, payload: &[u8]) -> Result<(), String> {
        let mut fresh = false;
        for entry in Entries(payload) {
            match entry.map_err(|()| "an entry that makes no sense")? {
                Entry::Revision(revision) => fresh = self.begin(revision)?,
                Entry::Put { key, value, lease } if fresh => {
                    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                    drop(self.index.put(self.revision, key, value, lease));
                }
                Entry::Delete { key } if fresh => drop(self.index.delete(self.revision, key)),
                Entry::Put { .. } | Entry::Delete { .. } => {}
                Entry::Grant { id, ttl } => drop(self.leases.insert(id, ttl)),
                Entry::Revoke { id } => drop(self.leases.remove(&id)),
                Entry::Compact(revision) => self.compacted = self.compacted.max(revision),
                other => return Err(format!("an entry that does not belong here ({other:?})")),
            }
        }
        Ok(())
    }
}

/// Holds the folder for this process; the kernel lets go of it when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("LOCK");
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io_error("opening", &path))?;
    match file.try_lock() {
        Ok(()) => {
            let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            written.map_err(io_error("writing", &path))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).ok().filter(|pid| !pid.is_empty()).unwrap_or_else(|| "unknown".into());
            let source = std::io::ErrorKind::WouldBlock.into();
            Err(StoreError::Io { context: format!("{} is in use by the process with pid {holder}", dir.display()), source })
        }
        Err(TryLockError::Error(error)) => Err(io_error("locking", &path)(error)),
    }
}

struct Threads {
    writer: Option<JoinHandle<()>>,
    maintenance: Option<JoinHandle<()>>,
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let spawned = std::thread::Builder::new().name(name.into()).stack_size(256 << 10).spawn(body);
    spawned.map_err(|source| StoreError::Io { context: format!("starting the thread {name}: {source}"), source })
}

/// The embedded engine: everything in memory, every write in a log first.
pub struct Embedded {
    shared: Arc<Shared>,
    commands: Sender<Command>,
    segments: Option<Arc<ClosedSegments>>,
    threads: Mutex<Threads>,
    expirer: OnceLock<()>,
    _lock: Option<File>,
}

impl Embedded {
    /// Opens the store in `options.dir`, which is made if need be. Blocks while it reads the files.
    pub fn open(options: Options) -> Result<Arc<Self>, StoreError> {
        Self::open_with(options, |file| Box::new(file))
    }

    fn open_with(options: Options, wrap: Wrap) -> Result<Arc<Self>, StoreError> {
        fs::create_dir_all(&options.dir).map_err(io_error("creating", &options.dir))?;
        let lock = lock(&options.dir)?;
        let mut recovered = Recovered::from_snapshot(&options.dir)?;
        let wal = Wal::open(&options.dir, options.segment_bytes, wrap, &mut recovered)?;
        recovered.finish();
        let segments = wal.closed();
        segments.remove_obsolete(recovered.base)?;
        let disk = Disk { dir: options.dir, segments, snapshot_after: options.snapshot_after };
        Self::start(recovered, Some((wal, disk)), options.watch_queue, Some(lock))
    }

    fn start(recovered: Recovered, disk: Option<(Wal, Disk)>, watch_queue: usize, lock: Option<File>) -> Result<Arc<Self>, StoreError> {
        let shared = Shared::new(recovered, watch_queue);
        let (commands, receiver) = mpsc::channel();
        let (compacted, compactions) = mpsc::channel();
        let (wal, disk) = disk.unzip();
        let segments = disk.as_ref().map(|disk| disk.segments.clone());
        let maintenance = Maintenance { shared: shared.clone(), disk, compactions };
        let writer = Writer::new(shared.clone(), receiver, wal, compacted);
        let maintenance = spawn("store-upkeep", move || maintenance.run())?;
        let writer = spawn("store-writer", move || writer.run())?;
        let threads = Mutex::new(Threads { writer: Some(writer), maintenance: Some(maintenance) });
        let engine = Arc::new(Embedded { shared, commands, segments, threads, expirer: OnceLock::new(), _lock: lock });
        if !engine.shared.leases.is_empty() && tokio::runtime::Handle::try_current().is_ok() {
            engine.watch_leases();
        }
        Ok(engine)
    }

    /// Expires leases from now on. Begun with the first lease, so that a store without leases has no timer.
    fn watch_leases(&self) {
        self.expirer.get_or_init(|| {
            tokio::spawn(expire(Arc::downgrade(&self.shared), self.commands.clone()));
        });
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// A transaction that writes nothing needs no turn with the writer: what is visible includes everything acknowledged.
    fn read_only(&self, txn: &Txn) -> Option<Result<TxnResponse, StoreError>> {
        let reads = |op: &Op| matches!(op, Op::Range(_));
        if !txn.success.iter().chain(&txn.failure).all(reads) {
            return None;
        }
        let index = self.shared.index.read();
        let revision = self.revision();
        let succeeded = txn.compare.iter().all(|compare| holds(&index, compare, revision));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let read = |op: &Op| match op {
            Op::Range(request) => self.range_locked(&index, request).map(OpResponse::Range),
            Op::Put { .. } | Op::Delete(_) => Err(StoreError::Invalid("not a read".into())),
        };
        let responses: Result<Vec<_>, _> = ops.iter().map(read).collect();
        Some(responses.map(|responses| TxnResponse { succeeded, responses, revision }))
    }

    fn range_locked(&self, index: &Index, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let now = self.revision();
        check_revision(request.revision, self.shared.compacted(), now)?;
        let mut found = Scanned::default();
        index.scan(&request.range, None, scan_of(request, now, usize::MAX), &mut found);
        Ok(answer(request, found, now))
    }

    /// Reads at one revision in several goes, so that the writer is never held up for long.
    fn range_in_goes(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let now = self.revision();
        let scan = scan_of(request, now, READ_CHUNK);
        let mut found = Scanned::default();
        let mut after: Option<Bytes> = None;
        loop {
            let index = self.shared.index.read();
            check_revision(scan.revision, self.shared.compacted(), now)?;
            after = index.scan(&request.range, after.as_deref(), scan, &mut found);
            if after.is_none() {
                return Ok(answer(request, found, now));
            }
        }
    }
}

/// Sleeps until the next lease's deadline and has the writer expire it.
async fn expire(shared: Weak<Shared>, commands: Sender<Command>) {
    loop {
        let Some(shared) = shared.upgrade().filter(|shared| !shared.hub.is_closed()) else { return };
        let deadline = shared.leases.next_deadline();
        let changed = shared.leases.changed.notified();
        match deadline {
            None => changed.await,
            Some(deadline) => tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(deadline) => {}
            },
        }
        for id in shared.leases.take_expired() {
            if commands.send(Command::Expire(id)).is_err() {
                return;
            }
        }
    }
}

impl Drop for Embedded {
    /// Waits for both threads: whoever drops the engine may open the folder again at once.
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        let mut threads = self.threads.lock();
        for thread in [threads.writer.take(), threads.maintenance.take()].into_iter().flatten() {
            let _ = thread.join();
        }
        self.shared.leases.changed.notify_one();
    }
}

#[async_trait]
impl Engine for Embedded {
    fn revision(&self) -> Revision {
        self.shared.hub.revision()
    }

    fn compacted_revision(&self) -> Revision {
        self.shared.compacted()
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        match self.range_in_goes(&request) {
            // Compaction overtook a read of the newest state; this once it has to wait.
            Err(StoreError::Compacted { .. }) if request.revision == 0 => self.range_locked(&self.shared.index.read(), &request),
            result => result,
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        match self.read_only(&txn) {
            Some(answer) => answer,
            None => self.ask(|reply| Command::Txn(txn, reply)).await,
        }
    }

    async fn watch(&self, range: KeyRange, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(Hub::subscribe(&self.shared, range, from)?))
    }

    fn request_progress(&self, range: &KeyRange) {
        self.shared.hub.note(range);
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.ask(|reply| Command::Compact(revision, reply)).await
    }

    async fn grant_lease(&self, id: LeaseId, ttl: i64) -> Result<LeaseId, StoreError> {
        self.watch_leases();
        self.ask(|reply| Command::Grant { id, ttl, reply }).await
    }

    async fn keep_lease_alive(&self, id: LeaseId) -> Result<i64, StoreError> {
        self.watch_leases();
        self.shared.leases.keep_alive(id)
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.ask(|reply| Command::Revoke(id, reply)).await
    }

    fn size(&self) -> u64 {
        let log = self.segments.as_ref().map_or(0, |segments| segments.bytes());
        log + self.shared.snapshot_bytes.load(Ordering::Relaxed)
    }

    fn refusal(&self) -> Option<String> {
        self.shared.refusal.get().cloned()
    }
}

/// The embedded engine without its log: for tests, and for data that need not outlive the process.
pub struct Memory(Arc<Embedded>);

impl Memory {
    pub fn open() -> Result<Arc<Self>, StoreError> {
        Self::with_watch_queue(Options::new("").watch_queue)
    }

    pub fn with_watch_queue(watch_queue: usize) -> Result<Arc<Self>, StoreError> {
        Ok(Arc::new(Memory(Embedded::start(Recovered::empty(), None, watch_queue, None)?)))
    }
}

#[async_trait]
impl Engine for Memory {
    fn revision(&self) -> Revision {
        self.0.revision()
    }

    fn compacted_revision(&self) -> Revision {
        self.0.compacted_revision()
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.0.range(request).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.0.txn(txn).await
    }

    async fn watch(&self, range: KeyRange, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.0.watch(range, from).await
    }

    fn request_progress(&self, range: &KeyRange) {
        self.0.request_progress(range);
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.compact(revision).await
    }

    async fn grant_lease(&self, id: LeaseId, ttl: i64) -> Result<LeaseId, StoreError> {
        self.0.grant_lease(id, ttl).await
    }

    async fn keep_lease_alive(&self, id: LeaseId) -> Result<i64, StoreError> {
        self.0.keep_lease_alive(id).await
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.0.revoke_lease(id).await
    }

    fn size(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::LogFile;
    use std::io;

    /// A disk that is full after two writes, or whose third sync fails.
    struct Failing {
        file: File,
        writes_left: usize,
        full: bool,
    }

    impl LogFile for Failing {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.writes_left = self.writes_left.saturating_sub(1);
            if self.full && self.writes_left == 0 {
                self.file.write_all(&bytes[..bytes.len() / 2])?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.file.write_all(bytes)
        }

        fn sync(&mut self) -> io::Result<()> {
            if !self.full && self.writes_left == 0 { Err(io::Error::other("the disk is on fire")) } else { self.file.sync_data() }
        }
    }

    fn put(key: &'static str) -> Txn {
        Txn { success: vec![Op::Put { key: key.into(), value: "v".into(), lease: 0 }], ..Txn::default() }
    }

    async fn fails_at_the_third_write(wrap: Wrap, reason: &str) {
        let dir = tempfile::tempdir().expect("a folder");
        let engine = Embedded::open_with(Options::new(dir.path()), wrap).expect("opens");
        let mut watch = engine.watch(KeyRange::prefix(""), 0).await.expect("watches");
        for key in ["a", "b"] {
            engine.txn(put(key)).await.expect("writes");
        }
        let first = engine.txn(put("c")).await.expect_err("the disk fails").to_string();
        assert!(first.contains(reason) && first.contains(".log"), "{first}");
        let later = engine.txn(put("d")).await.expect_err("stays read-only");
        assert!(matches!(&later, StoreError::ReadOnly(why) if why.contains(reason)), "{later}");
        assert!(matches!(engine.grant_lease(0, 9).await, Err(StoreError::ReadOnly(_))));
        assert!(engine.refusal().is_some_and(|why| why.contains(reason)), "its health tells it");
        assert_eq!(engine.revision(), 3);
        let seen = engine.range(RangeRequest::new(KeyRange::prefix(""))).await.expect("reads go on");
        assert_eq!((seen.count, seen.revision), (2, 3), "what was not acknowledged is never seen");
        drop(engine);
        for _ in 0..2 {
            assert_eq!(watch.next().await.expect("what was written").events.len(), 1);
        }
        assert!(matches!(watch.next().await, Err(StoreError::Closed)));
        let engine = Embedded::open(Options::new(dir.path())).expect("opens when the disk is well");
        assert!(engine.revision() >= 3);
        engine.txn(put("d")).await.expect("writes again");
    }

    #[tokio::test]
    async fn a_full_disk_makes_the_store_read_only() {
        fails_at_the_third_write(|file| Box::new(Failing { file, writes_left: 3, full: true }), "no storage space").await;
    }

    #[tokio::test]
    async fn a_failed_sync_makes_the_store_read_only() {
        fails_at_the_third_write(|file| Box::new(Failing { file, writes_left: 3, full: false }), "the disk is on fire").await;
    }
}
