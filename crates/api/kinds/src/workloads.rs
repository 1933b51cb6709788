//! What kinds that make pods share: checks of replicas, selectors and templates, rollout numbers, warnings.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::selector;

use crate::core::pod;
use crate::selectors;
use crate::tree::{at, int, text};

pub(crate) const SPEC: Path<'static> = Path::new("spec");

pub(crate) fn not_negative(o: &Value, at_path: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let value = int(o, at_path);
    if value < 0 {
        errors.invalid(path, value, "must be greater than or equal to 0");
    }
}

/// Fields of the spec that count something.
pub(crate) fn counts(o: &Value, fields: &[&str], errors: &mut ErrorList) {
    for field in fields {
        not_negative(o, &format!("spec.{field}"), &SPEC.child(field), errors);
    }
}

/// A selector that selects something, and a template that it selects.
pub(crate) fn selector_and_template(o: &Value, kind: &str, errors: &mut ErrorList) {
    let path = SPEC.child("selector");
    let selector = at(o, "spec.selector");
    match selector {
        None if kind == "daemonset" => {}
        None => errors.required(&path, ""),
        Some(selector) => {
            selectors::check(Some(selector), &path, errors);
            if selectors::is_empty(selector) {
                errors.invalid(&path, selector.clone(), format!("empty selector is invalid for {kind}"));
            }
        }
    }
    let empty = json!({});
    let template = at(o, "spec.template").unwrap_or(&empty);
    let template_path = SPEC.child("template");
    let parsed = selector.map(selector::from_value);
    match parsed {
        Some(Ok(tiphys_meta::LabelSelector::Nothing)) | None => {
            let labels = at(template, "metadata.labels").cloned().unwrap_or(Value::Null);
            errors.invalid(&template_path.child("metadata.labels"), labels, "`selector` does not match template `labels`");
        }
        Some(Ok(parsed)) if !parsed.is_everything() && !parsed.matches_object(template) => {
            let labels = at(template, "metadata.labels").cloned().unwrap_or(Value::Null);
            errors.invalid(&template_path.child("metadata.labels"), labels, "`selector` does not match template `labels`");
        }
        // Of a daemon set only the selector's own errors are told.
        Some(Err(_)) if kind != "daemonset" => {
            errors.invalid(&path, selector.cloned().unwrap_or_default(), if kind == "statefulset" { "" } else { "invalid label selector" })
        }
        _ => {}
    }
    pod::validation::template(template, &template_path, errors);
}

/// Pods that a controller keeps up restart always, and have no deadline.
pub(crate) fn always_restarts(template: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let policy = text(template, "spec.restartPolicy");
    if policy != "Always" {
        errors.not_supported(&path.child("spec.restartPolicy"), policy, &["Always"]);
    }
    if at(template, "spec.activeDeadlineSeconds").is_some() {
        errors.forbidden(&path.child("spec.activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicaSet is not Supported");
    }
}

/// A count, or a percentage.
pub(crate) fn count_or_percent(value: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    match value {
        Some(Value::String(s)) => {
            for message in names::percent(s) {
                errors.invalid(path, s.as_str(), message);
            }
        }
        Some(Value::Number(n)) if n.as_i64().is_some_and(|n| n < 0) => {
            errors.invalid(path, n.as_i64(), "must be greater than or equal to 0");
        }
        _ => {}
    }
}

pub(crate) fn at_most_all(value: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(s) = value.and_then(Value::as_str)
        && let Some(percent) = s.strip_suffix('%').and_then(|p| p.parse::<i64>().ok())
        && percent > 100
    {
        errors.invalid(path, s, "must not be greater than 100%");
    }
}

/// Nothing, in either form.
pub(crate) fn is_zero(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()).unwrap_or(0) == 0,
        Some(other) => other.as_i64() == Some(0),
    }
}

/// Counters of a status: not negative, and none above `replicas`.
pub(crate) fn status_counts(new: &Value, fields: &[&str], errors: &mut ErrorList) {
    let status = Path::new("status");
    let replicas = int(new, "status.replicas");
    for field in fields {
        let value = int(new, &format!("status.{field}"));
        if value < 0 {
            errors.invalid(&status.child(field), value, "must be greater than or equal to 0");
        }
        if value > replicas {
            errors.invalid(&status.child(field), value, "cannot be greater than status.replicas");
        }
    }
    let (available, ready) = (int(new, "status.availableReplicas"), int(new, "status.readyReplicas"));
    if available > ready {
        errors.invalid(&status.child("availableReplicas"), available, "cannot be greater than readyReplicas");
    }
}

pub(crate) fn collision_count(new: &Value, old: &Value, errors: &mut ErrorList) {
    let (before, after) = (int(old, "status.collisionCount"), int(new, "status.collisionCount"));
    if after < before {
        errors.invalid(&Path::new("status").child("collisionCount"), after, "cannot be decremented");
    }
}

/// Names of pods derive from the object's.
pub(crate) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut all = name_warnings(new, old);
    all.extend(template_warnings(new, old));
    all
}

pub(crate) fn name_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let messages = names::dns1123_label(object::name(new));
    let mut all = Vec::new();
    if old.is_none() && !messages.is_empty() {
        all.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            messages.join(" ")
        ));
    }
    all
}

/// Warnings about the template, where it is new.
pub(crate) fn template_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let template = |o: &Value| at(o, "spec.template").cloned();
    match at(new, "spec.template") {
        Some(own) if old.is_none_or(|old| template(old) != template(new)) => pod::warnings::pod(own, "spec.template"),
        _ => Vec::new(),
    }
}

/// `spec.template`, or a part of another object that has one.
pub(crate) fn template_of(o: &Value) -> &Value {
    at(o, "spec.template").unwrap_or(&Value::Null)
}
