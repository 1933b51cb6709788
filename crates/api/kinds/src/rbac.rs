//! `rbac.authorization.k8s.io`.

use tiphys_meta::names;

use crate::resources::Entry;
use crate::strategy::Strategy;

const RBAC: Strategy = Strategy::new(false).name(names::path_segment).create_on_update();
static CLUSTER: Strategy = RBAC;
static NAMESPACED: Strategy = Strategy::new(true).name(names::path_segment).create_on_update();

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("clusterrolebindings", &CLUSTER),
    Entry::new("clusterroles", &CLUSTER),
    Entry::new("rolebindings", &NAMESPACED),
    Entry::new("roles", &NAMESPACED),
];
