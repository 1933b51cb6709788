//! The one process that the supervisor keeps running besides containers: the cluster's, which has started the supervisor itself.
//!
//! It is started again when it ends, at once the first time, then after waits that double, for as long as the file `wanted`
//! is there: `tiphys down` takes that away first. The longest wait bounds how often a process that cannot live is tried.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiphys_sys::poll::EventFlags;
use tiphys_sys::process::{self, Fork, ForkOptions, WaitStatus};
use tiphys_sys::{signal, time};

use super::protocol::Reply;
use super::{Supervisor, Token};

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Who has lived so long was well, and is started again at once.
const WELL: Duration = Duration::from_secs(10);

/// A process that runs, and how to start it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    pub pid: i32,
    pub program: PathBuf,
    /// All, with the program's name first.
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Where its standard error goes, and what is said about it.
    pub log: PathBuf,
    /// As long as this file is there the process is to run.
    pub wanted: PathBuf,
}

pub(super) struct Kept {
    keep: Keep,
    /// Of the process as it runs now; None between two lives.
    pidfd: Option<(OwnedFd, u64)>,
    since: i64,
    /// How it ended, where it was our child.
    pub(super) ended: Option<WaitStatus>,
    /// Lives that were too short, one after the other.
    short: u32,
    /// When to start it, on the monotonic clock.
    due: Option<i64>,
}

/// How long to wait before the next start, after so many short lives.
fn wait_after(short: u32) -> Duration {
    match short {
        0 => Duration::ZERO,
        _ => FIRST_WAIT.saturating_mul(1 << (short - 1).min(16)).min(LONGEST_WAIT),
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Kept {
    pub(super) fn is(&self, pid: i32) -> bool {
        self.keep.pid == pid
    }

    fn say(&self, text: &str) {
        let line = format!("{}  WARN supervisor: {text}\n", time::rfc3339_nanos(time::realtime_nanos()));
        let log = File::options().create(true).append(true).open(&self.keep.log);
        // Nobody else is there to be told that the log cannot be written.
        log.and_then(|mut log| log.write_all(line.as_bytes())).ok();
    }
}

impl Supervisor {
    /// From now on this process is the one; who was kept before is not any more.
    pub(super) fn keep(&mut self, keep: Keep) -> Result<Reply, String> {
        self.let_go_of_pidfd();
        let mut kept = Kept { keep, pidfd: None, since: time::monotonic_nanos(), ended: None, short: 0, due: None };
        let pidfd = process::pidfd_open(kept.keep.pid).map_err(|error| format!("process {}: {error}", kept.keep.pid))?;
        kept.pidfd = Some(self.watch(pidfd).map_err(|error| error.to_string())?);
        self.kept = Some(kept);
        Ok(Reply::Done)
    }

    fn watch(&mut self, pidfd: OwnedFd) -> io::Result<(OwnedFd, u64)> {
        let token = self.token(Token::Kept);
        self.poll.add(&pidfd, token, EventFlags::IN)?;
        Ok((pidfd, token))
    }

    fn let_go_of_pidfd(&mut self) {
        if let Some((pidfd, token)) = self.kept.as_mut().and_then(|kept| kept.pidfd.take()) {
            self.poll.remove(&pidfd).ok();
            self.tokens.remove(&token);
        }
    }

    /// Its pidfd says that the kept process has ended.
    pub(super) fn kept_ended(&mut self) {
        // If it was our child, its status is there to be taken.
        self.reap();
        self.let_go_of_pidfd();
        self.plan_start();
    }

    fn plan_start(&mut self) {
        let Some(kept) = self.kept.as_mut() else { return };
        if self.stopping || !kept.keep.wanted.exists() {
            self.kept = None;
            return;
        }
        let now = time::monotonic_nanos();
        if now - kept.since >= nanos(WELL) {
            kept.short = 0;
        }
        let wait = wait_after(kept.short);
        kept.short += 1;
        kept.due = Some(now.saturating_add(nanos(wait)));
        let how = match kept.ended.take() {
            Some(WaitStatus::Code(code)) => format!(" with status {code}"),
            Some(WaitStatus::Signal(number)) => format!(" by signal {number}"),
            None => String::new(),
        };
        kept.say(&format!("the cluster's process {} has ended{how}; it is started again in {} ms", kept.keep.pid, wait.as_millis()));
    }

    /// How long the loop may sleep.
    pub(super) fn next_start(&self) -> Option<Duration> {
        let due = self.kept.as_ref()?.due?;
        Some(Duration::from_nanos(u64::try_from(due.saturating_sub(time::monotonic_nanos())).unwrap_or(0)))
    }

    pub(super) fn start_if_due(&mut self) {
        if self.next_start() != Some(Duration::ZERO) {
            return;
        }
        let Some(kept) = self.kept.as_mut() else { return };
        kept.due = None;
        kept.since = time::monotonic_nanos();
        if self.stopping || !kept.keep.wanted.exists() {
            self.kept = None;
            return;
        }
        let started = fork(&kept.keep).and_then(|(pid, pidfd)| Ok((pid, self.watch(pidfd)?)));
        let Some(kept) = self.kept.as_mut() else { return };
        match started {
            Ok((pid, watched)) => {
                kept.keep.pid = pid;
                kept.pidfd = Some(watched);
            }
            Err(error) => {
                kept.say(&format!("cannot start the cluster's process: {error}"));
                self.plan_start();
            }
        }
    }
}

fn fork(keep: &Keep) -> io::Result<(i32, OwnedFd)> {
    match process::fork_single_threaded(&ForkOptions { flags: 0, cgroup: None })? {
        Fork::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Fork::Child => {
            let error = become_it(keep);
            eprintln!("{}: {error}", keep.program.display());
            process::exit_now(127)
        }
    }
}

/// In the child: out of everything that is the supervisor's, and into the program. Gives why that failed.
fn become_it(keep: &Keep) -> io::Error {
    let prepared = || -> io::Result<()> {
        process::setsid()?;
        signal::reset_all();
        // The supervisor is the last to be killed for memory; this one is like any other.
        std::fs::write("/proc/self/oom_score_adj", "0").ok();
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let log = File::options().create(true).append(true).open(&keep.log)?;
        process::dup_to(null.as_fd(), 0)?;
        process::dup_to(null.as_fd(), 1)?;
        process::dup_to(log.as_fd(), 2)?;
        // Closed here, for below every other descriptor goes, and nothing may own one that is closed already.
        drop((null, log));
        process::abandon_descriptors(3, &[])
    };
    if let Err(error) = prepared() {
        return error;
    }
    let arguments: Vec<CString> = keep.arguments.iter().filter_map(|a| CString::new(a.as_str()).ok()).collect();
    let environment: Vec<CString> = keep.environment.iter().filter_map(|(k, v)| CString::new(format!("{k}={v}")).ok()).collect();
    let error = process::execve(&keep.program, &arguments, &environment);
    // The file may have been moved away since; this supervisor is the same program.
    process::execve(Path::new("/proc/self/exe"), &arguments, &environment);
    error
}

#[cfg(test)]
mod tests {
    use super::{Duration, LONGEST_WAIT, wait_after};

    #[test]
    fn waits_double_up_to_a_bound() {
        assert_eq!([0, 1, 2, 3].map(|n| wait_after(n).as_millis()), [0, 100, 200, 400]);
        assert_eq!(wait_after(20), LONGEST_WAIT);
        assert!((0..40).all(|n| wait_after(n) <= wait_after(n + 1) && wait_after(n) <= Duration::from_secs(30)));
    }
}
