//! `autoscaling`: HorizontalPodAutoscaler, in its old form (v1: CPU alone) and its new one (v2).

mod metrics;

use serde_json::{Map, Value, json};
use tiphys_meta::{ErrorList, Path, names, object};
use tiphys_types::jiff::Timestamp;

use crate::resources::Entry;
use crate::strategy::{Column, Strategy, Subresource, keep_all_but_status};
use crate::table::{AGE, NAME, age, column};
use crate::tree::{array, at, child, int, one_of, present, set_absent, text};
use crate::workloads::{self, SPEC};

const SUBRESOURCES: &[Subresource] = &[Subresource { name: "status", prepare_update: keep_all_but_status, validate_update: check_status }];

static HPA_V1: Strategy = Strategy::new(true)
    .status(r#"{"currentReplicas":0,"desiredReplicas":0}"#)
    .defaults(|o| set_absent(child(o, "spec"), "minReplicas", 1))
    .subresources(SUBRESOURCES)
    .checks(check, |_, _, _| {})
    .table(COLUMNS, cells);
static HPA_V2: Strategy = Strategy::new(true)
    .status(r#"{"currentMetrics":null,"desiredReplicas":0}"#)
    .defaults(defaults)
    .subresources(SUBRESOURCES)
    .checks(check_v2, |_, _, _| {})
    .table(COLUMNS, cells);

pub(crate) const RESOURCES: &[Entry] =
    &[Entry::of("v1", "horizontalpodautoscalers", &HPA_V1), Entry::new("horizontalpodautoscalers", &HPA_V2)];

fn defaults(o: &mut Value) {
    let spec = child(o, "spec");
    set_absent(spec, "minReplicas", 1);
    if array(spec, "metrics").is_empty() {
        spec["metrics"] =
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    }
    let Some(behavior) = present(spec, "behavior") else { return };
    let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]});
    let down = json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]});
    for (direction, defaults) in [("scaleUp", up), ("scaleDown", down)] {
        let rules = child(behavior, direction);
        for (field, value) in defaults.as_object().unwrap_or(&Map::new()) {
            set_absent(rules, field, value.clone());
        }
    }
}

fn check(o: &Value, errors: &mut ErrorList) {
    let (min, max) = (int(o, "spec.minReplicas"), int(o, "spec.maxReplicas"));
    if min < 1 {
        errors.invalid(&SPEC.child("minReplicas"), min, "must be greater than or equal to 1");
    }
    match max {
        0 => errors.required(&SPEC.child("maxReplicas"), "must be set and greater than 0"),
        ..0 => errors.invalid(&SPEC.child("maxReplicas"), max, "must be greater than or equal to 1"),
        _ => {}
    }
    if max < min {
        errors.invalid(&SPEC.child("maxReplicas"), max, "must be greater than or equal to `minReplicas`");
    }
    check_reference(at(o, "spec.scaleTargetRef").unwrap_or(&Value::Null), &SPEC.child("scaleTargetRef"), errors);
    check_group(o, errors);
}

pub(super) fn check_reference(reference: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["kind", "name"] {
        let value = text(reference, field);
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else {
            errors.invalid_all(&path.child(field), value, names::path_segment(value, false));
        }
    }
}

/// The core group may be meant only by kinds that live there; a target's group must be said.
fn check_group(o: &Value, errors: &mut ErrorList) {
    let (version, kind) = (text(o, "spec.scaleTargetRef.apiVersion"), text(o, "spec.scaleTargetRef.kind"));
    let path = SPEC.child("scaleTargetRef.apiVersion");
    match version.matches('/').count() {
        0 if kind != "ReplicationController" => errors.invalid(&path, version, "apiVersion must specify API group"),
        0 | 1 => {}
        _ => errors.invalid(&path, version, format!("unexpected GroupVersion string: {version}")),
    }
}

fn check_v2(o: &Value, errors: &mut ErrorList) {
    check(o, errors);
    let outside = array(o, "spec.metrics").iter().any(|m| matches!(text(m, "type"), "Object" | "External"));
    for (i, metric) in array(o, "spec.metrics").iter().enumerate() {
        metrics::check(metric, &SPEC.child("metrics").index(i), errors);
    }
    if int(o, "spec.minReplicas") == 0 && !outside {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(&SPEC.child("metrics"), why);
    }
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = at(o, "spec.behavior").and_then(|b| at(b, direction)) {
            check_rules(rules, &SPEC.child("behavior").child(direction), errors);
        }
    }
}

fn check_rules(rules: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let window = int(rules, "stabilizationWindowSeconds");
    let window_path = path.child("stabilizationWindowSeconds");
    if window < 0 {
        errors.invalid(&window_path, window, "must be greater than or equal to zero");
    } else if window > 3600 {
        errors.invalid(&window_path, window, "must be less than or equal to 3600");
    }
    one_of(at(rules, "selectPolicy"), &["Disabled", "Max", "Min"], &path.child("selectPolicy"), errors);
    let (policies, list) = (array(rules, "policies"), path.child("policies"));
    if policies.is_empty() {
        errors.required(&list, "must specify at least one Policy");
    }
    for (i, policy) in policies.iter().enumerate() {
        let path = list.index(i);
        if !matches!(text(policy, "type"), "Pods" | "Percent") {
            errors.not_supported(&path.child("type"), text(policy, "type"), &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            if int(policy, field) <= 0 {
                errors.invalid(&path.child(field), int(policy, field), "must be greater than zero");
            }
        }
        if int(policy, "periodSeconds") > 1800 {
            errors.invalid(&path.child("periodSeconds"), int(policy, "periodSeconds"), "must be less than or equal to 1800");
        }
    }
}

fn check_status(new: &Value, _: &Value, errors: &mut ErrorList) {
    let status = Path::new("status");
    for field in ["currentReplicas", "desiredReplicas"] {
        workloads::not_negative(new, &format!("status.{field}"), &status.child(field), errors);
    }
}

const COLUMNS: &[Column] = &[NAME, column("Reference"), column("Targets"), column("MinPods"), column("MaxPods"), column("Replicas"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let reference = format!("{}/{}", text(o, "spec.scaleTargetRef.kind"), text(o, "spec.scaleTargetRef.name"));
    let targets = match at(o, "spec.targetCPUUtilizationPercentage").and_then(Value::as_i64) {
        Some(target) => {
            let current = at(o, "status.currentCPUUtilizationPercentage").and_then(Value::as_i64);
            format!("cpu: {}/{target}%", current.map_or("<unknown>".to_owned(), |c| format!("{c}%")))
        }
        None => metrics::targets(o),
    };
    let min = at(o, "spec.minReplicas").map_or("<unset>".to_owned(), Value::to_string);
    vec![
        object::name(o).into(),
        reference.into(),
        targets.into(),
        min.into(),
        json!(int(o, "spec.maxReplicas")),
        json!(int(o, "status.currentReplicas")),
        age(o, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_validate() {
        let mut o = json!({"metadata": {"name": "h", "namespace": "d"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "x", "apiVersion": "apps/v1"}, "behavior": {"scaleUp": {"selectPolicy": "Min"}}}});
        HPA_V2.default(&mut o);
        let once = o.clone();
        HPA_V2.default(&mut o);
        assert_eq!(once, o);
        assert!(HPA_V2.validate_create(&o).is_empty(), "{}", HPA_V2.validate_create(&o).message());
        assert_eq!(o["spec"]["behavior"]["scaleUp"]["selectPolicy"], "Min");
        assert_eq!(cells(&o, Timestamp::UNIX_EPOCH)[2], "cpu: <unknown>/80%");
    }
}
