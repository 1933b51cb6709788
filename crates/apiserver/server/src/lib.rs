//! The one door: whoever wants something of the cluster asks here, over TLS or in process, and passes the same chain.
//!
//! `chain` is the table of contents. Objects are the registry's; this crate knows who asks, whether they may, and how streams reach nodes.
//!
//! Deliberately absent: webhook authenticators.

mod admission_config;
mod aggregate;
mod audit;
pub mod authenticate;
pub mod authorize;
mod body;
mod bootstrap;
pub mod chain;
mod component_statuses;
mod compress;
pub mod config;
mod config_file;
mod crew;
mod documents;
mod errors;
pub mod flags;
mod flow;
mod gather;
mod identity;
mod in_process;
mod lease;
mod listener;
mod metrics;
pub mod objects;
pub mod policy;
pub mod request_info;
mod resource_metrics;
mod reviews;
mod rooms;
mod server;
mod stages;
mod streams;
pub mod tokens;
mod turns;
mod watched_file;
mod webhooks;
mod wire;

pub use body::{Body, BoxError};
pub use config::Config;
pub use documents::version::GIT_VERSION;
pub use in_process::Clients;
pub use server::{Running, Server, StartError};
pub use tiphys_registry::{Encryption, UserInfo};
