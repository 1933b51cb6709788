//! Every syscall of the node, behind safe functions: the only crate with `unsafe` code.
//!
//! What `rustix` offers safely is used through it; the rest goes to `libc`. Nothing here knows containers or Kubernetes.
//! Deliberately absent: async (callers own their loops), CRIU, SELinux, architectures other than x86_64 and aarch64.
#![allow(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod allocator;
pub mod bpf;
pub mod caps;
pub mod creds;
pub mod fdpass;
pub mod fs;
pub mod mount;
pub mod ns;
pub mod poll;
pub mod proc;
pub mod process;
pub mod pty;
pub mod seccomp;
pub mod signal;
pub mod time;
pub mod watch;

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The path as a C string; a NUL byte inside is the caller's mistake and comes back as EINVAL.
fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn c_str(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Turns the -1 convention of libc into a result.
fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

fn check_long(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}
