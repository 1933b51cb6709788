//! User namespaces of pods (`hostUsers: false`, KEP-127): root inside is nobody outside.
//!
//! A namespace owns those that are made inside it, so the pod's network, IPC and UTS namespaces are born with the user namespace,
//! and so is each container's PID namespace. What takes the host's root (maps, pins, detached copies of mounts with mapped owners,
//! cgroups) is done by a first child that stays outside; it then joins and forks the one that becomes the program, as a
//! child of the supervisor (CLONE_PARENT), and hands its descriptor over.
//! Deliberately absent: volumes on file systems without ID-mapped mounts (their mount fails, as upstream's does).

use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use tiphys_sys::process::{self, Fork, ForkOptions};
use tiphys_sys::{creds, fdpass, fs, mount, ns, signal};

use super::init::{self, Step, Streams, Sync, doing};
use super::rootfs::{self, Sources};
use super::spec::{Launch, PidNamespace, Sandbox, Users};
use super::{finish, spec};

/// The socket's other side is there no more.
const GONE: &str = "the process that makes the namespaces ended";

fn maps(of: &[(u32, u32, u32)]) -> Vec<ns::IdMap> {
    of.iter().map(|&(inside, outside, count)| ns::IdMap { inside, outside, count }).collect()
}

/// Makes a pod's namespaces inside a new user namespace and pins them.
pub(super) fn set_up_sandbox(sandbox: &Sandbox, users: &Users, sync: &Sync) -> Step<()> {
    let (ours, theirs) = doing("cannot make a socket", fdpass::socket_pair())?;
    let flags = process::CLONE_NEWUSER
        | process::CLONE_NEWNET
        | process::CLONE_NEWIPC
        | process::CLONE_NEWUTS
        // The one that holds the pod's PID namespace stays, so it must be the supervisor's child.
        | if sandbox.shared_pid { process::CLONE_NEWPID | process::CLONE_PARENT } else { 0 };
    let forked = process::fork_single_threaded(&ForkOptions { flags, cgroup: None });
    let (pid, pidfd) = match doing("cannot make a user namespace", forked)? {
        Fork::Parent { pid, pidfd } => (pid, pidfd),
        Fork::Child => {
            drop(ours);
            be_inside(sandbox, theirs)
        }
    };
    drop(theirs);
    let made = map_and_pin(sandbox, users, pid, &ours);
    let handed_over = made.and_then(|()| match sandbox.shared_pid {
        true => doing("cannot hand over the process", sync.successor(pidfd.as_fd())),
        false => Ok(()),
    });
    if handed_over.is_err() {
        process::pidfd_send_signal(pidfd.as_fd(), signal::SIGKILL).ok();
    }
    handed_over
}

fn map_and_pin(sandbox: &Sandbox, users: &Users, pid: i32, ours: &OwnedFd) -> Step<()> {
    doing("cannot map users", ns::write_id_maps(pid, &maps(&users.uids), &maps(&users.gids)))?;
    doing(GONE, fdpass::send(ours.as_fd(), b"go", &[]))?;
    hear(ours)?;
    for (kind, path) in
        [("user", Some(&users.path)), ("net", sandbox.net.as_ref()), ("ipc", sandbox.ipc.as_ref()), ("uts", sandbox.uts.as_ref())]
    {
        if let Some(path) = path {
            doing(format_args!("cannot pin the {kind} namespace"), pin(pid, kind, path))?;
        }
    }
    if let Some((path, size)) = &sandbox.shm {
        let root = |of: &[(u32, u32, u32)]| of.iter().find(|map| map.0 == 0).map_or(0, |map| map.1);
        let options = format!("mode=1777,size={size},uid={},gid={}", root(&users.uids), root(&users.gids));
        let flags = mount::MS_NOSUID | mount::MS_NODEV | mount::MS_NOEXEC;
        doing("cannot mount /dev/shm", mount::mount("shm", path, "tmpfs", flags, &options))?;
    }
    Ok(())
}

fn pin(pid: i32, kind: &str, path: &Path) -> std::io::Result<()> {
    File::create(path)?;
    mount::bind(Path::new(&format!("/proc/{pid}/ns/{kind}")), path, false)
}

/// What the one inside says: nothing but `ok`, or why not.
fn hear(socket: &OwnedFd) -> Step<()> {
    let (mut buffer, mut fds) = ([0; 1024], Vec::new());
    let count = doing(GONE, fdpass::receive(socket.as_fd(), &mut buffer, &mut fds))?;
    match &buffer[..count] {
        b"ok" => Ok(()),
        b"" => Err(GONE.into()),
        text => Err(String::from_utf8_lossy(text).into_owned()),
    }
}

/// Inside: waits to be mapped, sets the namespaces up, and ends when nobody listens any more; or holds the PID namespace.
fn be_inside(sandbox: &Sandbox, socket: OwnedFd) -> ! {
    let (mut buffer, mut fds) = ([0; 2], Vec::new());
    if !matches!(fdpass::receive(socket.as_fd(), &mut buffer, &mut fds), Ok(2)) {
        process::exit_now(1);
    }
    let done = doing("cannot become root inside", creds::become_user(0, 0, &[])).and_then(|()| init::set_up_namespaces(sandbox));
    let answer = done.as_ref().map_or_else(|error| error.as_bytes(), |()| b"ok");
    fdpass::send(socket.as_fd(), answer, &[]).ok();
    if done.is_ok() && sandbox.shared_pid {
        drop(socket);
        init::pause();
    }
    fdpass::receive(socket.as_fd(), &mut buffer, &mut fds).ok();
    process::exit_now(0)
}

/// The first child of a container: takes from the host what only the host's root may, then forks the one that becomes the program.
pub(super) fn run_container(launch: &Launch, user: &Path, streams: Streams, sync: &Sync) -> Step<Infallible> {
    give_away(&streams, launch.outside);
    let namespace: OwnedFd = doing("cannot open the pod's user namespace", File::open(user))?.into();
    let sources = rootfs::copy_sources(launch, Some(namespace.as_fd()))?;
    let root = doing(format_args!("cannot copy {}", launch.rootfs.display()), mount::open_tree(&launch.rootfs, true))?;
    // The node's folder may be shared with others; a root that is cannot be pivoted to.
    doing("cannot make the root private", mount::make_private_at(root.as_fd()))?;
    let joined = init::open_namespaces(&launch.namespaces)?;
    doing("cannot join the pod's user namespace", ns::setns(namespace.as_fd(), process::CLONE_NEWUSER))?;
    drop(namespace);
    let new_pid = if launch.namespaces.pid == PidNamespace::New { process::CLONE_NEWPID } else { 0 };
    let (theirs, ours) = doing("cannot make a pipe", process::pipe())?;
    let forked = process::fork_single_threaded(&ForkOptions { flags: process::CLONE_PARENT | new_pid, cgroup: None });
    if let Fork::Parent { pidfd, .. } = doing("cannot fork into the user namespace", forked)? {
        doing("cannot hand over the process", sync.successor(pidfd.as_fd()))?;
        process::write(ours.as_fd(), &[1]).ok();
        process::exit_now(0)
    }
    // Not a word before the supervisor has been told who is speaking.
    drop(ours);
    if !matches!(process::read(theirs.as_fd(), &mut [0]), Ok(1)) {
        process::exit_now(1);
    }
    drop(theirs);
    doing("cannot become root inside", creds::become_user(0, 0, &[]))?;
    doing("cannot make a mount namespace", ns::unshare(process::CLONE_NEWNS))?;
    init::join_all(joined, &launch.namespaces)?;
    process::umask(0);
    rootfs::build_inside(launch, root, sources)?;
    finish::finish(&launch.process, streams, sync, finish::First::Yes)
}

/// The program may open /dev/stdout again under its own name, so its pipes belong to it, as the host sees it.
pub(super) fn give_away(streams: &Streams, owner: Option<(u32, u32)>) {
    let Some((uid, gid)) = owner else { return };
    for stream in [&streams.stdin, &streams.stdout, &streams.stderr].into_iter().flatten() {
        // /dev/null and other devices are not ours to give.
        if matches!(fs::device_behind(stream), Ok(None)) {
            fs::chown_fd(stream, uid, gid).ok();
        }
    }
}

/// What device files a container in a user namespace gets: those of the host, since it may make none.
pub(super) fn device_sources(devices: &[spec::DeviceNode]) -> Sources {
    let one = |node: &spec::DeviceNode| mount::open_tree(Path::new(&node.path), false).ok();
    devices.iter().map(one).collect()
}
