//! `scheduling.k8s.io`.

use crate::resources::Entry;
use crate::strategy::{Generation, Strategy};

static PRIORITY_CLASS: Strategy = Strategy::new(false).generation(Generation::When(|_, _| false));
static POD_GROUP: Strategy = Strategy::new(true).status("{}");
static WORKLOAD: Strategy = Strategy::new(true);

pub(crate) const RESOURCES: &[Entry] =
    &[Entry::new("podgroups", &POD_GROUP), Entry::new("priorityclasses", &PRIORITY_CLASS), Entry::new("workloads", &WORKLOAD)];
