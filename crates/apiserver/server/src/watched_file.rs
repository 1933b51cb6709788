//! A configuration file that is read again when it has changed. It is looked at when a request needs what it says and the last look is a second ago:
//! nothing happens while nobody asks. A file that cannot be used leaves what was before.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tiphys_base::Clock;
use tiphys_base::meters::head;

const LOOK_EVERY_SECONDS: i64 = 1;

pub(crate) struct WatchedFile {
    path: PathBuf,
    /// `authentication`, `authorization`.
    what: &'static str,
    clock: Arc<dyn Clock>,
    looked: AtomicI64,
    changed: Mutex<Option<SystemTime>>,
    /// Readings that were taken over, and that were not, with the time of the last in seconds.
    readings: [(AtomicU64, AtomicI64); 2],
}

impl WatchedFile {
    /// One that is about to be read for the first time.
    pub(crate) fn new(path: PathBuf, what: &'static str, clock: Arc<dyn Clock>) -> Self {
        let (changed, looked) = (Mutex::new(modified(&path)), AtomicI64::new(clock.now().as_second()));
        WatchedFile { path, what, clock, looked, changed, readings: Default::default() }
    }

    /// Has `take_over` read the file, if it has changed.
    pub(crate) fn look(&self, take_over: impl FnOnce(&Path) -> Result<(), String>) {
        let (now, looked) = (self.clock.now().as_second(), self.looked.load(Ordering::Relaxed));
        let due = now - looked >= LOOK_EVERY_SECONDS;
        if !due || self.looked.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let changed = modified(&self.path);
        if std::mem::replace(&mut *self.changed.lock(), changed) == changed {
            return;
        }
        let outcome = take_over(&self.path);
        match &outcome {
            Ok(()) => tracing::info!(file = %self.path.display(), "the {} configuration has changed and is in use", self.what),
            Err(why) => tracing::error!(why, "the {} configuration has changed and cannot be used", self.what),
        }
        let (count, last) = &self.readings[usize::from(outcome.is_err())];
        count.fetch_add(1, Ordering::Relaxed);
        last.store(now, Ordering::Relaxed);
    }

    /// Upstream's two metrics of such a file.
    pub(crate) fn metrics(&self, out: &mut String) {
        let prefix = format!("apiserver_{}_config_controller_automatic_reload", self.what);
        let told = || ["success", "failure"].into_iter().zip(&self.readings).filter(|(_, (n, _))| n.load(Ordering::Relaxed) > 0);
        head(out, &format!("{prefix}s_total"), "counter", &format!("How often the {} configuration was read again.", self.what));
        for (status, (count, _)) in told() {
            let _ = writeln!(out, "{prefix}s_total{{apiserver_id_hash=\"\",status={status:?}}} {}", count.load(Ordering::Relaxed));
        }
        head(out, &format!("{prefix}_last_timestamp_seconds"), "gauge", "When it was read again.");
        for (status, (_, last)) in told() {
            let seconds = last.load(Ordering::Relaxed);
            let _ = writeln!(out, "{prefix}_last_timestamp_seconds{{apiserver_id_hash=\"\",status={status:?}}} {seconds}");
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tiphys_base::FakeClock;

    use super::*;

    #[test]
    fn a_changed_file_is_read_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        std::fs::write(&path, "a").expect("written");
        let clock = FakeClock::at(tiphys_base::SystemClock.now());
        let file = WatchedFile::new(path.clone(), "some", clock.clone());
        let looked = |outcome: Result<(), String>| {
            let mut read = false;
            file.look(|_| {
                read = true;
                outcome
            });
            read
        };
        clock.advance(Duration::from_secs(5));
        assert!(!looked(Ok(())), "nothing has changed");
        let later = std::fs::File::options().write(true).open(&path).expect("there");
        later.set_modified(SystemTime::now() + Duration::from_secs(7)).expect("set");
        assert!(!looked(Ok(())), "the last look was now");
        clock.advance(Duration::from_secs(1));
        assert!(looked(Err("bad".into())));
        clock.advance(Duration::from_secs(1));
        assert!(!looked(Ok(())), "it was read, however bad it is");
        later.set_modified(SystemTime::now() + Duration::from_secs(9)).expect("set");
        clock.advance(Duration::from_secs(1));
        assert!(looked(Ok(())));
        let mut text = String::new();
        file.metrics(&mut text);
        for line in
            ["reloads_total{apiserver_id_hash=\"\",status=\"success\"} 1", "reloads_total{apiserver_id_hash=\"\",status=\"failure\"} 1"]
        {
            assert!(text.contains(line), "{text}");
        }
    }
}
