//! Terminals.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::check;

/// A new terminal from this devpts instance: the master, and the path of the other side.
pub fn open(devpts: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open(devpts.join("ptmx"), flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN stores one unsigned int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    Ok((master, devpts.join(number.to_string())))
}

/// Opens the other side of a terminal.
pub fn open_slave(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes it the controlling terminal of the calling session leader.
pub fn make_controlling(terminal: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

pub fn resize(terminal: BorrowedFd<'_>, width: u16, height: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
