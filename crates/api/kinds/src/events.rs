//! `events.k8s.io`: the same objects as `v1` Events under newer field names.

use crate::resources::Entry;
use crate::strategy::Strategy;

static EVENT: Strategy = Strategy::new(true).create_on_update();

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("events", &EVENT)];
