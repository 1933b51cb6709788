//! `apiregistration.k8s.io`.

use crate::resources::Entry;
use crate::strategy::Strategy;

static API_SERVICE: Strategy = Strategy::new(false).status("{}").unconditional_update(false);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("apiservices", &API_SERVICE)];
