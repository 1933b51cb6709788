//! `admissionregistration.k8s.io`.

use crate::resources::Entry;
use crate::strategy::{Generation, Strategy};

const SPEC: Strategy = Strategy::new(false).spec_generation().unconditional_update(false);
const WEBHOOKS: Strategy = Strategy::new(false).generation(Generation::Fields(&["webhooks"])).unconditional_update(false);

static POLICY: Strategy = SPEC.status("{}");
static MUTATING_POLICY: Strategy = SPEC;
static BINDING: Strategy = SPEC;
static WEBHOOK: Strategy = WEBHOOKS;

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("mutatingadmissionpolicies", &MUTATING_POLICY),
    Entry::new("mutatingadmissionpolicybindings", &BINDING),
    Entry::new("mutatingwebhookconfigurations", &WEBHOOK),
    Entry::new("validatingadmissionpolicies", &POLICY),
    Entry::new("validatingadmissionpolicybindings", &BINDING),
    Entry::new("validatingwebhookconfigurations", &WEBHOOK),
];
