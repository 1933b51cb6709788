//! The first steps of a forked child: into its cgroup and namespaces, then on to the root file system and the program.
//!
//! Everything here runs in a child of the single-threaded supervisor that shares nothing with it any more but descriptors.
//! The child talks back over one socket that closes by itself when the program starts: silence is success.

use std::convert::Infallible;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use tiphys_sys::{creds, fdpass, mount, ns, process, signal};

use super::finish;
use super::spec::{Cgroup, Exec, Launch, Namespaces, Process, Sandbox};
use super::{rootfs, userns};

/// Messages of a child: one letter, then text.
pub(crate) const SAYS_ERROR: u8 = b'E';
/// Comes with the master side of its terminal.
pub(crate) const SAYS_TERMINAL: u8 = b'T';
/// Comes with the descriptor of the process that goes on in its place.
pub(crate) const SAYS_SUCCESSOR: u8 = b'S';

/// Why a child could not become what it should, in words for people.
pub(super) type Step<T> = Result<T, String>;

/// Puts what was tried before what went wrong.
pub(super) fn doing<T, E: Display>(what: impl Display, result: Result<T, E>) -> Step<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// The system's words for an error number, as Go and runc print them: `no such file or directory`.
pub(super) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// The standard streams of a program without a terminal; None is /dev/null.
#[derive(Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// The child's end of the socket to the supervisor.
pub(super) struct Sync(OwnedFd);

impl Sync {
    fn error(&self, text: &str) {
        let message = [&[SAYS_ERROR], text.as_bytes()].concat();
        fdpass::send(self.0.as_fd(), &message, &[]).ok();
    }

    pub(super) fn successor(&self, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        fdpass::send(self.0.as_fd(), &[SAYS_SUCCESSOR], &[pidfd]).map(drop)
    }

    pub(super) fn terminal(&self, master: BorrowedFd<'_>) -> io::Result<()> {
        fdpass::send(self.0.as_fd(), &[SAYS_TERMINAL], &[master]).map(drop)
    }
}

fn end(sync: &Sync, outcome: Step<Infallible>) -> ! {
    let Err(text) = outcome;
    sync.error(&text);
    process::exit_now(1)
}

/// Becomes a container's first process.
pub(crate) fn container(launch: &Launch, streams: Streams, sync: OwnedFd) -> ! {
    let sync = Sync(sync);
    let outcome = run_container(launch, streams, &sync);
    end(&sync, outcome)
}

fn run_container(launch: &Launch, streams: Streams, sync: &Sync) -> Step<Infallible> {
    let streams = with_null(streams)?;
    enter_cgroup(&launch.cgroup)?;
    set_oom_score(&launch.process);
    if let Some(user) = &launch.namespaces.user {
        return userns::run_container(launch, user, streams, sync);
    }
    doing("cannot make a mount namespace", ns::unshare(process::CLONE_NEWNS))?;
    join_all(open_namespaces(&launch.namespaces)?, &launch.namespaces)?;
    process::umask(0);
    rootfs::build(launch)?;
    finish::finish(&launch.process, streams, sync, finish::First::Yes)
}

/// The pod's namespaces that a container shares.
pub(super) fn open_namespaces(names: &Namespaces) -> Step<Vec<File>> {
    let shared = [("network", &names.net), ("IPC", &names.ipc), ("UTS", &names.uts)];
    let open = |(what, path): (&str, &Option<PathBuf>)| {
        path.as_ref().map(|path| doing(format_args!("cannot open the pod's {what} namespace"), File::open(path)))
    };
    shared.into_iter().filter_map(open).collect()
}

pub(super) fn join_all(shared: Vec<File>, names: &Namespaces) -> Step<()> {
    for namespace in shared {
        doing("cannot join a namespace of the pod", ns::setns(namespace.as_fd(), 0))?;
    }
    if names.cgroup {
        doing("cannot make a cgroup namespace", ns::unshare(process::CLONE_NEWCGROUP))?;
    }
    Ok(())
}

/// Joins a running container.
pub(crate) fn exec(exec: &Exec, init: BorrowedFd<'_>, streams: Streams, sync: OwnedFd) -> ! {
    let sync = Sync(sync);
    let outcome = run_exec(exec, init, streams, &sync);
    end(&sync, outcome)
}

fn run_exec(exec: &Exec, init: BorrowedFd<'_>, streams: Streams, sync: &Sync) -> Step<Infallible> {
    let streams = with_null(streams)?;
    enter_cgroup(&exec.cgroup)?;
    set_oom_score(&exec.process);
    userns::give_away(&streams, exec.outside);
    let user = if exec.outside.is_some() { process::CLONE_NEWUSER } else { 0 };
    let all =
        user | process::CLONE_NEWNS | process::CLONE_NEWNET | process::CLONE_NEWIPC | process::CLONE_NEWUTS | process::CLONE_NEWCGROUP;
    doing("cannot join the container's namespaces", ns::setns(init, all))?;
    if exec.outside.is_some() {
        doing("cannot become root inside", creds::become_user(0, 0, &[]))?;
    }
    finish::finish(&exec.process, streams, sync, finish::First::No)
}

/// Makes the pod's namespaces and pins them, then ends, or stays as the init of a shared PID namespace, into which it was born.
pub(crate) fn sandbox(sandbox: &Sandbox, sync: OwnedFd) -> ! {
    let sync = Sync(sync);
    let made = match &sandbox.users {
        Some(users) => enter_cgroup(&sandbox.cgroup).and_then(|()| userns::set_up_sandbox(sandbox, users, &sync)),
        None => set_up_sandbox(sandbox),
    };
    if let Err(text) = made {
        sync.error(&text);
        process::exit_now(1);
    }
    if !sandbox.shared_pid || sandbox.users.is_some() {
        process::exit_now(0);
    }
    drop(sync);
    pause()
}

fn set_up_sandbox(sandbox: &Sandbox) -> Step<()> {
    enter_cgroup(&sandbox.cgroup)?;
    let flag = |path: &Option<PathBuf>, flag| if path.is_some() { flag } else { 0 };
    let flags =
        flag(&sandbox.net, process::CLONE_NEWNET) | flag(&sandbox.ipc, process::CLONE_NEWIPC) | flag(&sandbox.uts, process::CLONE_NEWUTS);
    doing("cannot make the pod's namespaces", ns::unshare(flags))?;
    for (kind, path) in [("net", &sandbox.net), ("ipc", &sandbox.ipc), ("uts", &sandbox.uts)] {
        if let Some(path) = path {
            doing(format_args!("cannot pin the {kind} namespace"), pin(kind, path))?;
        }
    }
    set_up_namespaces(sandbox)?;
    if let Some((path, size)) = &sandbox.shm {
        let flags = mount::MS_NOSUID | mount::MS_NODEV | mount::MS_NOEXEC;
        doing("cannot mount /dev/shm", mount::mount("shm", path, "tmpfs", flags, &format!("mode=1777,size={size}")))?;
    }
    Ok(())
}

/// What is set inside the pod's namespaces once they are there.
pub(super) fn set_up_namespaces(sandbox: &Sandbox) -> Step<()> {
    if sandbox.uts.is_some() {
        doing("cannot set the host name", process::sethostname(&sandbox.hostname))?;
    }
    if sandbox.net.is_some() {
        doing("cannot bring up the loopback interface", process::interface_up("lo"))?;
    }
    for (name, value) in &sandbox.sysctls {
        doing(format_args!("cannot set sysctl {name}"), ns::write_sysctl(name, value))?;
    }
    Ok(())
}

fn pin(kind: &str, path: &Path) -> io::Result<()> {
    File::create(path)?;
    mount::bind(Path::new(&format!("/proc/self/ns/{kind}")), path, false)
}

/// Holds a PID namespace: reaps what is orphaned in it until told to end.
pub(super) fn pause() -> ! {
    process::set_dumpable(false).ok();
    process::set_name("pause").ok();
    process::setsid().ok();
    process::abandon_descriptors(0, &[]).ok();
    let awaited = [signal::SIGCHLD, signal::SIGTERM, signal::SIGINT];
    signal::block(&awaited).ok();
    loop {
        match signal::wait_one(&awaited) {
            Ok(signal::SIGCHLD) => while let Ok(Some(_)) = process::reap_any() {},
            Ok(_) => process::exit_now(0),
            Err(_) => {}
        }
    }
}

/// The first steps of every child: not readable to anyone, and among its own in the cgroups (version 2: born there).
fn enter_cgroup(cgroup: &Cgroup) -> Step<()> {
    doing("cannot hide the process", process::set_dumpable(false))?;
    for tasks in &cgroup.tasks {
        doing(format_args!("cannot join cgroup {}", tasks.display()), std::fs::write(tasks, "0"))?;
    }
    Ok(())
}

/// Without CAP_SYS_RESOURCE nobody may go below the own value: then as low as allowed, which is no reason to fail.
fn set_oom_score(process: &Process) {
    const FILE: &str = "/proc/self/oom_score_adj";
    if let Some(wanted) = process.oom_score_adj {
        let wanted = wanted.clamp(-1000, 1000);
        // The value in force is the only one certainly allowed; it is what stays when the write is refused.
        std::fs::write(FILE, wanted.to_string()).ok();
    }
}

fn with_null(streams: Streams) -> Step<Streams> {
    let null = |stream: Option<OwnedFd>| match stream {
        Some(stream) => Ok(stream),
        None => File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from),
    };
    let open = || -> io::Result<Streams> {
        Ok(Streams { stdin: Some(null(streams.stdin)?), stdout: Some(null(streams.stdout)?), stderr: Some(null(streams.stderr)?) })
    };
    doing("cannot open /dev/null", open())
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn errors_sound_as_they_do_in_go() {
        assert_eq!(words(&std::io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(words(&std::io::Error::from_raw_os_error(13)), "permission denied");
        assert_eq!(words(&std::io::Error::from_raw_os_error(8)), "exec format error");
    }
}
