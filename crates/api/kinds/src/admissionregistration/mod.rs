//! `admissionregistration.k8s.io`: who may change or refuse what is written. Expressions are compiled here too, so that none is stored that cannot run;
//! those that an update leaves as they were are not held against it.

mod policy;
mod webhooks;

pub(crate) use webhooks::client_config;

use crate::resources::Entry;

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("mutatingadmissionpolicies", &policy::MUTATING),
    Entry::new("mutatingadmissionpolicybindings", &policy::BINDING),
    Entry::new("mutatingwebhookconfigurations", &webhooks::MUTATING),
    Entry::new("validatingadmissionpolicies", &policy::VALIDATING),
    Entry::new("validatingadmissionpolicybindings", &policy::BINDING),
    Entry::new("validatingwebhookconfigurations", &webhooks::VALIDATING),
];
