//! `flowcontrol.apiserver.k8s.io`.

use crate::resources::Entry;
use crate::strategy::Strategy;

static FLOW: Strategy = Strategy::new(false).spec_generation().status("{}").create_on_update().unconditional_update(false);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("flowschemas", &FLOW), Entry::new("prioritylevelconfigurations", &FLOW)];
