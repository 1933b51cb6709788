//! Loading seccomp filters. Compiling them is the runtime's part.

use std::io;

use crate::check_long;

/// One classic BPF instruction, as the kernel reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

pub const FLAG_LOG: u32 = 2;
pub const FLAG_SPEC_ALLOW: u32 = 4;

/// Confines the calling thread from here on. Needs CAP_SYS_ADMIN in its user namespace or no_new_privs.
pub fn load(filter: &[Instruction], flags: u32) -> io::Result<()> {
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = Program { len, filter: filter.as_ptr() };
    // SAFETY: program describes one live slice; the kernel copies and checks it.
    check_long(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) }).map(drop)
}
