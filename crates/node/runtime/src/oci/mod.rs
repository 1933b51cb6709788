//! What a container is to the kernel: the description that the supervisor carries out, and the carrying out.
//!
//! [`spec`] is the description. [`seccomp`], [`caps`] and [`users`] help to write it (in the node process);
//! [`init`], [`userns`], [`rootfs`] and [`finish`] carry it out (in the child that the supervisor forks).
//! Deliberately absent: SELinux and AppArmor, CRIU, hooks, the runc command line.

pub mod caps;
pub mod devices;
pub(crate) mod finish;
pub(crate) mod init;
pub(crate) mod rootfs;
pub mod seccomp;
pub mod spec;
pub(crate) mod userns;
pub mod users;
