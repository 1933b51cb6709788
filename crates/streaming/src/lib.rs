//! The server side of the streaming protocols of Kubernetes: exec and attach (remotecommand), port-forward, and log
//! streaming, over WebSocket channels and over SPDY/3.1 (raw, or tunnelled inside a WebSocket, KEP-4006).
//!
//! Each entry point looks at a request, answers it with a response to send (101, or the refusal), and a future that
//! becomes the session once hyper has handed over the connection.
//!
//! Deliberately absent: the client side, and any knowledge of pods and containers.

pub mod logs;
pub mod portforward;
pub mod query;
pub mod remotecommand;
pub mod spdy;
mod stream;
mod tunnel;
pub mod upgrade;
mod websocket;

pub use stream::{Input, Output, StreamClosed};
pub use upgrade::{Refusal, StreamError, Upgrade};
