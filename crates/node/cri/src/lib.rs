//! The Container Runtime Interface, v1: its messages as plain structs and its two services as async traits.
//!
//! The kubelet speaks these traits and nothing else; the embedded runtime implements them directly, an external
//! runtime can implement them by a gRPC client. Names and meanings are `runtime.v1`'s (k8s.io/cri-api), in Rust's case.
//!
//! Deliberately absent: Windows, the streaming list variants (`StreamContainers` and so on: a plain list has no
//! message size limit in process), checkpointing, metric descriptors, CDI devices, SELinux.

mod error;
mod messages;
mod service;
mod stream;

pub use error::{CriError, Result};
pub use messages::*;
pub use service::{AttachRequest, ExecRequest, ImageService, RuntimeService};
pub use stream::{BoxRead, BoxWrite, Duplex, ExitFuture, PortStream, Stdio, Stream, TerminalSize};
