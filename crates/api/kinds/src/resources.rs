//! Which strategy a resource has: the groups' lists, in one place.

use tiphys_meta::Gvr;

use crate::Strategy;

/// One resource of a group. An empty version means every version.
pub struct Entry {
    pub resource: &'static str,
    pub version: &'static str,
    pub strategy: &'static Strategy,
}

impl Entry {
    pub(crate) const fn new(resource: &'static str, strategy: &'static Strategy) -> Entry {
        Entry { resource, version: "", strategy }
    }

    pub(crate) const fn of(version: &'static str, resource: &'static str, strategy: &'static Strategy) -> Entry {
        Entry { resource, version, strategy }
    }
}

static NAMESPACED: Strategy = Strategy::custom(true);

const GROUPS: &[(&str, &[Entry])] = &[
    ("", crate::core::RESOURCES),
    ("admissionregistration.k8s.io", crate::admissionregistration::RESOURCES),
    ("apiextensions.k8s.io", crate::apiextensions::RESOURCES),
    ("apiregistration.k8s.io", crate::apiregistration::RESOURCES),
    ("apps", crate::apps::RESOURCES),
    ("autoscaling", crate::autoscaling::RESOURCES),
    ("batch", crate::batch::RESOURCES),
    ("certificates.k8s.io", crate::certificates::RESOURCES),
    ("coordination.k8s.io", crate::coordination::RESOURCES),
    ("discovery.k8s.io", crate::discovery::RESOURCES),
    ("events.k8s.io", crate::events::RESOURCES),
    ("flowcontrol.apiserver.k8s.io", crate::flowcontrol::RESOURCES),
    ("networking.k8s.io", crate::networking::RESOURCES),
    ("node.k8s.io", crate::node::RESOURCES),
    ("policy", crate::policy::RESOURCES),
    ("rbac.authorization.k8s.io", crate::rbac::RESOURCES),
    ("resource.k8s.io", crate::resource::RESOURCES),
    ("scheduling.k8s.io", crate::scheduling::RESOURCES),
    ("storage.k8s.io", crate::storage::RESOURCES),
];

/// Every group with its resources, for suites that run over all kinds.
pub fn entries() -> &'static [(&'static str, &'static [Entry])] {
    GROUPS
}

/// The strategy of a built-in resource; of one that has no entry, a namespaced one without rules. Callers keep the answer per resource.
pub fn strategy(gvr: &Gvr) -> &'static Strategy {
    let group = GROUPS.iter().find(|(group, _)| *group == gvr.group);
    let entry = group
        .and_then(|(_, entries)| entries.iter().find(|e| e.resource == gvr.resource && (e.version.is_empty() || e.version == gvr.version)));
    entry.map_or(&NAMESPACED, |e| e.strategy)
}
