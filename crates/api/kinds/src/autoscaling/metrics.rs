//! What a v2 autoscaler watches: checks of metrics, and their column.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, Quantity, names};

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
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field);
    let unknown = |errors: &mut ErrorList| errors.not_supported(&path.child("type"), kind, &SOURCES.map(|(name, _)| name));
    if expected.is_none() {
        unknown(errors);
    }
    let order = ["object", "external", "pods", "resource", "containerResource"];
    let present: Vec<&str> = order.into_iter().filter(|field| at(metric, field).is_some()).collect();
    if let Some((field, source)) = present.first().and_then(|field| Some((field, at(metric, field)?))) {
        check_source(field, source, &path.child(field), errors);
    }
    match expected {
        None => unknown(errors),
        Some(field) if !present.contains(&field) => {
            errors.required(&path.child(field), "must populate information for the given metric source");
        }
        Some(_) => {}
    }
    for other in present.iter().filter(|other| present.len() > 1 && Some(**other) != expected) {
        errors.forbidden(&path.child(other), "must populate the given metric source only");
    }
}

fn check_source(kind: &str, source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let target_path = path.child("target");
    let has = |field: &str| at(source, "target").and_then(|t| at(t, field)).is_some();
    if matches!(kind, "resource" | "containerResource") {
        if text(source, "name").is_empty() {
            errors.required(&path.child("name"), "must specify a resource name");
        }
        if kind == "containerResource" {
            check_container(source, path, errors);
        }
        check_target(at(source, "target").unwrap_or(&Value::Null), &target_path, errors);
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
        if kind == "object" {
            super::check_reference(at(source, "describedObject").unwrap_or(&Value::Null), &path.child("describedObject"), errors);
        }
        match text(source, "metric.name") {
            "" => errors.required(&path.child("metric.name"), "must specify a metric name"),
            name => errors.invalid_all(&path.child("metric.name"), name, names::path_segment(name, false)),
        }
        check_target(at(source, "target").unwrap_or(&Value::Null), &target_path, errors);
        if kind == "pods" && !has("averageValue") {
            errors.required(&target_path.child("averageValue"), "must specify a positive target averageValue");
        }
        if kind != "pods" && !has("value") && !has("averageValue") {
            let why = if kind == "external" {
                "must set either a target value for metric or a per-pod target"
            } else {
                "must set either a target value or averageValue"
            };
            errors.required(&target_path.child("averageValue"), why);
        }
    }
}

fn check_container(source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match text(source, "container") {
        "" => errors.required(&path.child("container"), "must specify a container"),
        name => errors.invalid_all(&path.child("container"), name, names::dns1123_label(name)),
    }
    let resource = text(source, "name");
    if !resource.is_empty() {
        crate::core::pod::resources::check_container_name(resource, &path.child("name"), errors);
    }
}

fn check_target(target: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match text(target, "type") {
        "Utilization" | "Value" | "AverageValue" => {}
        other => {
            if other.is_empty() {
                errors.required(&path.child("type"), "must specify a metric target type");
            }
            errors.invalid(&path.child("type"), other, "must be either Utilization, Value, or AverageValue");
        }
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
