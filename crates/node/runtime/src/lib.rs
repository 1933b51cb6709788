//! The embedded container runtime: the CRI without a daemon of its own.
//!
//! Two processes share the work. The supervisor ([`supervisor_main`]) is small, has one thread and no async runtime; it is the
//! parent of all containers and outlives everything else. [`EmbeddedRuntime`] lives in the node process, decides, and can be
//! killed and restarted at any time. Between them stands a description of each container ([`oci::spec`]).
//! Deliberately absent: the API server and the kubelet's policy; shims and runc; user namespaces for pods.

mod client;
mod embedded;
mod images;
mod network;
pub mod oci;
mod streams;
mod supervisor;

pub use client::{Registered, SupervisorCommand, ensure_supervisor};
pub use embedded::{EmbeddedRuntime, RuntimeConfig, supervisor_dir};
pub use images::{ContainerImage, ContainerImages, ImageConfig};
pub use network::{LoopbackOnly, PodNetwork, PodNetworkRequest};
pub use supervisor::keep::Keep;
pub use supervisor::{socket_path, supervisor_main};
