//! What a ValidatingAdmissionPolicy's expressions would make of the kinds that it is for: warnings, which never keep it from working.

use std::sync::Arc;

use serde_json::Value;
use tiphys_meta::{Gvk, Gvr};

use crate::admission::{Declared, Known, Variables, env};
use crate::env::{Env, Provider};
use crate::program::Program;
use crate::source::display;
use crate::types::Type;

/// A type with who knows its fields.
pub type Typed = (Type, Arc<dyn Provider>);

/// Who knows kinds.
pub trait Kinds {
    /// The kind of a resource.
    fn of_resource(&self, gvr: &Gvr) -> Option<Gvk>;

    fn typed(&self, kind: &Gvk) -> Option<Typed>;
}

/// An expression by its field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub field: String,
    pub warning: String,
}

/// More kinds than these are not looked at.
const MAX_KINDS: usize = 10;

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What to warn of in a policy (upstream: `TypeChecker.Check`).
pub fn check(policy: &Value, kinds: &dyn Kinds) -> Vec<Warning> {
    let none = Value::Null;
    let spec = policy.get("spec").unwrap_or(&none);
    let param_kind = spec.get("paramKind").map(|k| Gvk::from_api_version(text(k, "apiVersion"), text(k, "kind")));
    let params = param_kind.as_ref().and_then(|k| kinds.typed(k));
    let declared = Declared { params: param_kind.is_some(), authorizer: true, patches: false };
    let mut environments: Vec<(Gvk, Env)> = Vec::new();
    for kind in matched(spec, kinds) {
        let Some(object) = kinds.typed(&kind) else { continue };
        let base = env(declared, &Known { object: Some(object), params: params.clone() });
        environments.push((kind, with_variables(spec, base)));
    }
    let mut warnings = Vec::new();
    for (i, validation) in list(spec, "validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let expression = text(validation, field);
            let found = if expression.is_empty() { Vec::new() } else { complaints(expression, &environments) };
            if !found.is_empty() {
                warnings.push(Warning { field: format!("spec.validations[{i}].{field}"), warning: found.join("\n") });
            }
        }
    }
    warnings
}

fn complaints(expression: &str, environments: &[(Gvk, Env)]) -> Vec<String> {
    let one = |(kind, env): &(Gvk, Env)| {
        let issues = Program::compile(expression, env).err()?;
        let group = if kind.group.is_empty() { format!("/{}", kind.version) } else { kind.api_version() };
        Some(format!("{group}, Kind={}: {}\n", kind.kind, display(&issues)))
    };
    environments.iter().filter_map(one).collect()
}

fn with_variables(spec: &Value, base: Env) -> Env {
    let mut variables = Variables::default();
    for variable in list(spec, "variables") {
        let program = Program::compile(text(variable, "expression"), &variables.extend(base.clone()));
        variables.declare(text(variable, "name"), program.as_ref().ok().map(Program::output));
    }
    variables.extend(base)
}

/// The kinds that the rules name without wildcards, sorted.
fn matched(spec: &Value, kinds: &dyn Kinds) -> Vec<Gvk> {
    let none = Value::Null;
    let constraints = spec.get("matchConstraints").unwrap_or(&none);
    let mut found: Vec<Gvk> = Vec::new();
    for rule in list(constraints, "resourceRules") {
        let names = |field: &str| -> Vec<String> { list(rule, field).iter().filter_map(Value::as_str).map(str::to_owned).collect() };
        let (groups, versions) = (names("apiGroups"), names("apiVersions"));
        if groups.iter().chain(&versions).any(|n| n.contains('*')) {
            continue;
        }
        for resource in names("resources").into_iter().filter(|r| !r.contains(['*', '/'])) {
            for (group, version) in groups.iter().flat_map(|g| versions.iter().map(move |v| (g, v))) {
                let kind = kinds.of_resource(&Gvr::new(group.clone(), version.clone(), resource.clone()));
                found.extend(kind.filter(|k| !found.contains(k)));
            }
        }
    }
    found.sort_by(|a, b| (&a.group, &a.version, &a.kind).cmp(&(&b.group, &b.version, &b.kind)));
    found.truncate(MAX_KINDS);
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_schema::Facts;

    use super::*;
    use crate::facts::{FactTypes, type_of_kind};

    struct Builtin;

    impl Kinds for Builtin {
        fn of_resource(&self, gvr: &Gvr) -> Option<Gvk> {
            Facts::builtin().resource(gvr).map(|r| r.kind.clone())
        }

        fn typed(&self, kind: &Gvk) -> Option<Typed> {
            Some((type_of_kind(kind)?, Arc::new(FactTypes)))
        }
    }

    #[test]
    fn confusions_are_told() {
        let policy = |expression: &str, message: &str| {
            json!({"spec": {"validations": [{"expression": expression, "messageExpression": message}],
                "variables": [{"name": "n", "expression": "object.spec.replicas"}],
                "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]}}})
        };
        assert_eq!(check(&policy("object.spec.replicas > 1 && variables.n > 1", ""), &Builtin), []);
        let warnings = check(&policy("object.spec.replicas > '1'", "'got ' + variables.n"), &Builtin);
        let fields: Vec<&str> = warnings.iter().map(|w| w.field.as_str()).collect();
        assert_eq!(fields, ["spec.validations[0].expression", "spec.validations[0].messageExpression"]);
        assert_eq!(
            warnings[0].warning,
            "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n"
        );
    }
}
