//! Streams of exec, attach and port-forward: in process they are handed over directly, a remote runtime names a URL.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::Result;

pub type BoxRead = Box<dyn AsyncRead + Send + Unpin>;
pub type BoxWrite = Box<dyn AsyncWrite + Send + Unpin>;
/// Resolves to the process's exit code (128 + signal when a signal ended it); dropping it does not kill the process.
pub type ExitFuture = Pin<Box<dyn Future<Output = Result<i32>> + Send>>;

/// Both directions of one forwarded connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A terminal's size in cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// How to reach the standard streams of an exec or attach.
pub enum Stream {
    Direct(Stdio),
    Url(String),
}

/// The standard streams of a process. With a terminal, everything arrives on `stdout`.
pub struct Stdio {
    /// Shutting it down (or dropping it) closes the process's standard input.
    pub stdin: Option<BoxWrite>,
    /// End of file comes when every holder of the descriptor has closed it, normally when the process has ended.
    pub stdout: Option<BoxRead>,
    pub stderr: Option<BoxRead>,
    /// Only with a terminal.
    pub resize: Option<mpsc::UnboundedSender<TerminalSize>>,
    pub exit: ExitFuture,
}

/// How to reach a port of a pod.
pub enum PortStream {
    Direct(Box<dyn Duplex>),
    Url(String),
}
