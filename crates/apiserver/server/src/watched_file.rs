//! A configuration file that is read again when it has changed, within a second of its next use. A file that cannot be used leaves what was before.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tiphys_base::meters::head;
use tiphys_base::{Clock, SeenFiles};

const LOOK_EVERY_SECONDS: i64 = 1;

pub(crate) struct WatchedFile {
    path: PathBuf,
    /// `authentication`, `authorization`.
    what: &'static str,
    clock: Arc<dyn Clock>,
    seen: SeenFiles,
    /// Readings that were taken over, and that were not, with the time of the last in seconds.
    readings: [(AtomicU64, AtomicI64); 2],
}

impl WatchedFile {
    /// One that is about to be read for the first time.
    pub(crate) fn new(path: PathBuf, what: &'static str, clock: Arc<dyn Clock>) -> Self {
        let seen = SeenFiles::new(vec![path.clone()], LOOK_EVERY_SECONDS, clock.clone());
        WatchedFile { path, what, clock, seen, readings: Default::default() }
    }

    /// Has `take_over` read the file, if it has changed.
    pub(crate) fn look(&self, take_over: impl FnOnce(&Path) -> Result<(), String>) {
        let Some(stamps) = self.seen.changed() else { return };
        // However bad it is: it is told once.
        self.seen.remember(stamps);
        let outcome = take_over(&self.path);
        match &outcome {
            Ok(()) => tracing::info!(file = %self.path.display(), "the {} configuration has changed and is in use", self.what),
            Err(why) => {
                let file = self.path.display();
                tracing::error!(%file, why, "the {} configuration has changed and cannot be used: what it was before stays in force", self.what);
            }
        }
        let (count, last) = &self.readings[usize::from(outcome.is_err())];
        count.fetch_add(1, Ordering::Relaxed);
        last.store(self.clock.now().as_second(), Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

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
