//! Checks a policy whose generation has not been checked, and writes what was found.

use std::sync::Arc;

use serde_json::json;
use tiphys_cel::type_checking::{self, Kinds, Typed};
use tiphys_cel::{FactTypes, Schema, SchemaTypes, type_of_kind};
use tiphys_client::{Action, Patch, Plan};
use tiphys_meta::{Gvk, Gvr};
use tiphys_schema::Facts;
use tiphys_types::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, CustomResourceDefinitionVersion};

use super::observe::Observed;

pub(super) fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let policy = &*observed.policy;
    let (seen, generation) = (policy.status.as_ref().and_then(|s| s.observed_generation), policy.metadata.generation);
    let Ok(tree) = serde_json::to_value(policy) else { return plan };
    if generation <= seen {
        return plan;
    }
    let warnings = type_checking::check(&tree, observed).into_iter();
    let warnings: Vec<_> = warnings.map(|w| json!({"fieldRef": w.field, "warning": w.warning})).collect();
    // Null takes warnings of an earlier generation away; that the check was made shows in an empty `typeChecking`.
    let warnings = if warnings.is_empty() { json!(null) } else { json!(warnings) };
    let patch = json!({"status": {"observedGeneration": generation, "typeChecking": {"expressionWarnings": warnings}}});
    plan.act(Action::patch(policy, "status", Patch::Merge(patch)).or_settled());
    plan
}

impl Observed {
    /// A definition's version that is served.
    fn version(&self, group: &str, version: &str, fits: impl Fn(&CustomResourceDefinition) -> bool) -> Option<Served<'_>> {
        let definition = self.definitions.iter().find(|d| d.spec.group == group && fits(d))?;
        let version = definition.spec.versions.iter().find(|v| v.served && v.name == version)?;
        Some(Served { definition, version })
    }
}

struct Served<'d> {
    definition: &'d CustomResourceDefinition,
    version: &'d CustomResourceDefinitionVersion,
}

/// Built-in kinds, and those of definitions.
impl Kinds for Observed {
    fn of_resource(&self, gvr: &Gvr) -> Option<Gvk> {
        if let Some(facts) = Facts::builtin().resource(gvr) {
            return Some(facts.kind.clone());
        }
        let found = self.version(&gvr.group, &gvr.version, |d| d.spec.names.plural == gvr.resource)?;
        Some(Gvk::new(gvr.group.to_string(), gvr.version.to_string(), found.definition.spec.names.kind.clone()))
    }

    fn typed(&self, kind: &Gvk) -> Option<Typed> {
        if let Some(ty) = type_of_kind(kind) {
            return Some((ty, Arc::new(FactTypes)));
        }
        let found = self.version(&kind.group, &kind.version, |d| d.spec.names.kind == kind.kind)?;
        let schema = serde_json::to_value(found.version.schema.as_ref()?.open_api_v3_schema.as_ref()?).ok()?;
        let schema = Schema::of(&schema, true, &kind.kind)?;
        Some((schema.ty(), Arc::new(SchemaTypes(schema))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn observed(status: Value, expression: &str) -> Observed {
        let rule = json!({"operations": ["*"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["widgets"]});
        let policy = json!({"metadata": {"name": "p", "generation": 2}, "status": status,
            "spec": {"validations": [{"expression": expression}], "matchConstraints": {"resourceRules": [rule]}}});
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}});
        let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
        let read = serde_json::from_value;
        Observed {
            policy: Arc::new(serde_json::from_value(policy).expect("a policy")),
            definitions: vec![Arc::new(read(definition).expect("a definition"))],
        }
    }

    fn warnings(observed: &Observed) -> usize {
        type_checking::check(&serde_json::to_value(&*observed.policy).expect("a tree"), observed).len()
    }

    #[test]
    fn definitions_are_types() {
        assert_eq!(warnings(&observed(json!({}), "object.spec.size > 1")), 0);
        assert_eq!(warnings(&observed(json!({}), "object.spec.size > '1'")), 1);
        assert_eq!(warnings(&observed(json!({}), "object.spec.colour == 'red'")), 1);
    }

    #[test]
    fn a_generation_is_checked_once() {
        for (status, acts) in
            [(json!({}), 1), (json!({"observedGeneration": 1, "typeChecking": {}}), 1), (json!({"observedGeneration": 2}), 0)]
        {
            assert_eq!(plan(&observed(status.clone(), "true")).actions().count(), acts, "{status}");
        }
    }
}
