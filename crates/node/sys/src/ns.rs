//! Namespaces: leaving, joining, mapping users.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use crate::check;

/// Moves the calling thread (the process, if it has one) into new namespaces.
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: namespace flags only; CLONE_FILES and CLONE_VM are not among what callers pass, and would only fail.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Moves the calling thread into the namespace behind a descriptor; `kind` 0 accepts any.
pub fn setns(fd: BorrowedFd<'_>, kind: i32) -> io::Result<()> {
    // SAFETY: setns takes two integers.
    check(unsafe { libc::setns(fd.as_raw_fd(), kind) }).map(drop)
}

/// Runs `work` on a thread of its own inside the network namespace at `path`, and gives back what it returns.
/// Sockets that it opens keep belonging to that namespace.
pub fn in_network_namespace<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    use std::os::fd::AsFd;
    let namespace = File::open(path)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(namespace.as_fd(), libc::CLONE_NEWNET)?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the network namespace panicked")))
    })
}

/// One line of /proc/PID/uid_map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// Writes the maps of a fresh user namespace, from outside it.
pub fn write_id_maps(pid: i32, uids: &[IdMap], gids: &[IdMap]) -> io::Result<()> {
    let render = |maps: &[IdMap]| maps.iter().map(|map| format!("{} {} {}\n", map.inside, map.outside, map.count)).collect::<String>();
    std::fs::write(format!("/proc/{pid}/uid_map"), render(uids))?;
    std::fs::write(format!("/proc/{pid}/gid_map"), render(gids))
}

/// Sets a kernel parameter by its dotted or slashed name, in the namespaces of the caller.
pub fn write_sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    if path.split('/').any(|part| part == "..") {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    std::fs::write(format!("/proc/sys/{path}"), value)
}
