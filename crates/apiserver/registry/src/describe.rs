//! What a resource is to this crate, in words: for `cargo xtask map`.

use tiphys_meta::Gvr;
use tiphys_schema::Facts;

use crate::admission::{Asked, Attributes, Chain, Operation};
use crate::request::{AuditNotes, UserInfo};
use crate::storage::keys;

/// Where objects are kept, and which admission plugins look at writes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What the keys begin with.
    pub prefix: String,
    /// In the order in which they are asked, with the writes that they look at: `create`, `update status`, ….
    pub plugins: Vec<(&'static str, Vec<String>)>,
}

/// Of a built-in resource, under the version that it is stored in.
pub fn describe(gvr: &Gvr) -> Option<Description> {
    let facts = Facts::builtin().resource(gvr)?;
    let subresources = std::iter::once("").chain(facts.subresources.iter().map(|s| s.name));
    let writes: Vec<(Operation, &str)> =
        subresources.flat_map(|s| [Operation::Create, Operation::Update, Operation::Delete].map(|operation| (operation, s))).collect();
    let served = |operation: Operation, subresource: &str| {
        let verbs = match facts.subresources.iter().find(|s| s.name == subresource) {
            Some(subresource) => &subresource.verbs,
            None => &facts.verbs,
        };
        verbs.contains(&word(operation))
    };
    let (user, notes) = (UserInfo::default(), AuditNotes::default());
    let attributes = |operation, subresource| Attributes {
        operation,
        gvr,
        requested: gvr,
        asked: Asked::Nothing,
        subresource,
        namespace: if facts.namespaced { "default" } else { "" },
        name: String::new(),
        user: &user,
        dry_run: false,
        notes: &notes,
        warnings: parking_lot::Mutex::default(),
        changed: false.into(),
        reinvoked: false.into(),
    };
    let looks_at = |handles: &dyn Fn(&Attributes<'_>) -> bool| -> Vec<String> {
        let asked = writes.iter().filter(|(operation, s)| served(*operation, s) && handles(&attributes(*operation, s)));
        asked.map(|(operation, s)| format!("{} {s}", word(*operation)).trim_end().to_owned()).collect()
    };
    let plugins = Chain::builtin().each(|plugin| (plugin.name(), looks_at(&|attributes| plugin.handles(attributes))));
    let plugins = plugins.into_iter().filter(|(_, writes)| !writes.is_empty()).collect();
    Some(Description { prefix: keys::builtin_prefix(&gvr.group, &gvr.resource), plugins })
}

fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "create",
        Operation::Update => "update",
        Operation::Delete => "delete",
        Operation::Connect => "connect",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_minions_and_new_ones_are_tainted() {
        let nodes = describe(&Gvr::new("", "v1", "nodes")).expect("nodes are served");
        assert_eq!(nodes.prefix, "/registry/minions/");
        let taints = nodes.plugins.iter().find(|(name, _)| *name == "TaintNodesByCondition");
        assert_eq!(taints.map(|(_, writes)| writes.clone()), Some(vec!["create".to_owned()]));
        assert_eq!(describe(&Gvr::new("", "v1", "gnomes")), None);
    }
}
