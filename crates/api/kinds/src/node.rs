//! `node.k8s.io`.

use crate::resources::Entry;
use crate::strategy::Strategy;

static RUNTIME_CLASS: Strategy = Strategy::new(false).create_on_update().unconditional_update(false);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("runtimeclasses", &RUNTIME_CLASS)];
