//! What a v2 autoscaler watches: checks of metrics, and their column.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, Quantity};

use crate::tree::{array, at, text};

const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

pub(super) fn check(metric: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
        return;
    }
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        errors.not_supported(&path.child("type"), kind, &SOURCES.map(|(name, _)| name));
        return;
    };
    for (_, other) in SOURCES.iter().filter(|(_, other)| other != field && at(metric, other).is_some()) {
        errors.forbidden(&path.child(other), "must populate the given metric source only");
    }
    match at(metric, field) {
        None => errors.required(&path.child(field), "must populate information for the given metric source"),
        Some(source) => check_source(kind, source, &path.child(field), errors),
    }
}

fn check_source(kind: &str, source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let target_path = path.child("target");
    let has = |field: &str| at(source, "target").and_then(|t| at(t, field)).is_some();
    if matches!(kind, "Resource" | "ContainerResource") {
        if text(source, "name").is_empty() {
            errors.required(&path.child("name"), "must specify a resource name");
        }
        if kind == "ContainerResource" && text(source, "container").is_empty() {
            errors.required(&path.child("container"), "must specify a container");
        }
        match (has("averageUtilization"), has("averageValue")) {
            (false, false) => {
                errors.required(&target_path.child("averageUtilization"), "must set either a target raw value or a target utilization");
            }
            (true, true) => {
                errors.forbidden(&target_path.child("averageValue"), "may not set both a target raw value and a target utilization");
            }
            _ => {}
        }
    } else {
        if text(source, "metric.name").is_empty() {
            errors.required(&path.child("metric.name"), "must specify a metric name");
        }
        if kind == "Pods" && !has("averageValue") {
            errors.required(&target_path.child("averageValue"), "must specify a positive target averageValue");
        }
        if kind != "Pods" && !has("value") && !has("averageValue") {
            errors.required(&target_path.child("averageValue"), "must set either a target value or averageValue");
        }
        if kind == "Object" {
            super::check_reference(at(source, "describedObject").unwrap_or(&Value::Null), &path.child("describedObject"), errors);
        }
    }
    check_target(at(source, "target").unwrap_or(&Value::Null), &target_path, errors);
}

fn check_target(target: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match text(target, "type") {
        "Utilization" | "Value" | "AverageValue" => {}
        "" => errors.required(&path.child("type"), "must specify a metric target type"),
        other => errors.invalid(&path.child("type"), other, "must be either Utilization, Value, or AverageValue"),
    }
    for field in ["value", "averageValue"] {
        let amount = text(target, field);
        if Quantity::parse(amount).is_ok_and(|q| q.is_zero() || q.is_negative()) {
            errors.invalid(&path.child(field), amount, "must be positive");
        }
    }
    if let Some(percent) = at(target, "averageUtilization").and_then(Value::as_i64).filter(|p| *p < 1) {
        errors.invalid(&path.child("averageUtilization"), percent, "must be greater than 0");
    }
}

/// The first two, `current/target`.
pub(super) fn targets(o: &Value) -> String {
    let specs = array(o, "spec.metrics");
    if specs.is_empty() {
        return "<none>".into();
    }
    let current = array(o, "status.currentMetrics");
    let all: Vec<String> = specs.iter().enumerate().map(|(i, spec)| one(spec, current.get(i))).collect();
    let shown = all[..all.len().min(2)].join(", ");
    if all.len() > 2 { format!("{shown} + {} more...", all.len() - 2) } else { shown }
}

fn one(spec: &Value, status: Option<&Value>) -> String {
    let kind = text(spec, "type");
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind) else { return "<unknown type>".into() };
    let source = at(spec, field).unwrap_or(&Value::Null);
    let current = status.and_then(|s| at(s, field)).and_then(|s| at(s, "current"));
    let now = |value: &str| current.map(|c| text(c, value)).filter(|v| !v.is_empty()).unwrap_or("<unknown>").to_owned();
    let target = |value: &str| at(source, "target").map_or("", |t| text(t, value)).to_owned();
    let prefix = if matches!(kind, "Resource" | "ContainerResource") { format!("{}: ", text(source, "name")) } else { String::new() };
    if !target("averageValue").is_empty() {
        let suffix = if matches!(kind, "External" | "Object") { " (avg)" } else { "" };
        return format!("{prefix}{}/{}{suffix}", now("averageValue"), target("averageValue"));
    }
    if prefix.is_empty() {
        return format!("{}/{}", now("value"), target("value"));
    }
    let percent = |v: Option<&Value>, unset: &str| {
        v.and_then(|v| at(v, "averageUtilization")).and_then(Value::as_i64).map_or(unset.to_owned(), |p| format!("{p}%"))
    };
    format!("{prefix}{}/{}", percent(current, "<unknown>"), percent(at(source, "target"), "<auto>"))
}
