//! The supervisor: one small process per node, with one thread and no async runtime, that is the parent of all containers.
//!
//! It forks them, holds their pidfds, pipes and terminals, writes their logs and remembers how they ended, so that everything
//! else can be killed, upgraded and restarted while containers run on. Node processes come and go on its socket; what
//! happened meanwhile they read from [`protocol::Request::List`]. It ends only when told to.
//! It also keeps the cluster's own process running ([`keep`]).
//! Deliberately absent: policy. It knows no pods, no images, no restarts; it carries out descriptions.

mod container;
pub(crate) mod keep;
mod launch;
mod log;
pub(crate) mod protocol;
mod requests;
mod start;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiphys_cgroups::{Cgroup, Hierarchy};
use tiphys_sys::poll::{EventFlags, Poll};
use tiphys_sys::{process, signal, time};

use container::{Container, ReadOutcome};
use protocol::{Connection, Event, Exit, Message, Reply};

pub(crate) use start::connect;
pub use start::{socket_path, supervisor_main};

/// What a descriptor in the poll set is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Listener,
    Signals,
    /// The process that is kept running.
    Kept,
    Client,
    /// A child on its way to its program.
    Sync,
    /// An output of this container.
    Output(String),
    /// Somebody attached to this container.
    Sink(String),
}

/// Who is to be told how a start went.
struct Waiting {
    client: u64,
    seq: u64,
}

/// A child between fork and its program.
struct Starting {
    pid: i32,
    sync: OwnedFd,
    waiting: Waiting,
    what: Child,
    error: Vec<u8>,
    failed: bool,
    terminal: Option<OwnedFd>,
    /// Who goes on in its place.
    successor: Option<OwnedFd>,
}

/// What a child of ours is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Child {
    Container(String),
    Exec(String),
    Sandbox(String),
}

struct ExecState {
    pid: i32,
    client: u64,
}

pub(crate) struct Supervisor {
    dir: PathBuf,
    poll: Poll,
    tokens: HashMap<u64, Token>,
    next_token: u64,
    listener: UnixListener,
    signals: OwnedFd,
    own_pid_namespace: OwnedFd,
    hierarchy: Option<Arc<Hierarchy>>,
    clients: HashMap<u64, Connection>,
    starting: HashMap<u64, Starting>,
    children: HashMap<i32, Child>,
    containers: HashMap<String, Container>,
    execs: HashMap<String, ExecState>,
    /// Processes that hold a pod's PID namespace.
    holders: HashMap<String, i32>,
    kept: Option<keep::Kept>,
    stopping: bool,
    buffer: Vec<u8>,
}

/// At most so much of one output before others have their turn.
const READS_PER_TURN: usize = 8;

impl Supervisor {
    fn new(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir.join("exits"))?;
        let socket = socket_path(dir);
        std::fs::remove_file(&socket).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        let (_folder, short) = start::short_socket_path(dir)?;
        let listener = UnixListener::bind(short)?;
        listener.set_nonblocking(true)?;
        let signals = signal::signal_fd(&[signal::SIGCHLD, signal::SIGTERM])?;
        let mut supervisor = Self {
            dir: dir.to_owned(),
            poll: Poll::new()?,
            tokens: HashMap::new(),
            next_token: 0,
            listener,
            signals,
            own_pid_namespace: std::fs::File::open("/proc/self/ns/pid")?.into(),
            hierarchy: Hierarchy::detect().ok().map(Arc::new),
            clients: HashMap::new(),
            starting: HashMap::new(),
            children: HashMap::new(),
            containers: HashMap::new(),
            execs: HashMap::new(),
            holders: HashMap::new(),
            kept: None,
            stopping: false,
            buffer: vec![0; 64 << 10],
        };
        let (listener, signals) = (supervisor.token(Token::Listener), supervisor.token(Token::Signals));
        supervisor.poll.add(&supervisor.listener, listener, EventFlags::IN)?;
        supervisor.poll.add(&supervisor.signals, signals, EventFlags::IN)?;
        Ok(supervisor)
    }

    fn token(&mut self, token: Token) -> u64 {
        self.next_token += 1;
        self.tokens.insert(self.next_token, token);
        self.next_token
    }

    /// The loop. Ends only after [`protocol::Request::Shutdown`] or SIGTERM, when the last container is gone.
    fn run(&mut self) -> io::Result<()> {
        while !(self.stopping && self.containers.values().all(|container| container.exit.is_some()) && self.starting.is_empty()) {
            self.start_if_due();
            let events = self.poll.wait(self.next_start())?;
            for (key, flags) in events {
                match self.tokens.get(&key).cloned() {
                    Some(Token::Listener) => self.accept(),
                    Some(Token::Signals) => self.reap(),
                    Some(Token::Kept) => self.kept_ended(),
                    Some(Token::Client) => self.serve(key, flags),
                    Some(Token::Sync) => self.hear_child(key),
                    Some(Token::Output(id)) => self.read_output(&id, key),
                    Some(Token::Sink(id)) => self.feed_sinks(&id, flags.intersects(EventFlags::ERR | EventFlags::HUP).then_some(key)),
                    None => {} // taken out by an earlier event of this round
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let key = self.token(Token::Client);
            let ready = stream.set_nonblocking(true).and_then(|()| self.poll.add(&stream, key, EventFlags::IN));
            if ready.is_ok() {
                self.clients.insert(key, Connection::new(stream.into()));
            }
        }
    }

    fn serve(&mut self, key: u64, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush(key);
        }
        let Some(client) = self.clients.get_mut(&key) else { return };
        let (frames, gone) = client.receive().unwrap_or_else(|_| (Vec::new(), true));
        for (text, fds) in frames {
            match serde_json::from_slice(&text) {
                Ok(protocol::Envelope { seq, request }) => self.answer(Waiting { client: key, seq }, request, fds),
                Err(_) => return self.drop_client(key),
            }
        }
        if gone {
            self.drop_client(key);
        }
    }

    /// A node process is gone. Its commands go with it; its containers stay.
    fn drop_client(&mut self, key: u64) {
        if let Some(client) = self.clients.remove(&key) {
            self.poll.remove(&client).ok();
            self.tokens.remove(&key);
        }
        for exec in self.execs.values().filter(|exec| exec.client == key) {
            process::kill(exec.pid, signal::SIGKILL).ok();
        }
    }

    fn send(&mut self, key: u64, message: &Message, fds: Vec<OwnedFd>) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        if client.queue(message, fds).is_err() {
            return self.drop_client(key);
        }
        self.flush(key);
    }

    fn flush(&mut self, key: u64) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let interest = match client.flush() {
            Ok(true) => EventFlags::IN,
            Ok(false) => EventFlags::IN | EventFlags::OUT,
            Err(_) => return self.drop_client(key),
        };
        self.poll.modify(&*client, key, interest).ok();
    }

    fn reply(&mut self, to: &Waiting, result: Result<Reply, String>, fds: Vec<OwnedFd>) {
        self.send(to.client, &Message::Reply { seq: to.seq, result }, fds);
    }

    fn tell_everyone(&mut self, event: &Event) {
        for key in self.clients.keys().copied().collect::<Vec<_>>() {
            self.send(key, &Message::Event(event.clone()), Vec::new());
        }
    }

    /// Reaps every child that has ended, ours or adopted.
    fn reap(&mut self) {
        while let Ok(Some(number)) = signal::read_signal(self.signals.as_fd()) {
            // `tiphys down` and `delete`, when no node process is there to ask for it.
            if number == signal::SIGTERM && !self.stopping {
                let _ = self.shut_down();
            }
        }
        while let Ok(Some(ended)) = process::reap_any() {
            if let Some(kept) = self.kept.as_mut().filter(|kept| kept.is(ended.pid)) {
                kept.ended = Some(ended.status);
            }
            // A child that has ended has said all it had to say about its start.
            let still_starting = self.starting.iter().find(|(_, starting)| starting.pid == ended.pid).map(|(key, _)| *key);
            if let Some(key) = still_starting {
                self.hear_child(key);
            }
            match self.children.remove(&ended.pid) {
                Some(Child::Container(id)) => self.container_ended(&id, ended.status.exit_code()),
                Some(Child::Exec(id)) => {
                    self.execs.remove(&id);
                    self.tell_everyone(&Event::ExecExited { exec_id: id, code: ended.status.exit_code() });
                }
                Some(Child::Sandbox(id)) => {
                    self.holders.remove(&id);
                }
                None => {}
            }
        }
    }

    fn container_ended(&mut self, id: &str, code: i32) {
        let Some(mut container) = self.containers.remove(id) else { return };
        let finished_at = time::realtime_nanos();
        let group = self.cgroup(&container.cgroup);
        if let Some(group) = group.as_ref().filter(|_| container.kill_rest) {
            group.kill_all().ok();
        }
        let oom_killed = code != 0 && group.is_some_and(|group| group.oom_kills() > 0);
        self.drain(&mut container);
        container.stdin = None;
        container.terminal = None;
        container.log = None;
        let exit = Exit { code, started_at: container.started_at, finished_at, oom_killed };
        container.exit = Some(exit);
        self.persist(id, &exit);
        self.containers.insert(id.to_owned(), container);
        self.feed_sinks(id, None);
        self.tell_everyone(&Event::Exited { id: id.to_owned(), exit });
    }

    /// Takes what the outputs still hold, then closes them: nobody writes any more, or nobody that counts.
    fn drain(&mut self, container: &mut Container) {
        while !container.outputs.is_empty() {
            while container.read_output(0, &mut self.buffer) == ReadOutcome::More {}
            let output = container.close_output(0);
            self.poll.remove(&output.fd).ok();
            self.tokens.remove(&output.token);
        }
    }

    /// On disk at once: the exit code is the one thing about a container that nobody else can find out again.
    fn persist(&self, id: &str, exit: &Exit) {
        // One call, which a kill cannot tear; half a file would be taken for none.
        std::fs::write(self.dir.join("exits").join(id), serde_json::to_vec(exit).unwrap_or_default()).ok();
    }

    fn cgroup(&self, path: &str) -> Option<Cgroup> {
        let hierarchy = self.hierarchy.as_ref().filter(|_| !path.is_empty())?;
        Some(Cgroup::new(hierarchy.clone(), path))
    }

    fn read_output(&mut self, id: &str, key: u64) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(index) = container.outputs.iter().position(|output| output.token == key) else { return };
        for _ in 0..READS_PER_TURN {
            match container.read_output(index, &mut self.buffer) {
                ReadOutcome::More => {}
                ReadOutcome::Empty => break,
                ReadOutcome::End => {
                    let output = container.close_output(index);
                    self.poll.remove(&output.fd).ok();
                    self.tokens.remove(&key);
                    break;
                }
            }
        }
        self.feed_sinks(id, None);
    }

    /// Writes to those attached; `gone` is one that has hung up. Holds outputs back while somebody is too slow.
    fn feed_sinks(&mut self, id: &str, gone: Option<u64>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let mut at = 0;
        while at < container.sinks.len() {
            let sink = &mut container.sinks[at];
            let alive = gone != Some(sink.token) && sink.flush().is_ok();
            // Its last words said, or nobody to hear them: closing tells the listener that this was the end.
            if !alive || (sink.queue.is_empty() && container.exit.is_some()) {
                let sink = container.sinks.swap_remove(at);
                self.poll.remove(&sink.fd).ok();
                self.tokens.remove(&sink.token);
                continue;
            }
            let interest = if sink.queue.is_empty() { EventFlags::empty() } else { EventFlags::OUT };
            self.poll.modify(&sink.fd, sink.token, interest).ok();
            at += 1;
        }
        let held = container.is_held_up();
        for output in container.outputs.iter_mut().filter(|output| output.held != held) {
            output.held = held;
            let interest = if held { EventFlags::empty() } else { EventFlags::IN };
            self.poll.modify(&output.fd, output.token, interest).ok();
        }
    }
}
