//! Admission policies in CEL, and their bindings.

use serde_json::{Value, json};
use tiphys_cel::admission::{Declared, Known, Variables, compile, env};
use tiphys_cel::{Env, Program, Type};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use super::webhooks::{check_rule, match_conditions};
use crate::strategy::{BARE_STATUS, Column, Strategy};
use crate::table::{AGE, NAME, age, column, integer};
use crate::tree::{array, array_mut, at, one_of, present, said, set_absent, text};
use crate::workloads::SPEC;

const SHARED: Strategy = Strategy::new(false).spec_generation().unconditional_update(false);

pub(super) static VALIDATING: Strategy = SHARED
    .status("{}")
    .status_alone(BARE_STATUS)
    .defaults(defaults)
    .checks(check_validating, |_, _, _| {})
    .table(VALIDATING_COLUMNS, |o, now| cells(o, "spec.validations", now));
pub(super) static MUTATING: Strategy =
    SHARED.defaults(defaults).checks(check_mutating, |_, _, _| {}).table(MUTATING_COLUMNS, |o, now| cells(o, "spec.mutations", now));
pub(super) static BINDING: Strategy =
    SHARED.defaults(binding_defaults).checks(check_binding, |_, _, _| {}).table(BINDING_COLUMNS, binding_cells);

const VALIDATING_COLUMNS: &[Column] = &[NAME, integer("Validations"), column("ParamKind"), AGE];
const MUTATING_COLUMNS: &[Column] = &[NAME, integer("Mutations"), column("ParamKind"), AGE];
const BINDING_COLUMNS: &[Column] = &[NAME, column("PolicyName"), column("ParamRef"), AGE];

fn cells(o: &Value, list: &str, now: Timestamp) -> Vec<Value> {
    let kind = at(o, "spec.paramKind").map(|k| format!("{}/{}", text(k, "apiVersion"), text(k, "kind")));
    vec![object::name(o).into(), json!(array(o, list).len()), kind.unwrap_or_else(|| "<unset>".into()).into(), age(o, now)]
}

fn binding_cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let reference = at(o, "spec.paramRef").map(|r| match (text(r, "name"), text(r, "namespace")) {
        ("", _) => at(r, "selector").map(Value::to_string).unwrap_or_default(),
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    });
    vec![object::name(o).into(), text(o, "spec.policyName").into(), reference.unwrap_or_else(|| "<unset>".into()).into(), age(o, now)]
}

fn match_defaults(resources: &mut Value) {
    set_absent(resources, "matchPolicy", "Equivalent");
    set_absent(resources, "namespaceSelector", json!({}));
    set_absent(resources, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        array_mut(resources, list).iter_mut().for_each(|rule| set_absent(rule, "scope", "*"));
    }
}

fn defaults(o: &mut Value) {
    let Some(spec) = present(o, "spec") else { return };
    set_absent(spec, "failurePolicy", "Fail");
    if let Some(constraints) = present(spec, "matchConstraints") {
        match_defaults(constraints);
    }
}

fn binding_defaults(o: &mut Value) {
    if let Some(resources) = present(o, "spec").and_then(|s| present(s, "matchResources")) {
        match_defaults(resources);
    }
}

fn check_shared(o: &Value, errors: &mut ErrorList) -> Expressions {
    match text(o, "spec.failurePolicy") {
        "Fail" | "Ignore" => {}
        "" if at(o, "spec.failurePolicy").is_none() => errors.required(&SPEC.child("failurePolicy"), ""),
        other => errors.not_supported(&SPEC.child("failurePolicy"), other, &["Fail", "Ignore"]),
    }
    if let Some(kind) = at(o, "spec.paramKind") {
        check_param_kind(kind, &SPEC.child("paramKind"), errors);
    }
    let path = SPEC.child("matchConstraints");
    match at(o, "spec.matchConstraints") {
        None => errors.required(&path, ""),
        Some(constraints) => {
            check_match(constraints, &path, errors);
            if array(constraints, "resourceRules").is_empty() {
                errors.required(&path.child("resourceRules"), "");
            }
        }
    }
    let spec = o.get("spec").unwrap_or(&Value::Null);
    let params = at(spec, "paramKind").is_some();
    match_conditions(spec, params, &SPEC.child("matchConditions"), errors);
    // Without variables there is no `variables`.
    let mut variables = Variables::default();
    let with = |variables: &Variables, env: Env| if array(spec, "variables").is_empty() { env } else { variables.extend(env) };
    let declared = Declared { params, authorizer: true, patches: !array(spec, "mutations").is_empty() };
    for (i, variable) in array(o, "spec.variables").iter().enumerate() {
        let (list, name) = (SPEC.child("variables"), text(variable, "name"));
        let path = list.index(i);
        if name.is_empty() {
            errors.required(&path.child("name"), "name is not specified");
        } else if !names::c_identifier(name).is_empty() {
            errors.invalid(&path.child("name"), name, "must be a valid CEL identifier");
        }
        if text(variable, "expression").trim().is_empty() {
            errors.required(&path.child("expression"), "expression is not specified");
            continue;
        }
        let expression = text(variable, "expression");
        let program = compile(expression, &with(&variables, env(declared, &Known::default())), &[]);
        variables.declare(name, program.as_ref().ok().map(Program::output));
        if let Err(why) = program {
            errors.invalid(&path.child("expression"), expression, why);
        }
    }
    let message = Declared { params, ..Declared::default() };
    Expressions { env: with(&variables, env(declared, &Known::default())), of_messages: with(&variables, env(message, &Known::default())) }
}

/// The kind of parameters, named as in an object of it.
fn check_param_kind(kind: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (version, place) = (text(kind, "apiVersion"), path.child("apiVersion"));
    let (group, name) = version.split_once('/').unwrap_or(("", version));
    let (wrong_group, wrong_name) = (names::dns1123_subdomain(group), names::dns1035_label(name));
    match () {
        () if version.is_empty() => errors.required(&place, ""),
        () if name.contains('/') => errors.invalid(&place, version, format!("unexpected GroupVersion string: {version}")),
        () => {
            if !group.is_empty() && !wrong_group.is_empty() {
                errors.invalid(&place, group, wrong_group.join(","));
            }
            if name.is_empty() {
                errors.invalid(&place, version, "version must be specified");
            } else if !wrong_name.is_empty() {
                errors.invalid(&place, name, wrong_name.join(","));
            }
        }
    }
    let (name, place) = (text(kind, "kind"), path.child("kind"));
    let wrong = names::dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.required(&place, "");
    } else if !wrong.is_empty() {
        errors.invalid(&place, name, format!("may have mixed case, but should otherwise match: {}", wrong.join(",")));
    }
}

/// The environments of a policy's expressions.
struct Expressions {
    env: Env,
    /// They may not ask the authorizer.
    of_messages: Env,
}

impl Expressions {
    fn check(&self, expression: &str, wanted: &[Type], path: &Path<'_>, errors: &mut ErrorList) {
        check_expression(expression, &self.env, wanted, path, errors);
    }
}

fn check_expression(expression: &str, env: &Env, wanted: &[Type], path: &Path<'_>, errors: &mut ErrorList) {
    if let Err(why) = compile(expression, env, wanted) {
        errors.invalid(path, expression, why);
    }
}

fn check_match(resources: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    one_of(at(resources, "matchPolicy"), &["Equivalent", "Exact"], &path.child("matchPolicy"), errors);
    for list in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in array(resources, list).iter().enumerate() {
            check_rule(rule, &path.child(list).index(i), errors);
        }
    }
    for field in ["namespaceSelector", "objectSelector"] {
        crate::selectors::check(at(resources, field), &path.child(field), errors);
    }
}

fn check_validating(o: &Value, errors: &mut ErrorList) {
    let expressions = check_shared(o, errors);
    let validations = array(o, "spec.validations");
    if validations.is_empty() && array(o, "spec.auditAnnotations").is_empty() {
        for list in ["validations", "auditAnnotations"] {
            errors.required(&SPEC.child(list), "validations or auditAnnotations must contain at least one item");
        }
    }
    for (i, validation) in validations.iter().enumerate() {
        let list = SPEC.child("validations");
        let path = list.index(i);
        match text(validation, "expression") {
            blank if blank.trim().is_empty() => errors.required(&path.child("expression"), "expression is not specified"),
            expression => expressions.check(expression, &[Type::Bool], &path.child("expression"), errors),
        }
        check_message(validation, &expressions.of_messages, &path, errors);
        if let Some(reason) = said(validation, "reason")
            && !matches!(reason, "Unauthorized" | "Forbidden" | "Invalid" | "RequestEntityTooLarge")
        {
            errors.not_supported(&path.child("reason"), reason, &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
        }
    }
    check_annotations(o, &expressions, errors);
}

fn check_message(validation: &Value, env: &Env, path: &Path<'_>, errors: &mut ErrorList) {
    let place = path.child("messageExpression");
    match text(validation, "messageExpression") {
        "" => {}
        blank if blank.trim().is_empty() => errors.invalid(&place, blank, "must be non-empty if specified"),
        expression => check_expression(expression, env, &[Type::String], &place, errors),
    }
    match text(validation, "message") {
        "" => {}
        blank if blank.trim().is_empty() => errors.invalid(&path.child("message"), blank, "must be non-empty if specified"),
        message if message.trim().contains(['\n', '\r']) => errors.invalid(&path.child("message"), message, "must not contain line breaks"),
        _ => {}
    }
}

/// Longer expressions of audit annotations are refused.
const MAX_VALUE_EXPRESSION: usize = 5 * 1024;

fn check_annotations(o: &Value, expressions: &Expressions, errors: &mut ErrorList) {
    let list = SPEC.child("auditAnnotations");
    let annotations = array(o, "spec.auditAnnotations");
    for (i, annotation) in annotations.iter().enumerate() {
        let (path, key) = (list.index(i), text(annotation, "key"));
        let full = format!("{}/{key}", object::name(o));
        errors.invalid_all(&path.child("key"), &full, names::qualified_name(&full));
        if annotations[..i].iter().any(|a| text(a, "key") == key) {
            errors.duplicate(&path.child("key"), key);
        }
        let place = path.child("valueExpression");
        match text(annotation, "valueExpression") {
            blank if blank.trim().is_empty() => errors.required(&place, "valueExpression is not specified"),
            long if long.len() > MAX_VALUE_EXPRESSION => {
                errors.required(&place, format!("must not exceed {MAX_VALUE_EXPRESSION} bytes in length"));
            }
            expression => expressions.check(expression, &[Type::String, Type::Null], &place, errors),
        }
    }
}

fn check_mutating(o: &Value, errors: &mut ErrorList) {
    let expressions = check_shared(o, errors);
    let operations = array(o, "spec.matchConstraints.resourceRules").iter().flat_map(|rule| array(rule, "operations"));
    const SUPPORTED: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
    for operation in operations.filter_map(Value::as_str).filter(|o| !SUPPORTED.contains(o)) {
        let path = SPEC.child("matchConstraints.resourceRules.operations");
        errors.not_supported(&path, operation, &SUPPORTED);
    }
    let mutations = array(o, "spec.mutations");
    if mutations.is_empty() {
        errors.required(&SPEC.child("mutations"), "mutations must contain at least one item");
    }
    for (i, mutation) in mutations.iter().enumerate() {
        let list = SPEC.child("mutations");
        check_mutation(mutation, &expressions, &list.index(i), errors);
    }
    match text(o, "spec.reinvocationPolicy") {
        "Never" | "IfNeeded" => {}
        "" => errors.required(&SPEC.child("reinvocationPolicy"), ""),
        other => errors.not_supported(&SPEC.child("reinvocationPolicy"), other, &["IfNeeded", "Never"]),
    }
}

fn check_mutation(mutation: &Value, expressions: &Expressions, path: &Path<'_>, errors: &mut ErrorList) {
    const FORMS: [(&str, &str); 2] = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
    let kind = text(mutation, "patchType");
    let Some((_, field)) = FORMS.into_iter().find(|(k, _)| *k == kind) else {
        match kind {
            "" => errors.required(&path.child("patchType"), ""),
            other => errors.not_supported(&path.child("patchType"), other, &["ApplyConfiguration", "JSONPatch"]),
        }
        return;
    };
    match at(mutation, field) {
        None => errors.required(&path.child(field), format!("must be specified when patchType is {kind}")),
        Some(patch) => {
            let patch_path = path.child(field);
            let place = patch_path.child("expression");
            let wanted = if kind == "JSONPatch" { Type::list(Type::structure("JSONPatch")) } else { Type::structure("Object") };
            match text(patch, "expression").trim() {
                "" => errors.required(&place, ""),
                expression => expressions.check(expression, &[wanted], &place, errors),
            }
        }
    }
    for (_, other) in FORMS.into_iter().filter(|(_, f)| *f != field && at(mutation, f).is_some()) {
        errors.invalid(&path.child(other), format!("{{{other}}}"), format!("must not be specified when patchType is {kind}"));
    }
}

fn check_param_ref(reference: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (name, selector) = (text(reference, "name"), at(reference, "selector"));
    if !name.is_empty() {
        errors.invalid_all(&path.child("name"), name, names::path_segment(name, false));
    }
    if selector.is_some() {
        crate::selectors::check(selector, &path.child("selector"), errors);
    }
    match (name.is_empty(), selector) {
        (false, Some(_)) => {
            for field in ["name", "selector"] {
                errors.forbidden(&path.child(field), "name and selector are mutually exclusive");
            }
        }
        (true, None) => errors.required(path, "one of name or selector must be specified"),
        _ => {}
    }
    match text(reference, "parameterNotFoundAction") {
        "Allow" | "Deny" => {}
        "" => errors.required(&path.child("parameterNotFoundAction"), ""),
        other => errors.not_supported(&path.child("parameterNotFoundAction"), other, &["Deny", "Allow"]),
    }
}

fn check_binding(o: &Value, errors: &mut ErrorList) {
    match text(o, "spec.policyName") {
        "" => errors.required(&SPEC.child("policyName"), ""),
        name => errors.invalid_all(&SPEC.child("policyName"), name, names::dns1123_subdomain(name)),
    }
    if let Some(reference) = at(o, "spec.paramRef") {
        check_param_ref(reference, &SPEC.child("paramRef"), errors);
    }
    if let Some(resources) = at(o, "spec.matchResources") {
        check_match(resources, &SPEC.child("matchResources"), errors);
    }
    if text(o, "kind") == "ValidatingAdmissionPolicyBinding" {
        check_actions(array(o, "spec.validationActions"), &SPEC.child("validationActions"), errors);
    }
}

fn check_actions(actions: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    for (i, action) in actions.iter().enumerate() {
        if !["Deny", "Warn", "Audit"].iter().any(|known| action == known) {
            errors.not_supported(&path.index(i), action.clone(), &["Audit", "Deny", "Warn"]);
        }
        if actions[..i].contains(action) {
            errors.duplicate(&path.index(i), action.clone());
        }
    }
    if ["Deny", "Warn"].iter().all(|known| actions.iter().any(|a| a == known)) {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and \
                   headers serves no purpose)";
        errors.invalid(path, actions.to_vec(), why);
    }
    if actions.is_empty() {
        errors.required(path, "at least one validation action is required");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::tests::ctx;

    fn errors(strategy: &Strategy, mut policy: Value) -> String {
        strategy.default(&mut policy);
        strategy.prepare_create(&mut policy, &ctx());
        strategy.validate_create(&policy).message()
    }

    fn policy(more: Value) -> Value {
        let rule = json!({"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]});
        let mut policy = json!({"metadata": {"name": "p.example.com"}, "spec": {"matchConstraints": {"resourceRules": [rule]}}});
        for (field, value) in more.as_object().into_iter().flatten() {
            policy["spec"][field] = value.clone();
        }
        policy
    }

    #[test]
    fn expressions_are_compiled() {
        let fine = json!({
            "variables": [{"name": "n", "expression": "object.spec.replicas"}, {"name": "odd", "expression": "variables.n % 2 == 1"}],
            "validations": [{"expression": "variables.odd", "messageExpression": "'got ' + string(variables.n)"}],
            "matchConditions": [{"name": "c", "expression": "request.operation == 'CREATE'"}],
        });
        assert_eq!(errors(&VALIDATING, policy(fine)), "[]");
        let later = json!({"variables": [{"name": "a", "expression": "variables.b"}], "validations": [{"expression": "1"}]});
        let found = errors(&VALIDATING, policy(later));
        assert!(
            found.contains(
                "spec.variables[0].expression: Invalid value: \"variables.b\": compilation failed: ERROR: <input>:1:10: undefined field 'b'"
            ),
            "{found}"
        );
        assert!(found.contains("spec.validations[0].expression: Invalid value: \"1\": must evaluate to bool but got int"), "{found}");
        let bad = errors(
            &VALIDATING,
            policy(json!({"validations": [{"expression": "true"}], "matchConditions": [{"name": "c", "expression": "... [] bad"}]})),
        );
        assert!(
            bad.contains(
                "spec.matchConditions[0].expression: Invalid value: \"... [] bad\": compilation failed: ERROR: <input>:1:2: Syntax error"
            ),
            "{bad}"
        );
    }

    #[test]
    fn mutations_are_compiled() {
        let apply = json!({"reinvocationPolicy": "Never", "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{replicas: 1337}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/spec/replicas', value: 1}]"}}]});
        assert_eq!(errors(&MUTATING, policy(apply)), "[]");
        let wrong = json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "1"}}]});
        let found = errors(&MUTATING, policy(wrong));
        assert!(found.contains("must evaluate to list(JSONPatch) but got int"), "{found}");
        assert!(found.contains("spec.reinvocationPolicy: Required value"), "{found}");
    }
}
