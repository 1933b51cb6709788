//! The core group.

pub(crate) mod config_map;
pub(crate) mod endpoints;
pub(crate) mod event;
mod limit_range;
mod namespace;
pub(crate) mod node;
mod persistent_volume;
pub(crate) mod persistent_volume_claim;
pub(crate) mod pod;
mod pod_template;
mod replication_controller;
pub(crate) mod resource_list;
mod resource_quota;
mod secret;
pub(crate) mod service;
mod service_account;
mod volume_source;

use crate::resources::Entry;

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("configmaps", &config_map::STRATEGY),
    Entry::new("endpoints", &endpoints::STRATEGY),
    Entry::new("events", &event::STRATEGY),
    Entry::new("limitranges", &limit_range::STRATEGY),
    Entry::new("namespaces", &namespace::STRATEGY),
    Entry::new("nodes", &node::STRATEGY),
    Entry::new("persistentvolumeclaims", &persistent_volume_claim::STRATEGY),
    Entry::new("persistentvolumes", &persistent_volume::STRATEGY),
    Entry::new("pods", &pod::STRATEGY),
    Entry::new("podtemplates", &pod_template::STRATEGY),
    Entry::new("replicationcontrollers", &replication_controller::STRATEGY),
    Entry::new("resourcequotas", &resource_quota::STRATEGY),
    Entry::new("secrets", &secret::STRATEGY),
    Entry::new("serviceaccounts", &service_account::STRATEGY),
    Entry::new("services", &service::STRATEGY),
];
