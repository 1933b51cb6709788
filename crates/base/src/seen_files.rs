//! Files that are read again when they have changed. They are looked at when somebody needs what they say and the last look is a while ago: nothing
//! happens while nobody asks.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::clock::Clock;

/// When each of the files was changed last, as far as is known.
pub type Stamps = Vec<Option<SystemTime>>;

pub struct SeenFiles {
    files: Vec<PathBuf>,
    every_seconds: i64,
    clock: Arc<dyn Clock>,
    looked: AtomicI64,
    seen: Mutex<Stamps>,
}

impl SeenFiles {
    /// Files that are about to be read for the first time.
    pub fn new(files: Vec<PathBuf>, every_seconds: i64, clock: Arc<dyn Clock>) -> Self {
        let (seen, looked) = (Mutex::new(stamps(&files)), AtomicI64::new(clock.now().as_second()));
        SeenFiles { files, every_seconds, clock, looked, seen }
    }

    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What is to be remembered once the files have been read again; none where that need not be. One of those who ask at a time is told.
    pub fn changed(&self) -> Option<Stamps> {
        let (now, looked) = (self.clock.now().as_second(), self.looked.load(Ordering::Relaxed));
        let due = now - looked >= self.every_seconds;
        if !due || self.looked.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return None;
        }
        let stamps = stamps(&self.files);
        (*self.seen.lock() != stamps).then_some(stamps)
    }

    pub fn remember(&self, stamps: Stamps) {
        *self.seen.lock() = stamps;
    }
}

fn stamps(files: &[PathBuf]) -> Stamps {
    files.iter().map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok()).collect()
}
