//! What the supervisor does when asked.

use std::os::fd::{AsFd, OwnedFd};

use tiphys_sys::poll::EventFlags;
use tiphys_sys::{fdpass, process, pty, signal, time};

use super::container::{Container, Output, Sink};
use super::log::{Lines, LogFile, StreamName};
use super::protocol::{ContainerState, PROTOCOL, Reply, Request};
use super::{Child, ExecState, Starting, Supervisor, Token, Waiting, launch};
use crate::oci::init::{SAYS_ERROR, SAYS_SUCCESSOR, SAYS_TERMINAL, Streams};
use crate::oci::spec::{Exec, Launch, PidNamespace, Sandbox};

impl Supervisor {
    pub(super) fn answer(&mut self, from: Waiting, request: Request, fds: Vec<OwnedFd>) {
        let result = match request {
            // These three answer when the child has got to its program, or could not.
            Request::Sandbox(sandbox) => return self.start_sandbox(from, *sandbox),
            Request::Start(launch) => return self.start_container(from, &launch),
            Request::Exec(exec) => return self.start_exec(from, *exec, fds),
            Request::Attach { id, stdin, stdout, stderr } => return self.attach(from, &id, stdin, (stdout, stderr), fds),
            Request::Hello => Ok(Reply::Hello { protocol: PROTOCOL, pid: process::pid() }),
            Request::List => Ok(Reply::Containers { containers: self.list(), holders: self.holders.keys().cloned().collect() }),
            Request::Signal { id, signal } => self.signal(&id, signal),
            Request::KillAll { id } => self.kill_all(&id),
            Request::SignalExec { exec_id, signal } => match self.execs.get(&exec_id) {
                Some(exec) => process::kill(exec.pid, signal).map(|()| Reply::Done).map_err(|error| error.to_string()),
                None => Ok(Reply::Done),
            },
            Request::Resize { id, width, height } => self.resize(&id, width, height),
            Request::CloseStdin { id } => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.stdin = None;
                }
                Ok(Reply::Done)
            }
            Request::ReopenLog { id } => self.reopen_log(&id),
            Request::Forget { id } => self.forget(&id),
            Request::Keep(keep) => self.keep(*keep),
            Request::Shutdown => self.shut_down(),
        };
        self.reply(&from, result, Vec::new());
    }

    fn list(&self) -> Vec<ContainerState> {
        let one = |(id, container): (&String, &Container)| ContainerState {
            id: id.clone(),
            pid: container.pid,
            started_at: container.started_at,
            exit: container.exit,
        };
        self.containers.iter().map(one).collect()
    }

    fn running(&self, id: &str) -> Result<&Container, String> {
        self.containers.get(id).filter(|container| container.exit.is_none()).ok_or_else(|| format!("container {id} is not running"))
    }

    fn signal(&mut self, id: &str, number: i32) -> Result<Reply, String> {
        // Gone already is as good as signalled.
        if let Ok(container) = self.running(id) {
            process::pidfd_send_signal(container.pidfd.as_fd(), number).map_err(|error| error.to_string())?;
        }
        Ok(Reply::Done)
    }

    fn kill_all(&mut self, id: &str) -> Result<Reply, String> {
        let Some(container) = self.containers.get(id) else { return Ok(Reply::Done) };
        if container.exit.is_none() {
            process::pidfd_send_signal(container.pidfd.as_fd(), signal::SIGKILL).ok();
        }
        if let Some(group) = self.cgroup(&container.cgroup) {
            group.kill_all().ok();
        }
        Ok(Reply::Done)
    }

    fn resize(&mut self, id: &str, width: u16, height: u16) -> Result<Reply, String> {
        let terminal = self.running(id)?.terminal.as_ref().ok_or_else(|| format!("container {id} has no terminal"))?;
        pty::resize(terminal.as_fd(), width, height).map(|()| Reply::Done).map_err(|error| error.to_string())
    }

    fn reopen_log(&mut self, id: &str) -> Result<Reply, String> {
        self.running(id)?;
        let log = self.containers.get_mut(id).and_then(|container| container.log.as_mut());
        log.map_or(Ok(()), LogFile::reopen).map(|()| Reply::Done).map_err(|error| error.to_string())
    }

    fn forget(&mut self, id: &str) -> Result<Reply, String> {
        self.kill_all(id)?;
        if let Some(pid) = self.holders.remove(id) {
            process::kill(pid, signal::SIGKILL).ok();
        }
        if let Some(mut container) = self.containers.remove(id) {
            self.drain(&mut container);
            for sink in container.sinks {
                self.poll.remove(&sink.fd).ok();
                self.tokens.remove(&sink.token);
            }
        }
        std::fs::remove_file(self.dir.join("exits").join(id)).ok();
        Ok(Reply::Done)
    }

    pub(super) fn shut_down(&mut self) -> Result<Reply, String> {
        self.stopping = true;
        for id in self.containers.keys().cloned().collect::<Vec<_>>() {
            self.kill_all(&id)?;
        }
        for (_, pid) in self.holders.drain() {
            process::kill(pid, signal::SIGKILL).ok();
        }
        Ok(Reply::Done)
    }

    fn start_sandbox(&mut self, from: Waiting, sandbox: Sandbox) {
        let forked = launch::sandbox(&sandbox);
        let shared = sandbox.shared_pid;
        match forked {
            Ok(forked) => {
                if shared {
                    self.holders.insert(sandbox.id.clone(), forked.pid);
                }
                self.expect(forked.pid, forked.sync, from, Child::Sandbox(sandbox.id));
            }
            Err(error) => self.reply(&from, Err(format!("cannot fork: {error}")), Vec::new()),
        }
    }

    fn start_container(&mut self, from: Waiting, launch: &Launch) {
        if let Err(error) = self.try_start_container(&from, launch) {
            self.reply(&from, Err(error), Vec::new());
        }
    }

    fn try_start_container(&mut self, from: &Waiting, launch: &Launch) -> Result<(), String> {
        if self.containers.contains_key(&launch.id) {
            return Err(format!("container {} has been started before", launch.id));
        }
        let log = launch.log_path.as_deref().map(LogFile::open).transpose().map_err(|error| format!("cannot open the log: {error}"))?;
        let (new_pid, join) = match &launch.namespaces.pid {
            PidNamespace::New => (true, None),
            PidNamespace::Host => (false, None),
            PidNamespace::Of(id) => (false, Some(self.pid_namespace_of(id)?)),
        };
        let join = join.as_ref().map(|namespace| (namespace, &self.own_pid_namespace));
        let (forked, ends) = launch::container(launch, new_pid, join).map_err(|error| format!("cannot fork: {error}"))?;
        let mut container = Container {
            pid: forked.pid,
            pidfd: forked.pidfd,
            started_at: time::realtime_nanos(),
            exit: None,
            cgroup: launch.cgroup.path.clone(),
            kill_rest: !new_pid,
            log,
            outputs: Vec::new(),
            stdin: ends.stdin,
            terminal: None,
            sinks: Vec::new(),
        };
        for (fd, stream) in [(ends.stdout, StreamName::Stdout), (ends.stderr, StreamName::Stderr)] {
            if let Some(fd) = fd {
                self.add_output(&launch.id, &mut container, fd, stream);
            }
        }
        self.containers.insert(launch.id.clone(), container);
        let waiting = Waiting { client: from.client, seq: from.seq };
        self.expect(forked.pid, forked.sync, waiting, Child::Container(launch.id.clone()));
        Ok(())
    }

    fn add_output(&mut self, id: &str, container: &mut Container, fd: OwnedFd, stream: StreamName) {
        let token = self.token(Token::Output(id.to_owned()));
        if self.poll.add(&fd, token, EventFlags::IN).is_ok() {
            container.outputs.push(Output { token, fd, stream, lines: Lines::default(), held: false });
        }
    }

    fn pid_namespace_of(&self, id: &str) -> Result<OwnedFd, String> {
        let pid = match self.holders.get(id) {
            Some(pid) => *pid,
            None => self.running(id)?.pid,
        };
        launch::pid_namespace(pid).map_err(|error| format!("cannot open the PID namespace of {id}: {error}"))
    }

    fn start_exec(&mut self, from: Waiting, exec: Exec, fds: Vec<OwnedFd>) {
        let (client, id) = (from.client, exec.exec_id.clone());
        match self.try_start_exec(exec, fds) {
            Ok(forked) => {
                self.execs.insert(id.clone(), ExecState { pid: forked.pid, client });
                self.expect(forked.pid, forked.sync, from, Child::Exec(id));
            }
            Err(error) => self.reply(&from, Err(error), Vec::new()),
        }
    }

    fn try_start_exec(&mut self, exec: Exec, fds: Vec<OwnedFd>) -> Result<launch::Forked, String> {
        let container = self.running(&exec.container)?;
        let namespace =
            launch::pid_namespace(container.pid).map_err(|error| format!("cannot open the container's PID namespace: {error}"))?;
        let mut fds = fds.into_iter();
        let streams = Streams { stdin: fds.next(), stdout: fds.next(), stderr: fds.next() };
        let join = (&namespace, &self.own_pid_namespace);
        launch::exec(&exec, container.pidfd.as_fd(), join, streams).map_err(|error| format!("cannot fork: {error}"))
    }

    /// A child is on its way; its socket says when it has got there.
    fn expect(&mut self, pid: i32, sync: OwnedFd, waiting: Waiting, what: Child) {
        self.children.insert(pid, what.clone());
        let key = self.token(Token::Sync);
        // Without the poll set its end is still seen when it is reaped.
        self.poll.add(&sync, key, EventFlags::IN).ok();
        self.starting.insert(key, Starting { pid, sync, waiting, what, error: Vec::new(), failed: false, terminal: None, successor: None });
    }

    /// A starting child says something, or (by closing its socket) that it has become its program.
    pub(super) fn hear_child(&mut self, key: u64) {
        let Some(starting) = self.starting.get_mut(&key) else { return };
        let (mut buffer, mut fds) = ([0; 4096], Vec::new());
        loop {
            match fdpass::receive(starting.sync.as_fd(), &mut buffer, &mut fds) {
                Ok(0) => break,
                Ok(count) => hear(starting, &buffer[..count], &mut fds),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return self.follow_successor(key),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.follow_successor(key);
        if let Some(starting) = self.starting.remove(&key) {
            self.poll.remove(&starting.sync).ok();
            self.tokens.remove(&key);
            self.child_is_ready(starting);
        }
    }

    /// In a user namespace the first child is only the parent of the one that counts.
    fn follow_successor(&mut self, key: u64) {
        let Some(starting) = self.starting.get_mut(&key) else { return };
        let Some(pidfd) = starting.successor.take() else { return };
        // Without a number it has ended and been reaped already, which its first child's end will tell.
        let Ok(pid) = process::pid_behind(pidfd.as_fd()) else { return };
        let before = std::mem::replace(&mut starting.pid, pid);
        let what = starting.what.clone();
        self.children.remove(&before);
        match &what {
            Child::Container(id) => {
                if let Some(container) = self.containers.get_mut(id) {
                    (container.pid, container.pidfd) = (pid, pidfd);
                }
            }
            Child::Sandbox(id) => drop(self.holders.insert(id.clone(), pid)),
            Child::Exec(_) => {}
        }
        self.children.insert(pid, what);
    }

    fn child_is_ready(&mut self, starting: Starting) {
        if starting.failed {
            self.child_failed(&starting);
            let text = String::from_utf8_lossy(&starting.error).into_owned();
            return self.reply(&starting.waiting, Err(text), Vec::new());
        }
        let (pid, terminal) = (starting.pid, starting.terminal);
        let mut fds = Vec::new();
        match (&starting.what, terminal) {
            (Child::Container(id), Some(terminal)) => self.keep_terminal(id, terminal),
            (Child::Exec(_), Some(terminal)) => fds.push(terminal),
            _ => {}
        }
        self.reply(&starting.waiting, Ok(Reply::Started { pid }), fds);
    }

    /// It never became its program, so it never was: only the reaping is left.
    fn child_failed(&mut self, starting: &Starting) {
        self.children.remove(&starting.pid);
        match &starting.what {
            Child::Container(id) => {
                if let Some(mut container) = self.containers.remove(id) {
                    self.drain(&mut container);
                }
            }
            Child::Exec(id) => drop(self.execs.remove(id)),
            Child::Sandbox(id) => drop(self.holders.remove(id)),
        }
    }

    fn keep_terminal(&mut self, id: &str, terminal: OwnedFd) {
        let Some(mut container) = self.containers.remove(id) else { return };
        process::set_nonblocking(terminal.as_fd(), true).ok();
        if let Ok(copy) = terminal.try_clone() {
            self.add_output(id, &mut container, copy, StreamName::Stdout);
        }
        container.terminal = Some(terminal);
        self.containers.insert(id.to_owned(), container);
    }

    fn attach(&mut self, from: Waiting, id: &str, stdin: bool, (stdout, stderr): (bool, bool), fds: Vec<OwnedFd>) {
        let input = match self.running(id) {
            Ok(container) => container.terminal.as_ref().or(container.stdin.as_ref()).filter(|_| stdin).and_then(|fd| fd.try_clone().ok()),
            Err(error) => return self.reply(&from, Err(error), Vec::new()),
        };
        let wanted = [(stdout, StreamName::Stdout), (stderr, StreamName::Stderr)];
        for ((_, stream), fd) in wanted.into_iter().filter(|(on, _)| *on).zip(fds) {
            let token = self.token(Token::Sink(id.to_owned()));
            let ready = process::set_nonblocking(fd.as_fd(), true).and_then(|()| self.poll.add(&fd, token, EventFlags::empty()));
            if let (Ok(()), Some(container)) = (ready, self.containers.get_mut(id)) {
                container.sinks.push(Sink { token, fd, stream, queue: Default::default() });
            }
        }
        self.reply(&from, Ok(Reply::Done), input.into_iter().collect());
    }
}

/// Sorts a child's words: letters that come with a descriptor stand alone, an error goes on to the end.
fn hear(starting: &mut Starting, bytes: &[u8], fds: &mut Vec<OwnedFd>) {
    let mut next = || if fds.is_empty() { None } else { Some(fds.remove(0)) };
    for &byte in bytes {
        match byte {
            _ if starting.failed => starting.error.push(byte),
            SAYS_ERROR => starting.failed = true,
            SAYS_TERMINAL => starting.terminal = next(),
            SAYS_SUCCESSOR => starting.successor = next(),
            _ => {}
        }
    }
}
