//! `certificates.k8s.io`.

use crate::resources::Entry;
use crate::strategy::Strategy;

static CSR: Strategy = Strategy::new(false).status("{}");
static TRUST_BUNDLE: Strategy = Strategy::new(false).unconditional_update(false);
static POD_CERTIFICATE: Strategy = Strategy::new(true).status("{}").unconditional_update(false);

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("certificatesigningrequests", &CSR),
    Entry::new("clustertrustbundles", &TRUST_BUNDLE),
    Entry::new("podcertificaterequests", &POD_CERTIFICATE),
];
