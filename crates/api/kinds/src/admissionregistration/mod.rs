//! `admissionregistration.k8s.io`: who may change or refuse what is written. CEL expressions are not compiled here (no engine in this crate): the
//! admission plugins that run them say what is wrong with them.

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
