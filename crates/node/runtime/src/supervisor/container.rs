//! One container as the supervisor sees it: its process, its outputs, who listens.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tiphys_sys::{process, time};

use super::log::{Lines, LogFile, StreamName};
use super::protocol::Exit;

/// A listener this far behind holds up the container's output, as a slow terminal would.
const HIGH_WATER: usize = 1 << 20;

pub(super) struct Container {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) started_at: i64,
    pub(super) exit: Option<Exit>,
    pub(super) cgroup: String,
    /// Its processes are not all gone when the first one is: it shares a PID namespace.
    pub(super) kill_rest: bool,
    pub(super) log: Option<LogFile>,
    pub(super) outputs: Vec<Output>,
    pub(super) stdin: Option<OwnedFd>,
    /// The master side.
    pub(super) terminal: Option<OwnedFd>,
    pub(super) sinks: Vec<Sink>,
}

/// One output of the container: the reading side.
pub(super) struct Output {
    pub(super) token: u64,
    pub(super) fd: OwnedFd,
    pub(super) stream: StreamName,
    pub(super) lines: Lines,
    /// Not read for now, since a listener is too slow.
    pub(super) held: bool,
}

/// Someone attached to one stream.
pub(super) struct Sink {
    pub(super) token: u64,
    pub(super) fd: OwnedFd,
    pub(super) stream: StreamName,
    pub(super) queue: VecDeque<u8>,
}

/// What reading an output came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    More,
    Empty,
    End,
}

impl Container {
    /// Reads one buffer's worth of an output into the log and to the listeners.
    pub(super) fn read_output(&mut self, index: usize, buffer: &mut [u8]) -> ReadOutcome {
        let output = &mut self.outputs[index];
        let count = match process::read(output.fd.as_fd(), buffer) {
            Ok(0) => return ReadOutcome::End,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return ReadOutcome::Empty,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return ReadOutcome::More,
            // A terminal whose other side is closed says EIO.
            Err(_) => return ReadOutcome::End,
        };
        let (bytes, stream) = (&buffer[..count], output.stream);
        if let Some(log) = &mut self.log {
            let mut lines = Vec::with_capacity(count + 64);
            output.lines.push(bytes, stream, &time::rfc3339_nanos(time::realtime_nanos()), &mut lines);
            log.write(&lines);
        }
        for sink in self.sinks.iter_mut().filter(|sink| sink.stream == stream) {
            sink.queue.extend(bytes);
        }
        ReadOutcome::More
    }

    /// Takes an output out of use, with its last incomplete line.
    pub(super) fn close_output(&mut self, index: usize) -> Output {
        let mut output = self.outputs.swap_remove(index);
        if let Some(log) = &mut self.log {
            let mut lines = Vec::new();
            output.lines.finish(output.stream, &time::rfc3339_nanos(time::realtime_nanos()), &mut lines);
            log.write(&lines);
        }
        output
    }

    /// Whether some listener is so far behind that outputs must wait.
    pub(super) fn is_held_up(&self) -> bool {
        self.sinks.iter().any(|sink| sink.queue.len() > HIGH_WATER)
    }
}

impl Sink {
    /// Writes what it can. An error means that the listener is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            let (first, _) = self.queue.as_slices();
            match process::write(self.fd.as_fd(), first) {
                Ok(count) => drop(self.queue.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
