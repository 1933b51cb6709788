//! Whether a policy or a binding concerns a request: rules and selectors (`matchConstraints`, `matchResources`).

use serde_json::Value;
use tiphys_meta::{Gvk, Gvr};

use crate::admission::Attributes;
use crate::admission::tree::{list, text};
use crate::conditions::selects;
use crate::registry::Registry;
use crate::verbs::rules::other_kind;

/// A request, as it is held against rules.
pub(super) struct Subject<'a> {
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
    /// What the namespace's labels are read from; none where there is no namespace to select by.
    namespace: Option<Value>,
    namespaced: bool,
    /// The versions in which the resource is served, that of the request first.
    versions: Vec<(Gvr, Gvk)>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(
        registry: &Registry,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> Subject<'a> {
        let found = registry.resources.find(attributes.gvr);
        let mut versions: Vec<(Gvr, Gvk)> = Vec::new();
        if let Some((resource, _)) = &found {
            versions.extend(resource.served.iter().map(|s| (s.gvr.clone(), s.gvk.clone())));
            versions.sort_by_key(|(gvr, _)| *gvr != *attributes.requested);
            if let Some(kind) = object.or(old).and_then(|o| other_kind(resource, o)) {
                versions.iter_mut().for_each(|(_, gvk)| gvk.clone_from(&kind.gvk));
            }
        }
        let namespace = if attributes.is("", "namespaces") {
            object.or(old).cloned()
        } else {
            registry.get_value(&Gvr::new("", "v1", "namespaces"), "", attributes.namespace)
        };
        Subject { attributes, object, old, namespace, namespaced: found.as_ref().is_some_and(|(r, _)| r.namespaced), versions }
    }

    /// The resource and kind as the rules name them, where rules and selectors fit.
    pub(super) fn matches(&self, resources: &Value) -> Option<(Gvr, Gvk)> {
        let namespace = self.namespace.as_ref().is_none_or(|n| selects(resources.get("namespaceSelector"), n));
        let selector = resources.get("objectSelector");
        let empty = selector.and_then(Value::as_object).is_none_or(serde_json::Map::is_empty);
        let selected = empty || [self.object, self.old].into_iter().flatten().any(|o| selects(selector, o));
        if !namespace || !selected || self.ruled(resources, "excludeResourceRules").is_some() {
            return None;
        }
        if list(resources, "resourceRules").is_empty() {
            return self.versions.first().cloned();
        }
        self.ruled(resources, "resourceRules")
    }

    /// `matchPolicy: Equivalent`: a rule for any version of the resource is one for all of them.
    fn ruled(&self, resources: &Value, field: &str) -> Option<(Gvr, Gvk)> {
        let exact = text(resources, "matchPolicy") == "Exact";
        let versions = if exact { &self.versions[..self.versions.len().min(1)] } else { &self.versions[..] };
        let rules = list(resources, field);
        versions.iter().find(|(gvr, _)| rules.iter().any(|rule| self.rule_fits(rule, gvr))).cloned()
    }

    fn rule_fits(&self, rule: &Value, gvr: &Gvr) -> bool {
        let one_of = |field: &str, wanted: &str| list(rule, field).iter().any(|v| v == "*" || v == wanted);
        let scope = match text(rule, "scope") {
            "Namespaced" => self.namespaced,
            "Cluster" => !self.namespaced,
            _ => true,
        };
        let names = list(rule, "resourceNames");
        scope
            && one_of("operations", self.attributes.operation.as_str())
            && one_of("apiGroups", &gvr.group)
            && one_of("apiVersions", &gvr.version)
            && (names.is_empty() || names.iter().any(|n| n == self.attributes.name.as_str()))
            && list(rule, "resources")
                .iter()
                .filter_map(Value::as_str)
                .any(|r| resource_fits(r, &gvr.resource, self.attributes.subresource))
    }
}

/// `pods`, `pods/status`, `pods/*`, `*/scale`, `*`, `*/*`.
fn resource_fits(rule: &str, resource: &str, subresource: &str) -> bool {
    let (main, sub) = rule.split_once('/').unwrap_or((rule, ""));
    (main == "*" || main == resource) && (sub == subresource || sub == "*")
}

#[cfg(test)]
mod tests {
    use super::resource_fits;

    #[test]
    fn resources() {
        for (rule, subresource, fits) in [
            ("pods", "", true),
            ("pods", "status", false),
            ("pods/status", "status", true),
            ("pods/*", "", true),
            ("pods/*", "exec", true),
            ("*", "", true),
            ("*", "exec", false),
            ("*/*", "exec", true),
            ("*/scale", "scale", true),
            ("nodes", "", false),
        ] {
            assert_eq!(resource_fits(rule, "pods", subresource), fits, "{rule} {subresource}");
        }
    }
}
