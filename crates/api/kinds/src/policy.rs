//! `policy`.

use crate::resources::Entry;
use crate::strategy::Strategy;

static PDB: Strategy = Strategy::new(true)
    .spec_generation()
    .status(r#"{"currentHealthy":0,"desiredHealthy":0,"disruptionsAllowed":0,"expectedPods":0}"#)
    .unconditional_update(false);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("poddisruptionbudgets", &PDB)];
