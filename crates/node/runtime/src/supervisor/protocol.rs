//! What the node process and the supervisor say to each other: length-prefixed JSON over a Unix socket, with descriptors.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tiphys_sys::fdpass;

use super::keep::Keep;
use crate::oci::spec::{Exec, Launch, Sandbox};

/// Grows when either side changes what it understands. The supervisor outlives node processes, so both must agree.
pub(crate) const PROTOCOL: u32 = 3;
/// The oldest that a node process gets along with: its containers must not die with an upgrade.
pub(crate) const OLDEST_PROTOCOL: u32 = 2;
pub(crate) const PROTOCOL_WITH_USERS: u32 = 3;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Hello,
    /// Every container that is not forgotten.
    List,
    Sandbox(Box<Sandbox>),
    Start(Arc<Launch>),
    /// Comes with stdin, stdout and stderr unless there is to be a terminal, whose master side the answer then brings.
    Exec(Box<Exec>),
    Signal {
        id: String,
        signal: i32,
    },
    /// SIGKILL to everything in its cgroup.
    KillAll {
        id: String,
    },
    SignalExec {
        exec_id: String,
        signal: i32,
    },
    /// Comes with a descriptor for each output asked for; the answer brings one for standard input if asked for.
    Attach {
        id: String,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Resize {
        id: String,
        width: u16,
        height: u16,
    },
    CloseStdin {
        id: String,
    },
    ReopenLog {
        id: String,
    },
    /// The container or sandbox is removed: kill what is left of it, know nothing of it any more.
    Forget {
        id: String,
    },
    /// Start this process again whenever it ends.
    Keep(Box<Keep>),
    /// Kill everything and end.
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub seq: u64,
    pub request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Reply { seq: u64, result: Result<Reply, String> },
    Event(Event),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Hello {
        protocol: u32,
        pid: i32,
    },
    /// `holders` are the sandboxes whose PID namespace is held.
    Containers {
        containers: Vec<ContainerState>,
        holders: Vec<String>,
    },
    Started {
        pid: i32,
    },
    Done,
}

/// What happens without being asked for; sent to every connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    Exited { id: String, exit: Exit },
    ExecExited { exec_id: String, code: i32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerState {
    pub id: String,
    pub pid: i32,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    pub exit: Option<Exit>,
}

/// How a container ended. Also what the file of this name on disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub code: i32,
    pub started_at: i64,
    pub finished_at: i64,
    pub oom_killed: bool,
}

/// One frame: text and the descriptors that came with it.
pub(crate) type Frame = (Vec<u8>, Vec<OwnedFd>);

/// Longer frames are a mistake or malice.
const MAX_FRAME: usize = 16 << 20;
const HEADER: usize = 8;

/// One side of a connection; never blocks.
pub(crate) struct Connection {
    fd: OwnedFd,
    inbox: Vec<u8>,
    inbox_fds: VecDeque<OwnedFd>,
    outbox: VecDeque<Outgoing>,
}

struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

impl Connection {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd, inbox: Vec::new(), inbox_fds: VecDeque::new(), outbox: VecDeque::new() }
    }

    /// Reads what is there. The second answer says that the other side is gone.
    pub(crate) fn receive(&mut self) -> io::Result<(Vec<Frame>, bool)> {
        let mut buffer = [0; 16384];
        let mut gone = false;
        loop {
            let mut fds = Vec::new();
            match fdpass::receive(self.fd.as_fd(), &mut buffer, &mut fds) {
                Ok(0) => gone = true,
                Ok(count) => {
                    self.inbox.extend_from_slice(&buffer[..count]);
                    self.inbox_fds.extend(fds);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok((self.take_frames()?, gone));
        }
    }

    fn take_frames(&mut self) -> io::Result<Vec<Frame>> {
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let mut frames = Vec::new();
        let mut at = 0;
        while self.inbox.len() - at >= HEADER {
            let number = |from: usize| self.inbox[from..from + 4].iter().rev().fold(0usize, |all, byte| all << 8 | usize::from(*byte));
            let (length, fds) = (number(at), number(at + 4));
            if length > MAX_FRAME || fds > fdpass::MAX_FDS {
                return Err(broken());
            }
            if self.inbox.len() - at - HEADER < length {
                break;
            }
            let fds = (0..fds).map(|_| self.inbox_fds.pop_front().ok_or_else(broken)).collect::<io::Result<_>>()?;
            frames.push((self.inbox[at + HEADER..at + HEADER + length].to_vec(), fds));
            at += HEADER + length;
        }
        self.inbox.drain(..at);
        Ok(frames)
    }

    pub(crate) fn queue(&mut self, message: &impl Serialize, fds: Vec<OwnedFd>) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let mut bytes = Vec::with_capacity(HEADER + text.len());
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend((fds.len() as u32).to_le_bytes());
        bytes.extend(text);
        self.outbox.push_back(Outgoing { bytes, sent: 0, fds });
        Ok(())
    }

    /// Sends what it can; true when nothing is left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while let Some(first) = self.outbox.front_mut() {
            let fds: Vec<BorrowedFd<'_>> = first.fds.iter().map(AsFd::as_fd).collect();
            match fdpass::send(self.fd.as_fd(), &first.bytes[first.sent..], &fds) {
                Ok(count) => {
                    first.sent += count;
                    first.fds.clear();
                    if first.sent == first.bytes.len() {
                        self.outbox.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::os::fd::AsRawFd for Connection {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_their_descriptors_stay_together() {
        let (left, right) = fdpass::socket_pair().unwrap();
        for fd in [&left, &right] {
            tiphys_sys::process::set_nonblocking(fd.as_fd(), true).unwrap();
        }
        let (mut left, mut right) = (Connection::new(left), Connection::new(right));
        let (reader, writer) = tiphys_sys::process::pipe().unwrap();
        let long = "x".repeat(300_000);
        left.queue(&"one", vec![]).unwrap();
        left.queue(&long, vec![reader]).unwrap();
        left.queue(&"three", vec![writer]).unwrap();
        let mut frames = Vec::new();
        while frames.len() < 3 {
            left.flush().unwrap();
            frames.extend(right.receive().unwrap().0);
        }
        assert_eq!(frames.iter().map(|(_, fds)| fds.len()).collect::<Vec<_>>(), [0, 1, 1]);
        assert_eq!(frames[1].0.len(), long.len() + 2);
        drop(left);
        assert!(right.receive().unwrap().1);
    }
}
