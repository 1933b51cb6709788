//! What kinds that make pods share: checks of replicas, selectors and templates, rollout numbers, warnings.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::selector;

use crate::core::pod;
use crate::selectors;
use crate::tree::{array, at, int, map_at, text};

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
        Some(Err(_)) => {
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
        Some(Value::String(s)) => s.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()) == Some(0),
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
        errors.invalid(&status.child("availableReplicas"), available, "cannot be greater than status.readyReplicas");
    }
}

pub(crate) fn collision_count(new: &Value, old: &Value, errors: &mut ErrorList) {
    let (before, after) = (int(old, "status.collisionCount"), int(new, "status.collisionCount"));
    if after < before {
        errors.invalid(&Path::new("status").child("collisionCount"), after, "cannot be decremented");
    }
}

/// Names of pods derive from the object's.
pub(crate) fn name_warning(new: &Value, old: Option<&Value>) -> Vec<String> {
    let messages = names::dns1123_label(object::name(new));
    let mut all = Vec::new();
    if old.is_none() && !messages.is_empty() {
        all.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            messages.join(" ")
        ));
    }
    let template = |o: &Value| at(o, "spec.template").cloned();
    if old.is_none_or(|old| template(old) != template(new))
        && let Some(spec) = at(new, "spec.template.spec")
    {
        all.extend(pod_warnings(spec, "spec.template.spec"));
    }
    all
}

/// What a pod spec does that is legal and probably not meant. `base` is the spec's path.
pub(crate) fn pod_warnings(spec: &Value, base: &str) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(selector) = map_at(spec, "nodeSelector") {
        for (key, instead) in [
            ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
            ("beta.kubernetes.io/os", "kubernetes.io/os"),
            ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
            ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
            ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
        ] {
            if selector.contains_key(key) {
                all.push(format!("{base}.nodeSelector[{key}]: deprecated; use \"{instead}\" instead"));
            }
        }
    }
    for (i, alias) in array(spec, "hostAliases").iter().enumerate() {
        let ip = text(alias, "ip");
        if array(spec, "hostAliases")[..i].iter().any(|a| text(a, "ip") == ip) {
            all.push(format!("{base}.hostAliases[{i}].ip: duplicate ip \"{ip}\""));
        }
    }
    for (i, secret) in array(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            all.push(format!("{base}.imagePullSecrets[{i}].name: invalid empty name \"\""));
        }
    }
    for list in ["initContainers", "containers"] {
        for (i, container) in array(spec, list).iter().enumerate() {
            container_warnings(container, &format!("{base}.{list}[{i}]"), &mut all);
        }
    }
    if int(spec, "terminationGracePeriodSeconds") < 0 {
        all.push(format!("{base}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }

    all
}

fn container_warnings(container: &Value, path: &str, all: &mut Vec<String>) {
    let env = array(container, "env");
    for (i, variable) in env.iter().enumerate() {
        let name = text(variable, "name");
        if env[..i].iter().any(|v| text(v, "name") == name) {
            all.push(format!("{path}.env[{i}]: hides previous definition of \"{name}\", which may be dropped when using apply"));
        }
    }
    let ports = array(container, "ports");
    for (i, port) in ports.iter().enumerate() {
        let key = |p: &Value| (text(p, "protocol").to_owned(), int(p, "containerPort"));
        if let Some(earlier) = ports[..i].iter().position(|p| key(p) == key(port)) {
            all.push(format!("{path}.ports[{i}]: duplicate port definition with {path}.ports[{earlier}]"));
        }
    }
    for side in ["limits", "requests"] {
        let amount = at(container, "resources").and_then(|r| r.get(side)).and_then(|l| l.get("memory")).and_then(Value::as_str);
        if let Some(text) = amount.filter(|t| tiphys_meta::Quantity::parse(t).is_ok_and(|q| !q.is_integer())) {
            all.push(format!("{path}.resources.{side}[memory]: fractional byte value \"{text}\" is invalid, must be an integer"));
        }
    }
}

/// `spec.template`, or a part of another object that has one.
pub(crate) fn template_of(o: &Value) -> &Value {
    at(o, "spec.template").unwrap_or(&Value::Null)
}
