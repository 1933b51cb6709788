//! The scheduler: finds a node for every pod that has none, and binds it there.
//!
//! `framework/` is the ground (queue, cache, the cycle as pure functions), `plugins/` the rules, one folder each, and this level the driver: it
//! feeds cache and queue from the informers, runs one cycle after another, and binds beside them. Deciding is single-threaded; with the pods and
//! nodes summed in advance a cycle over a hundred nodes is a fraction of a millisecond, most of what a pod waits for is the binding's write.
//!
//! Absent: profiles beside the default one, extenders, KubeSchedulerConfiguration files, permit plugins that wait.

mod driver;
mod failure;
mod feed;
pub mod framework;
pub mod plugins;

pub use driver::{Config, Running, Scheduler};
