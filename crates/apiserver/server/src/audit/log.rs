//! The file that events go to: lines of JSON, rotated by size, old files removed by number and age (upstream's `--audit-log-max*`).
//!
//! Events are gathered in memory and written together a moment later, off the threads that serve. If the disk does not keep up, the newest
//! events are dropped and counted: an audit log must not take the memory of the server.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tiphys_base::tasks::Tasks;
use tokio::sync::Notify;

use crate::config::AuditLog;

/// How long events are gathered.
const MOMENT: Duration = Duration::from_millis(200);
/// More than this waits only behind a disk that hangs.
const MOST: usize = 4 << 20;

pub(super) struct LogFile {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    buffer: Mutex<Vec<u8>>,
    some: Notify,
    dropped: AtomicU64,
}

impl LogFile {
    pub(super) fn open(config: &AuditLog, tasks: &Tasks) -> std::io::Result<Self> {
        let mut files = Files::open(config)?;
        let shared = Arc::new(Shared::default());
        let (reading, stop) = (shared.clone(), tasks.token());
        tasks.spawn_draining("audit log", async move {
            let mut spare = Vec::new();
            loop {
                let stopped = tokio::select! {
                    () = reading.some.notified() => false,
                    () = stop.cancelled() => true,
                };
                if !stopped {
                    tokio::select! {
                        () = tokio::time::sleep(MOMENT) => {}
                        () = stop.cancelled() => {}
                    }
                }
                let lines = std::mem::replace(&mut *reading.buffer.lock(), spare);
                let written = tokio::task::spawn_blocking(move || {
                    let outcome = files.write(&lines);
                    (files, lines, outcome)
                });
                let Ok((back, lines, outcome)) = written.await else { return };
                files = back;
                spare = emptied(lines);
                if let Err(error) = outcome {
                    tracing::error!(%error, "the audit log cannot be written");
                }
                if stopped {
                    return;
                }
            }
        });
        Ok(LogFile { shared })
    }

    /// A line with its end.
    pub(super) fn write(&self, line: Vec<u8>) {
        let mut buffer = self.shared.buffer.lock();
        if buffer.len() > MOST {
            let dropped = self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            if dropped.is_power_of_two() || dropped == 0 {
                tracing::error!(dropped = dropped + 1, "audit events are dropped: the disk does not keep up");
            }
            return;
        }
        let first = buffer.is_empty();
        buffer.extend_from_slice(&line);
        drop(buffer);
        if first {
            self.shared.some.notify_one();
        }
    }
}

/// A busy server fills the buffer again: it does not grow anew each time. A quiet one keeps none.
fn emptied(mut lines: Vec<u8>) -> Vec<u8> {
    const BUSY: usize = 64 << 10;
    if lines.len() < BUSY {
        return Vec::new();
    }
    lines.clear();
    lines
}

/// The current file and its elders.
struct Files {
    /// None: standard output.
    path: Option<PathBuf>,
    file: Option<File>,
    size: u64,
    max_size: u64,
    max_backups: usize,
    max_age: Option<Duration>,
}

impl Files {
    fn open(config: &AuditLog) -> std::io::Result<Files> {
        let days = |n: u64| Duration::from_secs(n * 86_400);
        let mut files = Files {
            path: (config.path.as_os_str() != "-").then(|| config.path.clone()),
            file: None,
            size: 0,
            max_size: config.max_megabytes.max(1) << 20,
            max_backups: config.max_backups,
            max_age: (config.max_days > 0).then(|| days(config.max_days)),
        };
        files.reopen()?;
        Ok(files)
    }

    fn reopen(&mut self) -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.path.is_none() {
            return std::io::stdout().write_all(lines);
        }
        if self.size > 0 && self.size + lines.len() as u64 > self.max_size {
            self.rotate()?;
        }
        let Some(file) = &mut self.file else { return self.reopen() };
        file.write_all(lines)?;
        self.size += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let now = tiphys_base::Clock::now(&tiphys_base::SystemClock);
        std::fs::rename(&path, backup_name(&path, &now.strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string()))?;
        self.reopen()?;
        let mut backups = backups(&path)?;
        // By name is by time; the newest last.
        backups.sort();
        let surplus = if self.max_backups == 0 { 0 } else { backups.len().saturating_sub(self.max_backups) };
        for (i, old) in backups.iter().enumerate() {
            let aged = self.max_age.is_some_and(|limit| is_older(old, limit));
            if i < surplus || aged {
                std::fs::remove_file(old)?;
            }
        }
        Ok(())
    }
}

fn is_older(path: &Path, limit: Duration) -> bool {
    let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok();
    modified.and_then(|m| m.elapsed().ok()).is_some_and(|age| age > limit)
}

/// `audit.log` → `audit-2026-11-21T13-41-00.123.log`.
fn backup_name(path: &Path, time: &str) -> PathBuf {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{time}{extension}"))
}

fn backups(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let prefix = format!("{}-", path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let all = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let ours = |p: &PathBuf| p.extension() == path.extension() && p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix));
    Ok(all.filter(ours).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_rotate_and_the_oldest_go() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.log");
        let config = AuditLog { path: path.clone(), max_megabytes: 1, max_backups: 2, ..AuditLog::default() };
        let mut files = Files::open(&config).expect("opens");
        for old in ["2020-01-01T00-00-00.000", "2020-01-02T00-00-00.000"] {
            std::fs::write(backup_name(&path, old), "old").expect("written");
        }
        let line = vec![b'x'; 700_000];
        files.write(&line).expect("written");
        files.write(&line).expect("rotated");
        let kept = backups(&path).expect("listed");
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(!kept.iter().any(|p| p.to_string_lossy().contains("2020-01-01")));
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 700_000);
    }
}
