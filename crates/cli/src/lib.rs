//! The commands that make, show and remove clusters. What a component does stands in the component; this crate knows where a cluster's
//! files are, which certificates it has, which processes are its own, and how to say what went wrong.

pub mod cluster;
pub mod delete;
pub mod doctor;
pub mod flags;

pub mod kubeconfig;
pub mod pki;
pub mod processes;
pub mod progress;
pub mod status;

pub use cluster::{Cluster, Layout};
pub use pki::ClusterPki;
pub use progress::Progress;
