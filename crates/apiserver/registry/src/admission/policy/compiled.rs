//! A policy as it is run.

use serde_json::Value;
use tiphys_cel::Type;
use tiphys_cel::admission::{Declared, Known, env};
use tiphys_meta::{Gvk, object};

use crate::admission::tree::{list, text};
use crate::conditions::{Compiled, Composed, Conditions, compile};

pub(super) struct Policy {
    pub(super) name: String,
    /// `failurePolicy: Ignore`.
    pub(super) fails_open: bool,
    pub(super) param_kind: Option<Gvk>,
    pub(super) constraints: Value,
    pub(super) variables: Composed,
    pub(super) conditions: Conditions,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<Annotation>,
    pub(super) mutations: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`.
    pub(super) reinvoked: bool,
}

pub(super) struct Validation {
    pub(super) expression: String,
    pub(super) program: Compiled,
    pub(super) message: String,
    pub(super) message_expression: Option<(String, Compiled)>,
    pub(super) reason: String,
}

/// Something for the audit log, under `POLICY/KEY`.
pub(super) struct Annotation {
    pub(super) key: String,
    pub(super) expression: String,
    pub(super) program: Compiled,
}

pub(super) struct Mutation {
    pub(super) json_patch: bool,
    pub(super) expression: String,
    pub(super) program: Compiled,
}

impl Policy {
    pub(super) fn compile(policy: &Value) -> Policy {
        let none = Value::Null;
        let spec = policy.get("spec").unwrap_or(&none);
        let param_kind = spec.get("paramKind").map(|k| Gvk::from_api_version(text(k, "apiVersion"), text(k, "kind")));
        let declared = Declared { params: param_kind.is_some(), authorizer: true, patches: !list(spec, "mutations").is_empty() };
        let (variables, full) = Composed::compile(list(spec, "variables"), env(declared, &Known::default()));
        // Messages and annotations may not ask the authorizer.
        let plain = Composed::compile(list(spec, "variables"), env(Declared { authorizer: false, ..declared }, &Known::default())).1;
        let validation = |v: &Value| Validation {
            expression: text(v, "expression").to_owned(),
            program: compile(text(v, "expression"), &full, &[Type::Bool]),
            message: text(v, "message").trim().to_owned(),
            message_expression: Some(text(v, "messageExpression"))
                .filter(|e| !e.is_empty())
                .map(|e| (e.to_owned(), compile(e, &plain, &[Type::String]))),
            reason: text(v, "reason").to_owned(),
        };
        let annotation = |a: &Value| {
            let expression = text(a, "valueExpression");
            let program = compile(expression, &plain, &[Type::String, Type::Null]);
            Annotation { key: text(a, "key").to_owned(), expression: expression.to_owned(), program }
        };
        let mutation = |m: &Value| {
            let json_patch = text(m, "patchType") == "JSONPatch";
            let field = if json_patch { "jsonPatch" } else { "applyConfiguration" };
            let expression = m.get(field).map_or("", |p| text(p, "expression"));
            let wanted = if json_patch { Type::list(Type::structure("JSONPatch")) } else { Type::structure("Object") };
            Mutation { json_patch, expression: expression.to_owned(), program: compile(expression, &full, &[wanted]) }
        };
        Policy {
            name: object::name(policy).to_owned(),
            fails_open: text(spec, "failurePolicy") == "Ignore",
            param_kind,
            constraints: spec.get("matchConstraints").cloned().unwrap_or_default(),
            conditions: Conditions::compile(list(spec, "matchConditions"), &full),
            validations: list(spec, "validations").iter().map(validation).collect(),
            annotations: list(spec, "auditAnnotations").iter().map(annotation).collect(),
            mutations: list(spec, "mutations").iter().map(mutation).collect(),
            reinvoked: text(spec, "reinvocationPolicy") == "IfNeeded",
            variables,
        }
    }
}
