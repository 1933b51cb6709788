//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tiphys_cel::Type;
use tiphys_cel::admission::{Declared, Known, compile, env};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::strategy::{Column, Generation, Strategy};
use crate::table::{AGE, NAME, age, integer};
use crate::tree::{array, array_mut, at, int, one_of, present, set_absent, text};

const SHARED: Strategy =
    Strategy::new(false).generation(Generation::Fields(&["webhooks"])).unconditional_update(false).table(COLUMNS, cells);

pub(super) static MUTATING: Strategy = SHARED.defaults(mutating_defaults).checks(|o, errors| check(o, true, errors), |_, _, _| {});
pub(super) static VALIDATING: Strategy = SHARED.defaults(defaults).checks(|o, errors| check(o, false, errors), |_, _, _| {});

const COLUMNS: &[Column] = &[NAME, integer("Webhooks"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), json!(array(o, "webhooks").len()), age(o, now)]
}

fn defaults(o: &mut Value) {
    for hook in array_mut(o, "webhooks") {
        set_absent(hook, "failurePolicy", "Fail");
        set_absent(hook, "matchPolicy", "Equivalent");
        set_absent(hook, "namespaceSelector", json!({}));
        set_absent(hook, "objectSelector", json!({}));
        set_absent(hook, "timeoutSeconds", 10);
        array_mut(hook, "rules").iter_mut().for_each(|rule| set_absent(rule, "scope", "*"));
        if let Some(service) = present(hook, "clientConfig").and_then(|c| present(c, "service")) {
            set_absent(service, "port", 443);
        }
    }
}

fn mutating_defaults(o: &mut Value) {
    defaults(o);
    array_mut(o, "webhooks").iter_mut().for_each(|hook| set_absent(hook, "reinvocationPolicy", "Never"));
}

fn check(o: &Value, mutating: bool, errors: &mut ErrorList) {
    let list = Path::new("webhooks");
    let mut seen = BTreeSet::new();
    for (i, hook) in array(o, "webhooks").iter().enumerate() {
        let (path, name) = (list.index(i), text(hook, "name"));
        fully_qualified(name, &path.child("name"), errors);
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        for (j, rule) in array(hook, "rules").iter().enumerate() {
            check_rule(rule, &path.child("rules").index(j), errors);
        }
        check_choices(hook, mutating, &path, errors);
        let timeout = int(hook, "timeoutSeconds");
        if !(1..=30).contains(&timeout) {
            errors.invalid(&path.child("timeoutSeconds"), timeout, "the timeout value must be between 1 and 30 seconds");
        }
        for field in ["namespaceSelector", "objectSelector"] {
            crate::selectors::check(at(hook, field), &path.child(field), errors);
        }
        client_config(at(hook, "clientConfig").unwrap_or(&Value::Null), &path.child("clientConfig"), errors);
        match_conditions(hook, false, &path.child("matchConditions"), errors);
        review_versions(array(hook, "admissionReviewVersions"), &path.child("admissionReviewVersions"), errors);
    }
}

fn check_choices(hook: &Value, mutating: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let mut choices = vec![("failurePolicy", vec!["Fail", "Ignore"]), ("matchPolicy", vec!["Equivalent", "Exact"])];
    if mutating {
        choices.push(("reinvocationPolicy", vec!["IfNeeded", "Never"]));
    }
    for (field, known) in choices {
        one_of(at(hook, field), &known, &path.child(field), errors);
    }
    match text(hook, "sideEffects") {
        "None" | "NoneOnDryRun" => {}
        "" if at(hook, "sideEffects").is_none() => errors.required(&path.child("sideEffects"), "must specify one of None, NoneOnDryRun"),
        other => errors.not_supported(&path.child("sideEffects"), other, &["None", "NoneOnDryRun"]),
    }
}

/// A domain of three parts at least.
fn fully_qualified(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let messages = names::dns1123_subdomain(name);
    if name.is_empty() {
        errors.required(path, "");
    } else if !messages.is_empty() {
        errors.invalid(path, name, messages.join(","));
    } else if name.split('.').count() < 3 {
        errors.invalid(path, name, "should be a domain with at least three segments separated by dots");
    }
}

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

pub(super) fn check_rule(rule: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let operations = array(rule, "operations");
    let list = path.child("operations");
    if operations.is_empty() {
        errors.required(&list, "");
    }
    if operations.len() > 1 && operations.iter().any(|o| o == "*") {
        errors.invalid(&list, operations.to_vec(), "if '*' is present, must not specify other operations");
    }
    for (i, operation) in operations.iter().filter_map(Value::as_str).enumerate() {
        if !OPERATIONS.contains(&operation) {
            errors.not_supported(&list.index(i), operation, OPERATIONS);
        }
    }
    for (field, what) in [("apiGroups", "groups"), ("apiVersions", "versions")] {
        let (all, list) = (array(rule, field), path.child(field));
        if all.is_empty() {
            errors.required(&list, "");
        }
        if all.len() > 1 && all.iter().any(|v| v == "*") {
            let what = if what == "groups" { "API groups" } else { "API versions" };
            errors.invalid(&list, all.to_vec(), format!("if '*' is present, must not specify other {what}"));
        }
        if field == "apiVersions" {
            for (i, _) in all.iter().enumerate().filter(|(_, v)| *v == "") {
                errors.required(&list.index(i), "");
            }
        }
    }
    check_resources(array(rule, "resources"), &path.child("resources"), errors);
    one_of(at(rule, "scope"), &["*", "Cluster", "Namespaced"], &path.child("scope"), errors);
}

fn check_resources(resources: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    if resources.is_empty() {
        errors.required(path, "");
        return;
    }
    let all: Vec<&str> = resources.iter().filter_map(Value::as_str).collect();
    let shown = || resources.to_vec();
    for (i, resource) in all.iter().enumerate() {
        let item = path.index(i);
        if resource.is_empty() {
            errors.required(&item, "");
        }
        if *resource == "*/*" && all.len() > 1 {
            errors.invalid(path, shown(), "if '*/*' is present, must not specify other resources");
        }
        match resource.split_once('/') {
            Some((main, "*")) if main != "*" && all.iter().any(|r| is_part_of(r, main)) => {
                errors.invalid(&item, *resource, format!("if '{main}/*' is present, must not specify {resource}"));
            }
            None if *resource == "*" && all.iter().any(|r| !r.contains('/') && *r != "*") => {
                errors.invalid(path, shown(), "if '*' is present, must not specify other resources without subresources");
            }
            _ => {}
        }
    }
}

/// A named subresource of `main`.
fn is_part_of(resource: &str, main: &str) -> bool {
    resource.split_once('/').is_some_and(|(m, sub)| m == main && sub != "*")
}

pub(crate) fn client_config(config: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match (at(config, "url").and_then(Value::as_str), at(config, "service")) {
        (Some(url), None) => check_url(url, &path.child("url"), errors),
        (None, Some(service)) => check_service(service, &path.child("service"), errors),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn check_url(url: &str, path: &Path<'_>, errors: &mut ErrorList) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        errors.invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = if scheme.is_empty() { ("", rest) } else { rest.split_at(end) };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        errors.invalid(path, "", format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    let (before, fragment) = tail.split_once('#').map_or((tail, ""), |(b, f)| (b, f));
    if !fragment.is_empty() {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = before.split_once('?').filter(|(_, q)| !q.is_empty()) {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

fn check_service(service: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["name", "namespace"] {
        if text(service, field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    let port = int(service, "port");
    let messages = names::port_number(port);
    if !messages.is_empty() {
        errors.invalid(&path.child("port"), port, format!("port is not valid: {}", messages.join(", ")));
    }
    let url = text(service, "path");
    let path = path.child("path");
    if matches!(url, "" | "/") {
        return;
    }
    if !url.starts_with('/') {
        errors.invalid(&path, url, "must start with a '/'");
    }
    let inner = url.strip_prefix('/').unwrap_or(url);
    for (i, step) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&path, url, format!("segment[{i}] may not be empty"));
            continue;
        }
        for message in names::dns1123_subdomain(step) {
            errors.invalid(&path, url, format!("segment[{i}]: {message}"));
        }
    }
}

/// `params`: the conditions may refer to parameters.
pub(super) fn match_conditions(holder: &Value, params: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let all = array(holder, "matchConditions");
    let env = env(Declared { params, authorizer: true, patches: false }, &Known::default());
    if all.len() > 64 {
        errors.too_many(path, all.len(), 64);
    }
    for (i, condition) in all.iter().enumerate() {
        let (path, name) = (path.index(i), text(condition, "name"));
        match text(condition, "expression").trim() {
            "" => errors.required(&path.child("expression"), ""),
            expression => {
                if let Err(why) = compile(expression, &env, &[Type::Bool]) {
                    errors.invalid(&path.child("expression"), expression, why);
                }
            }
        }
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_all(&path.child("name"), name, names::qualified_name(name));
            if all[..i].iter().any(|c| text(c, "name") == name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
    }
}

fn review_versions(versions: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    if versions.is_empty() {
        errors.required(path, "must specify one of v1, v1beta1");
        return;
    }
    for (i, version) in versions.iter().enumerate() {
        if versions[..i].contains(version) {
            errors.invalid(&path.index(i), version.clone(), "duplicate version");
        }
        let version = version.as_str().unwrap_or("");
        for message in names::dns1035_label(version) {
            errors.invalid(&path.index(i), version, message);
        }
    }
    if !versions.iter().any(|v| matches!(v.as_str(), Some("v1" | "v1beta1"))) {
        errors.invalid(path, versions.to_vec(), "must include at least one of v1, v1beta1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defaulted_webhook_is_valid() {
        let mut o = json!({"metadata": {"name": "w"}, "webhooks": [{"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/x"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]});
        MUTATING.default(&mut o);
        let errors = MUTATING.validate_create(&o);
        assert!(errors.is_empty(), "{}", errors.message());
        assert_eq!(o["webhooks"][0]["clientConfig"]["service"]["port"], 443);
        o["webhooks"][0]["name"] = json!("a.b");
        o["webhooks"][0]["clientConfig"] = json!({"url": "http://u@h/x?y#z"});
        assert_eq!(MUTATING.validate_create(&o).len(), 5);
    }
}
