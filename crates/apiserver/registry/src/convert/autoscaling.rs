//! HorizontalPodAutoscaler `v1` and `v2`. What `v1` has no field for travels in the annotations that upstream uses for it, as the JSON of `v2`
//! (upstream writes an older shape there; nothing but the server reads it).

use serde_json::{Map, Value, json};
use tiphys_meta::object;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

fn annotate(tree: &mut Value, name: &str, value: &Value) {
    let annotations = object::as_map(object::meta_mut(tree).entry("annotations").or_insert(Value::Null));
    annotations.insert(name.to_owned(), Value::String(value.to_string()));
}

fn unannotate(tree: &mut Value, name: &str) -> Option<Value> {
    let meta = object::meta_mut(tree);
    let annotations = meta.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(name)?;
    if annotations.is_empty() {
        meta.remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn part<'a>(tree: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    tree.get_mut(name)?.as_object_mut()
}

fn is_cpu_utilization(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu" && metric["resource"]["target"]["type"] == "Utilization"
}

pub(super) fn v1_to_v2(tree: &mut Value) {
    let (others, behavior) = (unannotate(tree, METRICS), unannotate(tree, BEHAVIOR));
    let (conditions, current) = (unannotate(tree, CONDITIONS), unannotate(tree, CURRENT));
    if let Some(spec) = part(tree, "spec") {
        let mut metrics = others.and_then(|v| v.as_array().cloned()).unwrap_or_default();
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".into(), metrics.into());
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), behavior);
        }
    }
    let Some(status) = part(tree, "status") else { return };
    let mut metrics = current.and_then(|v| v.as_array().cloned()).unwrap_or_default();
    if let Some(percent) = status.remove("currentCPUUtilizationPercentage") {
        metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}));
    }
    if status.get("currentReplicas") == Some(&json!(0)) {
        status.remove("currentReplicas");
    }
    status.insert("currentMetrics".into(), if metrics.is_empty() { Value::Null } else { metrics.into() });
    if let Some(conditions) = conditions {
        status.insert("conditions".into(), conditions);
    }
}

pub(super) fn v2_to_v1(tree: &mut Value) {
    let mut kept: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = part(tree, "spec") {
        let mut metrics = spec.remove("metrics").and_then(|m| m.as_array().cloned()).unwrap_or_default();
        if let Some(cpu) = metrics.iter().position(is_cpu_utilization) {
            let metric = metrics.remove(cpu);
            spec.insert("targetCPUUtilizationPercentage".into(), metric["resource"]["target"]["averageUtilization"].clone());
        }
        kept.extend((!metrics.is_empty()).then(|| (METRICS, Value::from(metrics))));
        kept.extend(spec.remove("behavior").map(|b| (BEHAVIOR, b)));
    }
    if let Some(status) = part(tree, "status") {
        let mut metrics = status.remove("currentMetrics").and_then(|m| m.as_array().cloned()).unwrap_or_default();
        let cpu = |m: &Value| m["resource"]["name"] == "cpu" && !m["resource"]["current"]["averageUtilization"].is_null();
        if let Some(at) = metrics.iter().position(cpu) {
            let metric = metrics.remove(at);
            status.insert("currentCPUUtilizationPercentage".into(), metric["resource"]["current"]["averageUtilization"].clone());
        }
        kept.extend((!metrics.is_empty()).then(|| (CURRENT, Value::from(metrics))));
        kept.extend(status.remove("conditions").map(|c| (CONDITIONS, c)));
        // Only v2 leaves it out where it is zero.
        status.entry("currentReplicas").or_insert(json!(0));
    }
    kept.iter().for_each(|(name, value)| annotate(tree, name, value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let v2 = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "metrics": [cpu, memory], "behavior": {"scaleUp": {}}},
            "status": {"currentMetrics": null, "desiredReplicas": 0}});
        let mut tree = v2.clone();
        v2_to_v1(&mut tree);
        assert_eq!(tree["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
        v1_to_v2(&mut tree);
        assert_eq!(tree, v2);
    }
}
