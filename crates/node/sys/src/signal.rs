//! Signals by name, masks, and signals as a descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::check;

pub use libc::{SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

const NAMES: [(&str, i32); 38] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGPOLL),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
    ("UNUSED", libc::SIGSYS),
    ("EMT", libc::SIGSYS),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

/// The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `RTMINPLUS3`, `SIGRTMAX-2` or `RTMAXMINUS2`.
pub fn by_name(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    for (prefix, base, sign) in [("RTMIN", 34, 1), ("RTMAX", 64, -1)] {
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        let offset = rest.trim_start_matches("PLUS").trim_start_matches("MINUS").trim_start_matches(['+', '-']);
        let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
        let number = base + sign * offset;
        return (34..=64).contains(&number).then_some(number);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigset_t is plain data; sigemptyset makes it valid and sigaddset only sets bits of it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Blocks signals for this thread and gives a descriptor from which they are read.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = set_of(signals);
    // SAFETY: set is valid; the old mask is not asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) })?;
    // SAFETY: set is valid; -1 asks for a new descriptor.
    let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes one pending signal from a signal descriptor.
pub fn read_signal(fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    // SAFETY: signalfd_siginfo is plain data for which zeroes are valid.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer is as long as said.
    let count = unsafe { libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size) };
    if count < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    }
    Ok(Some(info.ssi_signo as i32))
}

/// Puts every signal back to its default and unblocks all: what a new program expects.
pub fn reset_all() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is always a valid handler; for SIGKILL and SIGSTOP the call fails harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    unblock_all();
}

/// Blocks none. Children inherit what their parent had blocked (since Rust 1.66 through std's `Command` too), and would not hear SIGTERM.
pub fn unblock_all() {
    let empty = set_of(&[]);
    // SAFETY: empty is a valid set; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut()) };
}

/// Waits for one of these signals, which must be blocked.
pub fn wait_one(signals: &[i32]) -> io::Result<i32> {
    let set = set_of(signals);
    // SAFETY: set is valid; no details are asked for.
    check(unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) })
}

pub fn block(signals: &[i32]) -> io::Result<()> {
    let set = set_of(signals);
    // SAFETY: set is valid; the old mask is not asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::by_name;

    #[test]
    fn signals_by_name() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("SIGRTMAX-2", 62),
            ("SIGRTMINPLUS1", 35),
            ("SIGRTMAXMINUS14", 50),
        ] {
            assert_eq!(by_name(text), Some(number), "{text}");
        }
        for text in ["", "SIGFOO", "0", "65", "SIGRTMIN+40"] {
            assert_eq!(by_name(text), None, "{text}");
        }
    }
}
