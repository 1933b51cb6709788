//! Commands in containers, attaching, forwarding ports.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tiphys_cri::{AttachRequest, CriError, ExecRequest, ExecSyncResponse, PortStream, Result, Stdio, TerminalSize};
use tiphys_sys::{process, pty, signal};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot, watch};

use super::state::{ContainerRecord, new_id};
use super::{Runtime, blocking};
use crate::oci::spec::{Cgroup, Exec, Process};
use crate::streams::{FdStream, NotifyingInput, OutputStream};
use crate::supervisor::protocol::Request;

/// What a command may say before the rest is thrown away (CVE-2022-1708).
const MAX_OUTPUT: u64 = 16 << 20;

/// Our ends of a command's streams.
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Runtime {
    /// Starts a command; the answer becomes its exit code, and brings the terminal if there is one.
    async fn start_exec(&self, exec: Exec, fds: Vec<OwnedFd>) -> Result<(watch::Receiver<Option<i32>>, Option<OwnedFd>)> {
        let id = exec.exec_id.clone();
        let sender = watch::Sender::new(None);
        let receiver = sender.subscribe();
        // Before the call: the command may end before its start is confirmed.
        self.execs.lock().insert(id.clone(), sender);
        match self.call_with(Request::Exec(Box::new(exec)), fds).await {
            Ok((_, mut fds)) => Ok((receiver, fds.pop())),
            Err(error) => {
                self.execs.lock().remove(&id);
                Err(match error {
                    CriError::Internal(reason) => CriError::Internal(format!(
                        "failed to exec in container: failed to start exec {id:?}: OCI runtime exec failed: exec failed: \
                         unable to start container process: {reason}"
                    )),
                    other => other,
                })
            }
        }
    }

    pub(super) fn exec_exited(&self, exec_id: &str, code: i32) {
        if let Some(sender) = self.execs.lock().remove(exec_id) {
            sender.send_replace(Some(code));
        }
    }

    /// The process of an exec: the container's own, with another command.
    fn exec_process(record: &ContainerRecord, command: &[String], tty: bool) -> Result<Process> {
        if command.is_empty() {
            return Err(CriError::InvalidArgument("no command specified".into()));
        }
        let mut process = record.launch.process.clone();
        process.args = command.to_vec();
        process.tty = tty;
        if tty && !process.env.iter().any(|entry| entry.starts_with("TERM=")) {
            process.env.push("TERM=xterm".into());
        }
        Ok(process)
    }

    pub(super) async fn exec_sync(self: &Arc<Self>, id: &str, command: &[String], timeout: Duration) -> Result<ExecSyncResponse> {
        let record = self.running_container(id)?;
        let (fds, ends) = pipes(false, true, true)?;
        let (exec_id, cgroup) = self.exec_group(&record, !timeout.is_zero()).await?;
        let exec = Exec {
            exec_id: exec_id.clone(),
            container: id.into(),
            process: Self::exec_process(&record, command, false)?,
            cgroup,
            outside: record.launch.outside,
        };
        let group = exec.cgroup.path.clone();
        let own_group = group != record.launch.cgroup.path;
        let (mut code, _) = self.start_exec(exec, fds).await?;
        let ended = code.clone();
        let collect = async {
            let (stdout, stderr) = tokio::join!(collect(ends.stdout, ended.clone()), collect(ends.stderr, ended));
            let code = code.wait_for(Option::is_some).await.ok().and_then(|code| *code);
            let exit_code = code.ok_or_else(|| CriError::Unavailable("the container supervisor went away".into()))?;
            Ok(ExecSyncResponse { stdout: stdout?, stderr: stderr?, exit_code })
        };
        if timeout.is_zero() {
            return collect.await;
        }
        let result = tokio::time::timeout(timeout, collect).await;
        if result.is_err() {
            self.call(Request::SignalExec { exec_id, signal: signal::SIGKILL }).await.ok();
            if own_group {
                let group = self.group(&group);
                // Its children too: a probe that hangs again and again must not fill the container.
                blocking(move || group.kill_all().map_err(CriError::internal)).await.ok();
            }
        } else if own_group {
            let group = self.group(&group);
            blocking(move || {
                group.remove_if_empty();
                Ok(())
            })
            .await
            .ok();
        }
        result.unwrap_or_else(|_| {
            Err(CriError::DeadlineExceeded(format!("failed to exec in container: timeout {timeout:?} exceeded: context deadline exceeded")))
        })
    }

    /// A command with a deadline gets a group of its own below the container's in version 2's tree, so that all of it can be killed.
    async fn exec_group(&self, record: &ContainerRecord, own: bool) -> Result<(String, Cgroup)> {
        let exec_id = new_id()?;
        let mut cgroup = record.launch.cgroup.clone();
        if own && let Some(born_into) = &cgroup.born_into {
            let name = format!("exec-{}", &exec_id[..16]);
            let folder = born_into.join(&name);
            blocking({
                let folder = folder.clone();
                move || Ok(std::fs::create_dir(&folder)?)
            })
            .await?;
            cgroup.born_into = Some(folder);
            cgroup.path = format!("{}/{name}", cgroup.path);
        }
        Ok((exec_id, cgroup))
    }

    pub(super) async fn exec_streams(self: &Arc<Self>, request: ExecRequest) -> Result<Stdio> {
        let record = self.running_container(&request.container_id)?;
        let process = Self::exec_process(&record, &request.cmd, request.tty)?;
        let exec = Exec {
            exec_id: new_id()?,
            container: request.container_id.clone(),
            process,
            cgroup: record.launch.cgroup.clone(),
            outside: record.launch.outside,
        };
        let (fds, ends) = if request.tty {
            (Vec::new(), None)
        } else {
            pipes(request.stdin, request.stdout, request.stderr).map(|(fds, ends)| (fds, Some(ends)))?
        };
        let (code, terminal) = self.start_exec(exec, fds).await?;
        let (stdin, stdout, stderr, resize) = match (ends, terminal) {
            (Some(ends), _) => (stream(ends.stdin)?, stream(ends.stdout)?, stream(ends.stderr)?, None),
            (None, Some(terminal)) => {
                let resize = resizer(terminal.try_clone()?);
                let both = FdStream::new(terminal)?;
                (request.stdin.then(|| both.clone()), request.stdout.then_some(both), None, Some(resize))
            }
            (None, None) => return Err(CriError::Internal("the supervisor sent no terminal".into())),
        };
        let output = |stream: Option<FdStream>| {
            stream.map(|stream| Box::new(OutputStream::new(stream, has_ended(code.clone()))) as tiphys_cri::BoxRead)
        };
        Ok(Stdio {
            stdin: stdin.map(|stream| Box::new(stream) as tiphys_cri::BoxWrite),
            stdout: output(stdout),
            stderr: output(stderr),
            resize,
            exit: Box::pin(exit_code(code)),
        })
    }

    pub(super) async fn attach_streams(self: &Arc<Self>, request: AttachRequest) -> Result<Stdio> {
        let record = self.running_container(&request.container_id)?;
        let (id, tty) = (request.container_id.clone(), record.config.tty);
        let stderr = request.stderr && !tty;
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for on in [request.stdout, stderr] {
            let pipe = on.then(process::pipe).transpose()?;
            let (read, write) = pipe.map_or((None, None), |(read, write)| (Some(read), Some(write)));
            ours.push(read);
            theirs.extend(write);
        }
        let attach = Request::Attach { id: id.clone(), stdin: request.stdin && record.config.stdin, stdout: request.stdout, stderr };
        let (_, mut fds) = self.call_with(attach, theirs).await?;
        let (detaching, detached) = watch::channel(false);
        let stdin = fds.pop().map(FdStream::new).transpose()?.map(|stream| self.attached_input(&record, stream, detaching));
        let stderr = ours.pop().flatten();
        let stdout = ours.pop().flatten();
        let boxed = |fd: Option<OwnedFd>| -> Result<Option<tiphys_cri::BoxRead>> {
            let until = has_detached(detached.clone());
            Ok(stream(fd)?.map(|stream| Box::new(OutputStream::new(stream, until)) as tiphys_cri::BoxRead))
        };
        let (end, detached) = (self.clone().end_of(id.clone()), has_detached(detached.clone()));
        Ok(Stdio {
            stdin,
            stdout: boxed(stdout)?,
            stderr: boxed(stderr)?,
            resize: tty.then(|| self.container_resizer(id)),
            exit: Box::pin(async move {
                tokio::select! {
                    code = end => code,
                    () = detached => Ok(0),
                }
            }),
        })
    }

    /// Where a container asked for one client (`stdinOnce`), the end of what that one sends is the end of its standard input. Otherwise
    /// it is the end of the client's visit: the container waits for the next one.
    fn attached_input(self: &Arc<Self>, record: &ContainerRecord, input: FdStream, detaching: watch::Sender<bool>) -> tiphys_cri::BoxWrite {
        let ends_input = record.config.stdin_once && !record.config.tty;
        let (sender, closed) = oneshot::channel();
        let (runtime, id) = (self.clone(), record.id.clone());
        tokio::spawn(async move {
            // Closed in good order or dropped with its connection: both are the end.
            closed.await.ok();
            if ends_input {
                runtime.call(Request::CloseStdin { id }).await.ok();
                // The outputs stay until the container ends.
                detaching.closed().await;
            } else {
                detaching.send(true).ok();
            }
        });
        Box::new(NotifyingInput::new(input, sender))
    }

    fn container_resizer(self: &Arc<Self>, id: String) -> mpsc::UnboundedSender<TerminalSize> {
        let (sender, mut sizes) = mpsc::unbounded_channel::<TerminalSize>();
        let runtime = self.clone();
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                runtime.call(Request::Resize { id: id.clone(), width: size.width, height: size.height }).await.ok();
            }
        });
        sender
    }

    async fn end_of(self: Arc<Self>, id: String) -> Result<i32> {
        if let Some(mut ended) = self.watch_end(&id) {
            ended.wait_for(|ended| *ended).await.ok();
        }
        Ok(self.container(&id)?.status().exit_code)
    }

    pub(super) async fn connect_port(&self, sandbox_id: &str, port: u16) -> Result<PortStream> {
        let sandbox = self.sandbox(sandbox_id)?;
        if !sandbox.ready {
            return Err(CriError::FailedPrecondition(format!("sandbox container {sandbox_id:?} is not running")));
        }
        let connect = move || {
            let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
            std::net::TcpStream::connect(v4).or_else(|first| std::net::TcpStream::connect(v6).map_err(|_| first))
        };
        let stream = blocking(move || {
            let stream = match &sandbox.net {
                Some(path) => tiphys_sys::ns::in_network_namespace(path, connect),
                None => connect(),
            };
            let stream = stream.map_err(|error| {
                CriError::Internal(format!("failed to connect to localhost:{port} inside namespace {:?}: {error}", sandbox.id))
            })?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        })
        .await?;
        Ok(PortStream::Direct(Box::new(tokio::net::TcpStream::from_std(stream)?)))
    }
}

/// (the command's ends, our ends). A stream that nobody wants is /dev/null.
fn pipes(stdin: bool, stdout: bool, stderr: bool) -> Result<(Vec<OwnedFd>, Ends)> {
    let null = || std::fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let mut theirs = Vec::new();
    let mut ends = Ends { stdin: None, stdout: None, stderr: None };
    for (on, input, end) in [(stdin, true, &mut ends.stdin), (stdout, false, &mut ends.stdout), (stderr, false, &mut ends.stderr)] {
        if !on {
            theirs.push(null()?);
            continue;
        }
        let (read, write) = process::pipe()?;
        let (their, our) = if input { (read, write) } else { (write, read) };
        theirs.push(their);
        *end = Some(our);
    }
    Ok((theirs, ends))
}

fn stream(fd: Option<OwnedFd>) -> Result<Option<FdStream>> {
    Ok(fd.map(FdStream::new).transpose()?)
}

async fn has_ended(mut code: watch::Receiver<Option<i32>>) {
    code.wait_for(Option::is_some).await.ok();
}

/// Never, where nobody is there to detach.
async fn has_detached(mut detached: watch::Receiver<bool>) {
    if detached.wait_for(|detached| *detached).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn exit_code(mut code: watch::Receiver<Option<i32>>) -> Result<i32> {
    let code = code.wait_for(Option::is_some).await.ok().and_then(|code| *code);
    code.ok_or_else(|| CriError::Unavailable("the container supervisor went away".into()))
}

/// Reads one output until the command has ended; keeps at most [`MAX_OUTPUT`], reads on and forgets the rest.
async fn collect(fd: Option<OwnedFd>, code: watch::Receiver<Option<i32>>) -> Result<Vec<u8>> {
    let Some(fd) = fd else { return Ok(Vec::new()) };
    let mut output = OutputStream::new(FdStream::new(fd)?, has_ended(code));
    let mut bytes = Vec::new();
    (&mut output).take(MAX_OUTPUT).read_to_end(&mut bytes).await?;
    tokio::io::copy(&mut output, &mut tokio::io::sink()).await?;
    Ok(bytes)
}

fn resizer(terminal: OwnedFd) -> mpsc::UnboundedSender<TerminalSize> {
    let (sender, mut sizes) = mpsc::unbounded_channel::<TerminalSize>();
    tokio::spawn(async move {
        use std::os::fd::AsFd;
        while let Some(size) = sizes.recv().await {
            pty::resize(terminal.as_fd(), size.width, size.height).ok();
        }
    });
    sender
}
