//! Services: which pods they select, what kind they are.

use std::collections::BTreeMap;

use crate::api::core::v1::{Pod, Service};

/// The pod has all labels of the selector. A service without a selector selects nothing (somebody else writes its endpoints).
pub fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty()) else { return false };
    service.metadata.namespace == pod.metadata.namespace && has_all(pod.metadata.labels.as_ref(), selector)
}

pub fn has_all(labels: Option<&BTreeMap<String, String>>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
}

/// `clusterIP: None`.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

pub fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName")
}

pub fn requests_only_local_traffic(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) && spec.external_traffic_policy.as_deref() == Some("Local")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selection() {
        let service = |selector: serde_json::Value| -> Service {
            serde_json::from_value(json!({"metadata": {"namespace": "a"}, "spec": {"selector": selector}})).unwrap()
        };
        let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "a", "labels": {"x": "1", "y": "2"}}})).unwrap();
        assert!(selects(&service(json!({"x": "1"})), &pod));
        assert!(!selects(&service(json!({"x": "1", "z": "3"})), &pod));
        assert!(!selects(&service(json!({})), &pod));
        let mut elsewhere = pod.clone();
        elsewhere.metadata.namespace = Some("b".into());
        assert!(!selects(&service(json!({"x": "1"})), &elsewhere));
    }
}
