//! `apps`.

use crate::resources::Entry;
use crate::strategy::{Generation, Strategy};

static CONTROLLER_REVISION: Strategy = Strategy::new(true);
static DAEMON_SET: Strategy = Strategy::new(true)
    .spec_generation()
    .status(r#"{"currentNumberScheduled":0,"desiredNumberScheduled":0,"numberMisscheduled":0,"numberReady":0}"#);
static DEPLOYMENT: Strategy = Strategy::new(true)
    // Annotations move it too: upstream counts rollout annotations as part of what is wanted.
    .generation(Generation::When(|new, old| new.get("spec") != old.get("spec") || annotations(new) != annotations(old)))
    .status("{}");
static REPLICA_SET: Strategy = Strategy::new(true).spec_generation().status(r#"{"replicas":0}"#);
static STATEFUL_SET: Strategy = Strategy::new(true).spec_generation().status(r#"{"availableReplicas":0,"replicas":0}"#);

fn annotations(o: &serde_json::Value) -> Option<&serde_json::Value> {
    crate::tree::at(o, "metadata.annotations")
}

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("controllerrevisions", &CONTROLLER_REVISION),
    Entry::new("daemonsets", &DAEMON_SET),
    Entry::new("deployments", &DEPLOYMENT),
    Entry::new("replicasets", &REPLICA_SET),
    Entry::new("statefulsets", &STATEFUL_SET),
];
