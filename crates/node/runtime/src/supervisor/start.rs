//! Becoming the supervisor: arguments, one per folder, out of everybody's reach.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tiphys_sys::{mount, process, signal};

use super::Supervisor;

/// Where the supervisor of this folder listens.
pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join("supervisor.sock")
}

/// The same place by a path that fits into a socket address (107 bytes), however deep the folder is. The descriptor holds it valid.
pub(crate) fn short_socket_path(dir: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let folder = tiphys_sys::fs::open_directory(dir)?;
    let path = socket_path(&mount::fd_path(&folder));
    Ok((folder, path))
}

/// Connects to the supervisor of a folder.
pub(crate) fn connect(dir: &Path) -> io::Result<UnixStream> {
    let (_folder, path) = short_socket_path(dir)?;
    UnixStream::connect(path)
}

/// `tiphys supervisor --dir DIR [--name NAME]`: runs until told to end. Prints `ready` when it listens.
/// A second one for the same folder ends at once, successfully: the first is there.
pub fn supervisor_main(args: &[String]) -> i32 {
    match run(args) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("supervisor: {error}");
            1
        }
    }
}

fn run(args: &[String]) -> io::Result<()> {
    let dir = option(args, "--dir").ok_or_else(|| io::Error::other("--dir is missing"))?;
    let dir = Path::new(dir);
    std::fs::create_dir_all(dir)?;
    run_from_readonly_mount();
    // Held while starting up: who comes second waits here, and finds the first one listening.
    let starting = File::create(dir.join("supervisor.starting"))?;
    starting.lock()?;
    let lock = File::create(dir.join("supervisor.lock"))?;
    if lock.try_lock().is_err() {
        return say_ready();
    }
    detach(option(args, "--name").unwrap_or("node"))?;
    let mut supervisor = Supervisor::new(dir)?;
    std::fs::write(dir.join("supervisor.pid"), process::pid().to_string())?;
    drop(starting);
    say_ready()?;
    let_go_of_standard_streams(dir)?;
    supervisor.run()?;
    std::fs::remove_file(socket_path(dir)).ok();
    drop(lock);
    Ok(())
}

/// Whoever asked may have gone meanwhile, which is no reason not to serve the next.
fn say_ready() -> io::Result<()> {
    use std::io::Write;
    writeln!(io::stdout(), "ready").ok();
    Ok(())
}

fn option<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let next = args.iter().position(|arg| arg == name).and_then(|index| args.get(index + 1));
    next.map(String::as_str).or_else(|| args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('=')))
}

/// A container that gets hold of `/proc/PID/exe` of a child between fork and execve must not be able to overwrite the
/// program with it (CVE-2019-5736). So the supervisor runs from a read-only mount of its own file. Failing is no reason to stop.
fn run_from_readonly_mount() {
    let exe = Path::new("/proc/self/exe");
    let readonly = tiphys_sys::fs::is_readonly(exe).unwrap_or(true);
    if readonly {
        return;
    }
    let Ok(tree) = mount::open_tree(exe, false) else { return };
    if mount::set_attributes_at(tree.as_fd(), mount::ATTR_RDONLY, false).is_err() {
        return;
    }
    let strings = |list: Vec<std::ffi::OsString>| -> Vec<CString> {
        list.into_iter().filter_map(|item| CString::new(std::os::unix::ffi::OsStringExt::into_vec(item)).ok()).collect()
    };
    let env = std::env::vars_os().map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    });
    process::fexecve(tree.as_fd(), &strings(std::env::args_os().collect()), &strings(env.collect()));
}

/// Out of the terminal's and the session's reach, parent of all orphans, last to be killed for memory.
fn detach(name: &str) -> io::Result<()> {
    process::setsid().ok(); // fails for a process group's leader, which is as detached already
    process::become_subreaper()?;
    process::set_name(&format!("tiphys-sup:{name}").chars().take(15).collect::<String>())?;
    signal::block(&[signal::SIGHUP, signal::SIGINT, signal::SIGTERM, signal::SIGQUIT, signal::SIGPIPE, signal::SIGUSR1, signal::SIGUSR2])?;
    std::fs::write("/proc/self/oom_score_adj", "-999").ok();
    if let Some(resource) = process::rlimit_by_name("NOFILE") {
        let (_, hard) = process::get_rlimit(resource)?;
        process::set_rlimit(resource, hard, hard)?;
    }
    std::env::set_current_dir("/")
}

/// Whoever started the supervisor must not wait for the end of a pipe that it holds.
fn let_go_of_standard_streams(dir: &Path) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let log = File::options().create(true).append(true).open(dir.join("supervisor.log"))?;
    process::dup_to(null.as_fd(), 0)?;
    process::dup_to(null.as_fd(), 1)?;
    process::dup_to(log.as_fd(), 2)
}

#[cfg(test)]
mod tests {
    use super::option;

    #[test]
    fn both_spellings_of_options() {
        let args: Vec<String> = ["supervisor", "--name", "a", "--dir=/x"].map(str::to_owned).to_vec();
        assert_eq!((option(&args, "--name"), option(&args, "--dir"), option(&args, "--none")), (Some("a"), Some("/x"), None));
    }
}
