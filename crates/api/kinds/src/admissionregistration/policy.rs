//! Admission policies in CEL, and their bindings.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use super::webhooks::{check_rule, match_conditions};
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, integer};
use crate::tree::{array, array_mut, at, present, set_absent, text};
use crate::workloads::SPEC;

const SHARED: Strategy = Strategy::new(false).spec_generation().unconditional_update(false);

pub(super) static VALIDATING: Strategy = SHARED
    .status("{}")
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

fn check_shared(o: &Value, errors: &mut ErrorList) {
    match text(o, "spec.failurePolicy") {
        "Fail" | "Ignore" => {}
        "" => errors.required(&SPEC.child("failurePolicy"), ""),
        other => errors.not_supported(&SPEC.child("failurePolicy"), other, &["Fail", "Ignore"]),
    }
    if let Some(kind) = at(o, "spec.paramKind") {
        for field in ["apiVersion", "kind"] {
            if text(kind, field).is_empty() {
                errors.required(&SPEC.child("paramKind").child(field), "");
            }
        }
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
    match_conditions(spec, &SPEC.child("matchConditions"), errors);
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
        }
    }
}

fn check_match(resources: &Value, path: &Path<'_>, errors: &mut ErrorList) {
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
    check_shared(o, errors);
    let validations = array(o, "spec.validations");
    if validations.is_empty() && array(o, "spec.auditAnnotations").is_empty() {
        for list in ["validations", "auditAnnotations"] {
            errors.required(&SPEC.child(list), "validations or auditAnnotations must contain at least one item");
        }
    }
    for (i, validation) in validations.iter().enumerate() {
        let list = SPEC.child("validations");
        let path = list.index(i);
        if text(validation, "expression").trim().is_empty() {
            errors.required(&path.child("expression"), "expression is not specified");
        }
        let reason = text(validation, "reason");
        if !matches!(reason, "" | "Unauthorized" | "Forbidden" | "Invalid" | "RequestEntityTooLarge") {
            errors.not_supported(&path.child("reason"), reason, &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
        }
    }
}

fn check_mutating(o: &Value, errors: &mut ErrorList) {
    check_shared(o, errors);
    if array(o, "spec.mutations").is_empty() {
        errors.required(&SPEC.child("mutations"), "mutations must contain at least one item");
    }
}

fn check_binding(o: &Value, errors: &mut ErrorList) {
    match text(o, "spec.policyName") {
        "" => errors.required(&SPEC.child("policyName"), ""),
        name => errors.invalid_all(&SPEC.child("policyName"), name, names::dns1123_subdomain(name)),
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
