//! `storage.k8s.io`.

use crate::resources::Entry;
use crate::strategy::Strategy;

static CSI_DRIVER: Strategy = Strategy::new(false).unconditional_update(false);
static CSI_NODE: Strategy = Strategy::new(false).unconditional_update(false);
static CSI_CAPACITY: Strategy = Strategy::new(true).unconditional_update(false);
static STORAGE_CLASS: Strategy = Strategy::new(false);
static ATTACHMENT: Strategy = Strategy::new(false).status(r#"{"attached":false}"#).unconditional_update(false);
static ATTRIBUTES_CLASS: Strategy = Strategy::new(false);

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("csidrivers", &CSI_DRIVER),
    Entry::new("csinodes", &CSI_NODE),
    Entry::new("csistoragecapacities", &CSI_CAPACITY),
    Entry::new("storageclasses", &STORAGE_CLASS),
    Entry::new("volumeattachments", &ATTACHMENT),
    Entry::new("volumeattributesclasses", &ATTRIBUTES_CLASS),
];
