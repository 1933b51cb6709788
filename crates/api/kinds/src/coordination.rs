//! `coordination.k8s.io`.

use crate::resources::Entry;
use crate::strategy::Strategy;

static LEASE: Strategy = Strategy::new(true).create_on_update().unconditional_update(false);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("leases", &LEASE), Entry::new("leasecandidates", &LEASE)];
