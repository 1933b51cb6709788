//! What every process needs, nothing of Kubernetes: clock, supervised tasks, PKI, TLS, logging, metrics.

pub mod clock;
pub mod files;
pub mod logging;
pub mod meters;
pub mod pki;
pub mod reloading;
pub mod tasks;
pub mod tls;

pub use clock::{Clock, FakeClock, SystemClock};
pub use reloading::{Reloading, ReloadingError};
