//! What every process needs, nothing of Kubernetes: clock, supervised tasks, PKI, TLS, logging, metrics, the machine's names.

pub mod clock;
pub mod files;
pub mod logging;
pub mod meters;
pub mod pki;
pub mod platform;
pub mod reloading;
mod seen_files;
pub mod tasks;
pub mod threads;
pub mod tls;

pub use clock::{Clock, FakeClock, SystemClock};
pub use reloading::{Reloading, ReloadingError};
pub use seen_files::{SeenFiles, Stamps};
