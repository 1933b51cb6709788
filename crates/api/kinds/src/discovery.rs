//! `discovery.k8s.io`.

use crate::resources::Entry;
use crate::strategy::{Generation, Strategy};

static SLICE: Strategy = Strategy::new(true).generation(Generation::Fields(&["endpoints", "ports", "addressType"]));

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("endpointslices", &SLICE)];
