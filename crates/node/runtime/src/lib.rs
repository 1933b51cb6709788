//! The embedded container runtime.
//!
//! [`supervisor`] is the small process that is the parent of all containers; [`oci`] is what it does in their name;
pub mod oci;
mod supervisor;

pub use supervisor::{socket_path, supervisor_main};
