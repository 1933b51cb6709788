//! `apps`: what keeps sets of pods.

mod controller_revision;
mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;

use crate::resources::Entry;

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("controllerrevisions", &controller_revision::STRATEGY),
    Entry::new("daemonsets", &daemon_set::STRATEGY),
    Entry::new("deployments", &deployment::STRATEGY),
    Entry::new("replicasets", &replica_set::STRATEGY),
    Entry::new("statefulsets", &stateful_set::STRATEGY),
];
