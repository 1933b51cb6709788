//! Typed views of the built-in kinds, and the pure rules that several sides of the house share.
//!
//! k8s-openapi stands behind this crate alone. It ignores fields that it does not know, so it never stands in the storage path.

pub use k8s_openapi::api;
pub use k8s_openapi::apiextensions_apiserver;
pub use k8s_openapi::apimachinery;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;
pub use k8s_openapi::jiff;
pub use k8s_openapi::kube_aggregator;
pub use k8s_openapi::{ByteString, ClusterResourceScope, Metadata, NamespaceResourceScope, Resource};

pub mod node_affinity;
pub mod owners;
pub mod pods;
pub mod qos;
pub mod quota;
pub mod resources;
pub mod rollout;
pub mod selector;
pub mod services;
pub mod taints;
