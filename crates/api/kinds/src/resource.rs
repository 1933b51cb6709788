//! `resource.k8s.io`: dynamic resource allocation.

use crate::resources::Entry;
use crate::strategy::Strategy;

static DEVICE_CLASS: Strategy = Strategy::new(false).spec_generation();
static TAINT_RULE: Strategy = Strategy::new(false).spec_generation().status("{}");
static CLAIM: Strategy = Strategy::new(true).status("{}");
static TEMPLATE: Strategy = Strategy::new(true);
static SLICE: Strategy = Strategy::new(false).spec_generation();
static POOL_STATUS: Strategy = Strategy::new(false).status("{}").unconditional_update(false);

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("deviceclasses", &DEVICE_CLASS),
    Entry::new("devicetaintrules", &TAINT_RULE),
    Entry::new("resourceclaims", &CLAIM),
    Entry::new("resourceclaimtemplates", &TEMPLATE),
    Entry::new("resourcepoolstatusrequests", &POOL_STATUS),
    Entry::new("resourceslices", &SLICE),
];
