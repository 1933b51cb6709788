//! Forking: what the supervisor does on its own side before a child goes its way.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use tiphys_sys::process::{self, Fork, ForkOptions};
use tiphys_sys::{fdpass, fs, ns};

use crate::oci::init::{self, Streams};
use crate::oci::spec::{Cgroup, Exec, Launch, Sandbox};

/// A child on its way to its program, and the socket on which it says what fails.
pub(super) struct Forked {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) sync: OwnedFd,
}

/// The supervisor's ends of a container's pipes.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

fn born_into(cgroup: &Cgroup) -> io::Result<Option<OwnedFd>> {
    cgroup.born_into.as_deref().map(fs::open_directory).transpose()
}

/// Forks with a socket between both sides; `child` never returns. A PID namespace to be born into comes as a descriptor.
fn fork(
    flags: i32,
    cgroup: &Cgroup,
    pid_namespace: Option<(&OwnedFd, &OwnedFd)>,
    keep: &[RawFd],
    child: impl FnOnce(OwnedFd),
) -> io::Result<Forked> {
    let (ours, theirs) = fdpass::socket_pair()?;
    let cgroup = born_into(cgroup)?;
    let options = ForkOptions { flags, cgroup: cgroup.as_ref().map(AsFd::as_fd) };
    if let Some((theirs, _)) = pid_namespace {
        // Changes only where children of this process are born.
        ns::setns(theirs.as_fd(), process::CLONE_NEWPID)?;
    }
    let forked = process::fork_single_threaded(&options);
    if let (Some((_, own)), false) = (pid_namespace, matches!(forked, Ok(Fork::Child))) {
        ns::setns(own.as_fd(), process::CLONE_NEWPID)?;
    }
    match forked? {
        Fork::Child => {
            let kept: Vec<RawFd> = keep.iter().copied().chain([theirs.as_raw_fd()]).collect();
            process::abandon_descriptors(3, &kept).ok();
            child(theirs);
            process::exit_now(1)
        }
        Fork::Parent { pid, pidfd } => {
            process::set_nonblocking(ours.as_fd(), true)?;
            Ok(Forked { pid, pidfd, sync: ours })
        }
    }
}

fn raw(streams: &Streams) -> Vec<RawFd> {
    [&streams.stdin, &streams.stdout, &streams.stderr].into_iter().flatten().map(AsRawFd::as_raw_fd).collect()
}

/// Starts a container's first process. `join` is the PID namespace to be born into, and our own to come back to.
pub(super) fn container(launch: &Launch, new_pid: bool, join: Option<(&OwnedFd, &OwnedFd)>) -> io::Result<(Forked, Ends)> {
    let (ends, streams) = if launch.process.tty { Default::default() } else { pipes(launch.stdin)? };
    // In a user namespace the PID namespace is made inside it, by the first child.
    let flags = if new_pid && launch.namespaces.user.is_none() { process::CLONE_NEWPID } else { 0 };
    let keep = raw(&streams);
    let forked = fork(flags, &launch.cgroup, join, &keep, |sync| init::container(launch, streams, sync))?;
    Ok((forked, ends))
}

fn pipes(stdin: bool) -> io::Result<(Ends, Streams)> {
    let (mut ends, mut streams) = (Ends::default(), Streams::default());
    if stdin {
        let (theirs, ours) = process::pipe()?;
        process::set_nonblocking(ours.as_fd(), true)?;
        (ends.stdin, streams.stdin) = (Some(ours), Some(theirs));
    }
    for (end, stream) in [(&mut ends.stdout, &mut streams.stdout), (&mut ends.stderr, &mut streams.stderr)] {
        let (ours, theirs) = process::pipe()?;
        process::set_nonblocking(ours.as_fd(), true)?;
        (*end, *stream) = (Some(ours), Some(theirs));
    }
    Ok((ends, streams))
}

/// Starts a command in the container whose first process is behind `init`.
pub(super) fn exec(wanted: &Exec, init: BorrowedFd<'_>, join: (&OwnedFd, &OwnedFd), streams: Streams) -> io::Result<Forked> {
    let mut keep = raw(&streams);
    keep.push(init.as_raw_fd());
    fork(0, &wanted.cgroup, Some(join), &keep, |sync| init::exec(wanted, init, streams, sync))
}

/// Starts the process that makes a pod's namespaces.
pub(super) fn sandbox(wanted: &Sandbox) -> io::Result<Forked> {
    // Only the PID namespace must be there at birth. The others take the kernel milliseconds, in which the supervisor can do other things.
    // With a user namespace it has to be born in that one.
    let flags = if wanted.shared_pid && wanted.users.is_none() { process::CLONE_NEWPID } else { 0 };
    fork(flags, &wanted.cgroup, None, &[], |sync| init::sandbox(wanted, sync))
}

/// The PID namespace of a process.
pub(super) fn pid_namespace(pid: i32) -> io::Result<OwnedFd> {
    std::fs::File::open(Path::new(&format!("/proc/{pid}/ns/pid"))).map(OwnedFd::from)
}
