//! Capabilities by name, and the five sets of a process.

use std::io;

use crate::{check, check_long};

/// All names in the order of their numbers, without `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSet(pub u64);

impl CapSet {
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// `net_admin`, `NET_ADMIN` and `CAP_NET_ADMIN` are the same.
    pub fn by_name(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES.iter().position(|known| *known == bare).map(|index| Self(1 << index))
    }

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What this process may hold at most: the bounding set.
pub fn bounding() -> CapSet {
    let mut set = 0;
    for index in 0..NAMES.len() as u64 {
        // SAFETY: PR_CAPBSET_READ takes an integer; an unknown one is an error, read as "not held".
        if unsafe { libc::prctl(libc::PR_CAPBSET_READ, index, 0u64, 0u64, 0u64) } == 1 {
            set |= 1 << index;
        }
    }
    CapSet(set)
}

/// Drops everything outside `keep` from the bounding set.
pub fn limit_bounding(keep: CapSet) -> io::Result<()> {
    for index in 0..64u64 {
        if index < NAMES.len() as u64 && keep.0 & (1 << index) != 0 {
            continue;
        }
        // SAFETY: PR_CAPBSET_DROP takes an integer.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, index, 0u64, 0u64, 0u64) }) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break, // beyond the kernel's last capability
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets effective, permitted and inheritable of the calling thread.
pub fn set(effective: CapSet, permitted: CapSet, inheritable: CapSet) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (effective.0 >> shift) as u32,
        permitted: (permitted.0 >> shift) as u32,
        inheritable: (inheritable.0 >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: header and the two data blocks of version 3 are live.
    check_long(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Makes the ambient set exactly `set`; its members must be permitted and inheritable.
pub fn set_ambient(set: CapSet) -> io::Result<()> {
    // SAFETY: the ambient operations take integers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0u64, 0u64, 0u64) })?;
    for index in (0..NAMES.len() as u64).filter(|index| set.0 & (1 << index) != 0) {
        // SAFETY: as above.
        check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, index, 0u64, 0u64) })?;
    }
    Ok(())
}

/// Whether permitted capabilities survive a change of user.
pub fn keep_over_setuid(on: bool) -> io::Result<()> {
    // SAFETY: PR_SET_KEEPCAPS takes an integer.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, u64::from(on), 0u64, 0u64, 0u64) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_every_spelling() {
        assert_eq!(CapSet::by_name("CAP_NET_ADMIN"), Some(CapSet(1 << 12)));
        assert_eq!(CapSet::by_name("net_admin"), Some(CapSet(1 << 12)));
        assert_eq!(CapSet::by_name("CHECKPOINT_RESTORE"), Some(CapSet(1 << 40)));
        assert_eq!(CapSet::by_name("ALL"), None);
    }
}
