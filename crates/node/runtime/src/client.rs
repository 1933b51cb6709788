//! The node process's side of the supervisor's socket.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader, Interest};
use tokio::sync::{mpsc, oneshot};

use crate::supervisor;
use crate::supervisor::keep::Keep;
use crate::supervisor::protocol::{Connection, Envelope, Event, Message, Reply, Request};

/// What a call can come to besides its answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The supervisor could not do it, in its words.
    #[error("{0}")]
    Refused(String),
    #[error("the supervisor is gone")]
    Gone,
}

type Answer = (Result<Reply, String>, Vec<OwnedFd>);
type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

struct Outgoing {
    envelope: Envelope,
    fds: Vec<OwnedFd>,
}

/// One connection. When it breaks, every call fails with [`CallError::Gone`] and the events end.
#[derive(Clone)]
pub(crate) struct Client {
    next: Arc<AtomicU64>,
    pending: Pending,
    outgoing: mpsc::UnboundedSender<Outgoing>,
}

impl Client {
    pub(crate) fn connect(dir: &Path) -> io::Result<(Self, mpsc::UnboundedReceiver<Event>)> {
        let stream = supervisor::connect(dir)?;
        stream.set_nonblocking(true)?;
        let connection = watched(Connection::new(stream.into()))?;
        let (outgoing, requests) = mpsc::unbounded_channel();
        let (events, receiver) = mpsc::unbounded_channel();
        let pending = Pending::default();
        tokio::spawn(talk(connection, requests, events, pending.clone()));
        Ok((Self { next: Arc::default(), pending, outgoing }, receiver))
    }

    pub(crate) async fn call(&self, request: Request) -> Result<Reply, CallError> {
        self.call_with(request, Vec::new()).await.map(|(reply, _)| reply)
    }

    pub(crate) async fn call_with(&self, request: Request, fds: Vec<OwnedFd>) -> Result<(Reply, Vec<OwnedFd>), CallError> {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().insert(seq, sender);
        if self.outgoing.send(Outgoing { envelope: Envelope { seq, request }, fds }).is_err() {
            self.pending.lock().remove(&seq);
            return Err(CallError::Gone);
        }
        let (result, fds) = receiver.await.map_err(|_| CallError::Gone)?;
        result.map(|reply| (reply, fds)).map_err(CallError::Refused)
    }
}

/// An object that owns its one descriptor for as long as it lives, among those that tokio waits on.
#[expect(
    deprecated,
    reason = "its replacement is unsafe to call for objects that change their descriptor, which ours do not; unsafe code stands in tiphys-sys only"
)]
pub(crate) fn watched<T: std::os::fd::AsRawFd>(object: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(object)
}

async fn talk(
    mut connection: AsyncFd<Connection>,
    mut requests: mpsc::UnboundedReceiver<Outgoing>,
    events: mpsc::UnboundedSender<Event>,
    pending: Pending,
) {
    let mut flushed = true;
    loop {
        let interest = if flushed { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        tokio::select! {
            ready = connection.ready_mut(interest) => {
                let Ok(mut ready) = ready else { break };
                let received = ready.get_inner_mut().receive();
                let sent = ready.get_inner_mut().flush();
                // Both went on until the kernel would have blocked.
                ready.clear_ready();
                let (Ok((frames, gone)), Ok(done)) = (received, sent) else { break };
                flushed = done;
                let understood = frames.into_iter().all(|(text, fds)| deliver(&text, fds, &events, &pending));
                if gone || !understood {
                    break;
                }
            }
            request = requests.recv() => {
                let Some(Outgoing { envelope, fds }) = request else { break };
                if connection.get_mut().queue(&envelope, fds).is_err() {
                    continue;
                }
                match connection.get_mut().flush() {
                    Ok(done) => flushed = done,
                    Err(_) => break,
                }
            }
        }
    }
    // Dropping the senders tells every caller; whoever calls later finds the channel closed.
    requests.close();
    pending.lock().clear();
    while requests.recv().await.is_some() {}
    pending.lock().clear();
}

fn deliver(text: &[u8], fds: Vec<OwnedFd>, events: &mpsc::UnboundedSender<Event>, pending: &Pending) -> bool {
    match serde_json::from_slice(text) {
        Ok(Message::Reply { seq, result }) => {
            if let Some(waiting) = pending.lock().remove(&seq) {
                waiting.send((result, fds)).ok();
            }
            true
        }
        Ok(Message::Event(event)) => events.send(event).is_ok(),
        Err(_) => false,
    }
}

/// A process that a supervisor keeps running, as long as that supervisor runs itself.
pub struct Registered {
    _client: Client,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Registered {
    /// Has the supervisor behind `dir` keep a process running.
    pub async fn with(dir: &Path, keep: Keep) -> io::Result<Registered> {
        let (client, events) = Client::connect(dir)?;
        client.call(Request::Keep(Box::new(keep))).await.map_err(io::Error::other)?;
        Ok(Registered { _client: client, events })
    }

    /// Returns when that supervisor is gone.
    pub async fn until_gone(&mut self) {
        while self.events.recv().await.is_some() {}
    }
}

/// How a supervisor is started: this program, these arguments, then `--dir` and `--name`.
#[derive(Debug, Clone)]
pub struct SupervisorCommand {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

/// Starts the supervisor of a folder unless it runs, and waits until it listens.
pub async fn ensure_supervisor(command: &SupervisorCommand, dir: &Path, name: &str) -> io::Result<()> {
    if supervisor::connect(dir).is_ok() {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    let mut child = tokio::process::Command::new(&command.program)
        .args(&command.arguments)
        .arg("--dir")
        .arg(dir)
        .args(["--name", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(false)
        .spawn()?;
    let Some(stdout) = child.stdout.take() else { return Err(io::Error::other("no pipe from the supervisor")) };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    // Reaped by the runtime's own signal handling if it should ever end while we live.
    tokio::spawn(async move { child.wait().await });
    if line.trim() == "ready" { Ok(()) } else { Err(io::Error::other("the supervisor ended before it was ready")) }
}
