//! The last steps of a child, the same for a container's first process and for an exec: terminal, limits, identity, program.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tiphys_sys::caps::{self, CapSet};
use tiphys_sys::{creds, fs, mount, process, pty, seccomp, signal};

use super::init::{Step, Streams, Sync, doing, words};
use super::seccomp::unpack;
use super::spec::Process;

/// Whether this is the container's first process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Yes,
    No,
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn finish(wanted: &Process, streams: Streams, sync: &Sync, first: First) -> Step<Infallible> {
    doing("cannot start a session", process::setsid())?;
    if wanted.tty {
        doing("cannot set up the terminal", open_terminal(wanted, sync, first))?;
    } else {
        doing("cannot set up the standard streams", use_streams(wanted, streams))?;
    }
    doing("cannot close descriptors", process::close_on_exec_from(3))?;
    // Not every kernel has keys, and a namespace may have used up its quota: then the parent's keyring stays in force.
    process::new_session_keyring().ok();
    for (name, soft, hard) in &wanted.rlimits {
        let resource = process::rlimit_by_name(name).ok_or_else(|| format!("unknown resource limit {name:?}"))?;
        doing(format_args!("cannot set {name}"), process::set_rlimit(resource, *soft, *hard))?;
    }
    if wanted.no_new_privs {
        doing("cannot set no_new_privs", process::set_no_new_privs())?;
    } else {
        // Without no_new_privs loading a filter takes CAP_SYS_ADMIN, which is about to be given up.
        load_filter(wanted)?;
    }
    become_user(wanted)?;
    let program = find_program(wanted)?;
    if wanted.no_new_privs {
        load_filter(wanted)?;
    }
    process::umask(0o022);
    signal::reset_all();
    start(wanted, &program)
}

fn open_terminal(wanted: &Process, sync: &Sync, first: First) -> io::Result<()> {
    let (master, path) = pty::open(Path::new("/dev/pts"))?;
    let slave = pty::open_slave(&path)?;
    if first == First::Yes {
        // In a container that sees the host's /dev this may be refused; then it has no console, and its terminal all the same.
        let console = Path::new("/dev/console");
        let made = std::fs::File::options().create(true).append(true).open(console);
        made.and_then(|_| mount::bind(&path, console, false)).ok();
    }
    sync.terminal(master.as_fd())?;
    drop(master);
    fs::chown_fd(&slave, wanted.uid, 5).or_else(|_| fs::chown_fd(&slave, wanted.uid, wanted.gid))?;
    pty::make_controlling(slave.as_fd())?;
    (0..3).try_for_each(|target| process::dup_to(slave.as_fd(), target))
}

fn use_streams(wanted: &Process, streams: Streams) -> io::Result<()> {
    let mut all = [streams.stdin, streams.stdout, streams.stderr];
    for stream in all.iter_mut().flatten() {
        if fs::device_behind(&*stream)? == Some(NULL) {
            // The host's /dev/null is not to be handed in: who is root could change its mode.
            own_null()?.into_iter().for_each(|null| *stream = null);
        } else {
            // The program may open /dev/stdout again under its own name; pipes belong to whoever made them until given away.
            fs::chown_fd(&*stream, wanted.uid, wanted.gid).ok();
        }
    }
    // Away from 0 to 2 first, so that no move overwrites a stream that is still to be moved.
    let high: Vec<Option<OwnedFd>> = all.into_iter().map(move_up).collect::<io::Result<_>>()?;
    for (target, stream) in high.iter().enumerate() {
        if let Some(stream) = stream {
            process::dup_to(stream.as_fd(), target as i32)?;
        }
    }
    Ok(())
}

const NULL: (char, u32, u32) = ('c', 1, 3);

/// The container's own /dev/null, if it is one.
fn own_null() -> io::Result<Option<OwnedFd>> {
    let Ok(file) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return Ok(None) };
    Ok((fs::device_behind(&file)? == Some(NULL)).then(|| file.into()))
}

fn move_up(stream: Option<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    use std::os::fd::AsRawFd;
    // try_clone gives the lowest free number from 3 upward (F_DUPFD_CLOEXEC with 3).
    stream.map(|stream| if stream.as_raw_fd() < 3 { stream.try_clone() } else { Ok(stream) }).transpose()
}

fn load_filter(wanted: &Process) -> Step<()> {
    if wanted.seccomp.is_empty() {
        return Ok(());
    }
    doing("cannot load the seccomp filter", seccomp::load(&unpack(&wanted.seccomp), wanted.seccomp_flags))
}

fn become_user(wanted: &Process) -> Step<()> {
    let (all, ambient) = (CapSet(wanted.capabilities), CapSet(wanted.ambient));
    // What the supervisor itself lacks cannot be given away.
    let all = all.and(caps::bounding());
    doing("cannot limit capabilities", caps::limit_bounding(all))?;
    let early = std::env::set_current_dir(&wanted.cwd);
    doing("cannot keep capabilities", caps::keep_over_setuid(true))?;
    let switched = creds::become_user(wanted.uid, wanted.gid, &wanted.groups);
    doing(format_args!("cannot become user {}:{}", wanted.uid, wanted.gid), switched)?;
    doing("cannot settle capabilities", caps::keep_over_setuid(false))?;
    let ambient = ambient.and(all);
    doing("cannot set capabilities", caps::set(all, all, ambient))?;
    doing("cannot set ambient capabilities", caps::set_ambient(ambient))?;
    // A folder on a network file system may be closed to root and open to the user.
    let there = early.or_else(|_| std::env::set_current_dir(&wanted.cwd));
    there.map_err(|error| format!("chdir to cwd ({:?}) set in config.json failed: {}", wanted.cwd, words(&error)))
}

/// Finds the program as execvp and Go's LookPath do, with the errors in Go's words, which people and tests look for.
fn find_program(wanted: &Process) -> Step<PathBuf> {
    let name = wanted.args.first().ok_or("no command specified")?;
    let quoted = |reason: &str| format!("exec: {name:?}: {reason}");
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(quoted(&format!("stat {name}: no such file or directory"))),
            Err(error) => Err(quoted(&words(&error))),
        };
    }
    let path = wanted.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let found = path.split(':').map(|folder| Path::new(if folder.is_empty() { "." } else { folder }).join(name));
    let mut found = found.filter(|candidate| executable(candidate).is_ok());
    found.next().ok_or_else(|| quoted("executable file not found in $PATH"))
}

fn executable(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    Ok(())
}

fn start(wanted: &Process, program: &Path) -> Step<Infallible> {
    let strings = |list: &[String]| list.iter().map(|item| CString::new(item.as_str())).collect::<Result<Vec<_>, _>>();
    let args = doing("an argument contains a NUL byte", strings(&wanted.args))?;
    let env = doing("an environment variable contains a NUL byte", strings(&wanted.env))?;
    let error = process::execve(program, &args, &env);
    Err(format!("exec {}: {}", program.display(), words(&error)))
}
