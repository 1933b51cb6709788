//! Seccomp profiles: reading them, the default one, and compiling them to BPF.
//!
//! Deliberately absent: notification (SCMP_ACT_NOTIFY needs an agent that nobody names), architectures besides x86_64 and i386.

mod compile;
mod default;
mod profile;
mod syscalls;

pub use compile::compile;
pub use default::default_profile;
pub use profile::{Action, Arch, Argument, Operator, Profile, Rule};

use tiphys_sys::seccomp::Instruction;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SeccompError {
    #[error("cannot read the seccomp profile: {0}")]
    Syntax(String),
    #[error("seccomp action {0} is not supported")]
    Action(String),
    #[error("a seccomp filter condition names argument {0}; there are six")]
    Argument(u32),
    #[error("the seccomp filter would have {0} instructions; the kernel takes 4096")]
    TooLong(usize),
}

/// An instruction as one number, for the way to the supervisor.
pub fn pack(program: &[Instruction]) -> Vec<u64> {
    program.iter().map(|one| u64::from(one.code) << 48 | u64::from(one.jt) << 40 | u64::from(one.jf) << 32 | u64::from(one.k)).collect()
}

pub(crate) fn unpack(packed: &[u64]) -> Vec<Instruction> {
    let one =
        |number: &u64| Instruction { code: (number >> 48) as u16, jt: (number >> 40) as u8, jf: (number >> 32) as u8, k: *number as u32 };
    packed.iter().map(one).collect()
}
