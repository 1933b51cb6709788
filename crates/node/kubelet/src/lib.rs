//! The node agent: makes the pods that the API binds to this node run, and tells how they are.
//!
//! Everything is told, nothing is asked for in a loop: pods by a watch, containers by the runtime's events, files by inotify.
//! The deciding parts (`pod/plan.rs`, `pod/status.rs`, environment, DNS, cgroup numbers, payloads) are pure functions.
//! Containers are reached through the CRI only, and live on when this stops.
//!
//! Deliberately absent: CSI and other attachable volumes, device plugins and DRA, CPU and memory managers, swap,
//! user namespaces, checkpoints, graceful node shutdown.

mod admission;
mod agent;
mod backoff;
pub mod certificates;
mod cgroups;
mod changes;
mod config;
mod dns;
mod env;
mod events;
mod expand;
#[cfg(test)]
mod fake;
mod field;
pub mod flags;
mod gc;
mod hooks;
mod hosts;
mod images;
mod keyring;
mod kubelet;
#[cfg(test)]
mod life;
mod logs;
mod metrics;
mod names;
mod node;
mod objects;
mod pod;
mod probe;
mod resources;
mod security;
mod server;
mod static_pods;
mod tokens;
mod users;
mod volumes;

pub use config::Config;
pub use kubelet::{Kubelet, Running, StartError};
