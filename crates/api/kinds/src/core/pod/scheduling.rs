//! Checks of what the scheduler reads: affinity, tolerations, spreading, gates.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, names};

use crate::selectors;
use crate::tree::{array, at, int, one_of, text};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(affinity) = at(spec, "affinity") else { return };
    let path = path.child("affinity");
    if let Some(node) = at(affinity, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(required) = at(node, REQUIRED) {
            node_selector(required, &path.child(REQUIRED), errors);
        }
        for (i, term) in array(node, PREFERRED).iter().enumerate() {
            let (list, weight) = (path.child(PREFERRED), int(term, "weight"));
            let path = list.index(i);
            if !(1..=100).contains(&weight) {
                errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
            }
            // What no label can have is only warned of: the preference is never met.
            node_term(at(term, "preference").unwrap_or(&Value::Null), false, &path.child("preference"), errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(rules) = at(affinity, kind) else { continue };
        let path = path.child(kind);
        for (i, term) in array(rules, REQUIRED).iter().enumerate() {
            pod_term(term, &path.child(REQUIRED).index(i), errors);
        }
        for (i, weighted) in array(rules, PREFERRED).iter().enumerate() {
            let (list, weight) = (path.child(PREFERRED), int(weighted, "weight"));
            let path = list.index(i);
            if !(1..=100).contains(&weight) {
                errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
            }
            pod_term(at(weighted, "podAffinityTerm").unwrap_or(&Value::Null), &path.child("podAffinityTerm"), errors);
        }
    }
}

pub(crate) fn node_selector(selector: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let terms = array(selector, "nodeSelectorTerms");
    let list = path.child("nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&list, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(term, true, &list.index(i), errors);
    }
}

fn node_term(term: &Value, values_are_labels: bool, path: &Path<'_>, errors: &mut ErrorList) {
    for (i, expression) in array(term, "matchExpressions").iter().enumerate() {
        node_requirement(expression, values_are_labels, &path.child("matchExpressions").index(i), errors);
    }
    for (i, field) in array(term, "matchFields").iter().enumerate() {
        let (list, values) = (path.child("matchFields"), array(field, "values"));
        let path = list.index(i);
        match text(field, "operator") {
            "In" | "NotIn" if values.len() != 1 => {
                errors.required(&path.child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
            }
            "In" | "NotIn" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        if text(field, "key") != "metadata.name" {
            errors.invalid(&path.child("key"), text(field, "key"), "not a valid field selector key");
            continue;
        }
        for (i, name) in values.iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_all(&path.child("values").index(i), name, names::dns1123_subdomain(name));
        }
    }
}

fn node_requirement(expression: &Value, values_are_labels: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let values = array(expression, "values");
    let values_path = path.child("values");
    match text(expression, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&values_path, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&values_path, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    let key = text(expression, "key");
    errors.invalid_all(&path.child("key"), key, names::qualified_name(key));
    for (i, value) in values.iter().filter(|_| values_are_labels).filter_map(Value::as_str).enumerate() {
        errors.invalid_all(&values_path.index(i), value, names::label_value(value));
    }
}

fn pod_term(term: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["labelSelector", "namespaceSelector"] {
        selectors::check(at(term, field), &path.child(field), errors);
    }
    for name in array(term, "namespaces").iter().filter_map(Value::as_str) {
        errors.invalid_all(&path.child("namespace"), name, names::dns1123_label(name));
    }
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        label_keys(term, field, path, errors);
    }
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    errors.invalid_all(&path.child("topologyKey"), key, names::qualified_name(key));
}

fn label_keys(holder: &Value, field: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let keys = array(holder, field);
    if keys.is_empty() {
        return;
    }
    let list = path.child(field);
    if at(holder, "labelSelector").is_none() {
        errors.forbidden(&list, "must not be specified when labelSelector is not set");
    }
    for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        errors.invalid_all(&list.index(i), key, names::qualified_name(key));
    }
}

pub(crate) fn tolerations(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let list = path.child("tolerations");
    for (i, toleration) in array(spec, "tolerations").iter().enumerate() {
        let path = list.index(i);
        let (key, operator, value, effect) =
            (text(toleration, "key"), text(toleration, "operator"), text(toleration, "value"), text(toleration, "effect"));
        if !key.is_empty() {
            errors.invalid_all(&path.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&path.child("operator"), operator, why);
        }
        if at(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
            errors.invalid(&path.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator {
            "" | "Equal" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    errors.invalid(&path.child("operator"), value, messages.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid(&path.child("operator"), value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            // Lt and Gt are behind a gate that is off, but named in the message about them.
            "Lt" | "Gt" => errors.not_supported(&path.child("operator"), operator, &["Equal", "Exists", "Lt", "Gt"]),
            other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            crate::core::node::check_effect(effect, &path.child("effect"), errors);
        }
    }
}

pub(super) fn spread(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let list = path.child("topologySpreadConstraints");
    let all = array(spec, "topologySpreadConstraints");
    for (i, constraint) in all.iter().enumerate() {
        let path = list.index(i);
        let (skew, key, action) = (int(constraint, "maxSkew"), text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        if skew <= 0 {
            errors.invalid(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        if key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(&path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        if let Some(domains) = at(constraint, "minDomains").and_then(Value::as_i64) {
            if domains <= 0 {
                errors.invalid(&path.child("minDomains"), domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&path.child("minDomains"), domains, why);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            one_of(at(constraint, field), &["Honor", "Ignore"], &path.child(field), errors);
        }
        let pair = |c: &Value| (text(c, "topologyKey").to_owned(), text(c, "whenUnsatisfiable").to_owned());
        if all[i + 1..].iter().any(|c| pair(c) == pair(constraint)) {
            errors.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
        label_keys(constraint, "matchLabelKeys", &path, errors);
        selectors::check(at(constraint, "labelSelector"), &path.child("labelSelector"), errors);
    }
}

pub(super) fn gates(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let list = path.child("schedulingGates");
    let all = array(spec, "schedulingGates");
    for (i, gate) in all.iter().enumerate() {
        let name = text(gate, "name");
        errors.invalid_all(&list.index(i), name, names::qualified_name(name));
        if all[..i].contains(gate) {
            errors.duplicate(&list.index(i), name);
        }
    }
}
