//! `apiextensions.k8s.io`.

use crate::resources::Entry;
use crate::strategy::Strategy;

static CRD: Strategy = Strategy::new(false)
    .spec_generation()
    .status(r#"{"acceptedNames":{"kind":"","plural":""},"conditions":null,"storedVersions":null}"#)
    .unconditional_update(false);

pub(crate) const RESOURCES: &[Entry] = &[Entry::new("customresourcedefinitions", &CRD)];
