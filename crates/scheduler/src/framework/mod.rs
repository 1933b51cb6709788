//! What plugins stand on: pods and nodes with their sums made once, snapshots, the queue, and the cycle as pure functions.

pub mod cache;
pub mod cycle;
pub mod cycle_state;
pub mod node_info;
pub mod plugin;
pub mod pod_info;
pub mod profile;
pub mod queue;
pub mod resources;
pub mod snapshot;
pub mod unfit;

pub use cycle_state::CycleState;
pub use node_info::NodeInfo;
pub use plugin::{ClusterEvent, Code, Plugin, Point, PreFiltered, Refusal};
pub use pod_info::{AffinityTerm, PodInfo};
pub use profile::Profile;
pub use resources::Resources;
pub use snapshot::Snapshot;
pub use unfit::Unfit;
