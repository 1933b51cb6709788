//! Work that nobody waits for: dropping compacted history, and snapshots when the log has become long.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use crate::engine::Shared;
use crate::snapshot;
use crate::types::{Revision, StoreError};
use crate::wal::ClosedSegments;

/// Changes that are swept under one lock.
const CHUNK: usize = 256;

/// The disk's side of maintenance.
pub(crate) struct Disk {
    pub(crate) dir: PathBuf,
    pub(crate) segments: Arc<ClosedSegments>,
    /// A snapshot is written when it makes at least this many bytes of log superfluous, and as many as the last snapshot has: so a
    /// snapshot never costs more than the log it replaces.
    pub(crate) snapshot_after: u64,
}

pub(crate) struct Maintenance {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Option<Disk>,
    pub(crate) compactions: Receiver<Revision>,
}

impl Maintenance {
    pub(crate) fn run(self) {
        while let Ok(revision) = self.compactions.recv() {
            let revision = self.compactions.try_iter().last().unwrap_or(revision);
            while self.shared.index.write().compact(revision, CHUNK) {
                std::thread::yield_now();
            }
            self.shared.index.write().trim();
            if let Some(disk) = &self.disk
                && let Err(error) = self.snapshot(disk, revision)
            {
                tracing::warn!(%error, "no snapshot of the store could be written; the log is kept and grows");
            }
        }
    }

    /// Nothing else compacts, so the state at `revision` stays readable meanwhile.
    fn snapshot(&self, disk: &Disk, revision: Revision) -> Result<(), StoreError> {
        let last_size = self.shared.snapshot_bytes.load(Ordering::Relaxed);
        if disk.segments.obsolete_bytes(revision) < disk.snapshot_after.max(last_size) {
            return Ok(());
        }
        let size = snapshot::write(&disk.dir, &self.shared, revision)?;
        self.shared.snapshot_bytes.store(size, Ordering::Relaxed);
        disk.segments.remove_obsolete(revision)
    }
}
