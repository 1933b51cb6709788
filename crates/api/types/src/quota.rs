//! What an object takes from a ResourceQuota: admission charges it, the quota controller sums it up again; both must count alike.
//!
//! Absent: claims of devices under the names of extended resources (`DRAExtendedResource`).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tiphys_meta::Quantity;
use tiphys_meta::quantity::Format;

use crate::api::core::v1::Pod;
use crate::jiff;
use crate::pods;
use crate::qos;
use crate::resources::{self, HUGE_PAGES_PREFIX, Options, ResourceList};

/// Compute resources that a quota may name bare; `cpu` means `requests.cpu`.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Devices that a claim may get at most, where it wants all.
const ALL_DEVICES: i64 = 32;
const DEVICES_SUFFIX: &str = ".deviceclass.resource.k8s.io/devices";
const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";

/// `count/deployments.apps`, `count/pods`.
pub fn count_name(group: &str, resource: &str) -> String {
    if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") }
}

/// What the object takes, by the names that quotas use.
pub fn usage(group: &str, resource: &str, object: &Value, now: Timestamp) -> ResourceList {
    let one = || Quantity::new(1, Format::DecimalSi);
    let mut used = ResourceList::from([(count_name(group, resource), one())]);
    match (group, resource) {
        ("", "pods") => used.extend(of_pod(object, now)),
        ("", "services") => used.extend(of_service(object)),
        ("", "persistentvolumeclaims") => used.extend(of_claim(object)),
        ("resource.k8s.io", "resourceclaims") => used.extend(of_device_claim(object)),
        ("", "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
            used.insert(resource.to_owned(), one());
        }
        _ => {}
    }
    used
}

/// Which of the quota's names count objects of this resource.
pub fn tracked<'n>(group: &str, resource: &str, names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    let count = count_name(group, resource);
    let mine = |name: &str| {
        name == count
            || match (group, resource) {
                ("", "pods") => is_of_pods(name),
                ("", "services") => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
                ("", "persistentvolumeclaims") => {
                    matches!(name, "persistentvolumeclaims" | "requests.storage")
                        || name.contains(CLASS_SUFFIX) && (name.ends_with("requests.storage") || name.ends_with("persistentvolumeclaims"))
                }
                ("resource.k8s.io", "resourceclaims") => name.ends_with(DEVICES_SUFFIX),
                ("", "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => name == resource,
                _ => false,
            }
    };
    names.into_iter().filter(|name| mine(name)).collect()
}

fn is_of_pods(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    name == "pods" || COMPUTE.contains(&bare) || bare.starts_with(HUGE_PAGES_PREFIX) && !name.starts_with("limits.") || is_extended(name)
}

/// Extended resources are counted by what is requested of them only.
fn is_extended(name: &str) -> bool {
    name.strip_prefix("requests.")
        .is_some_and(|n| n.contains('/') && !n.contains("kubernetes.io/") || n.starts_with("deviceclass.resource.kubernetes.io/"))
        && !name.contains(CLASS_SUFFIX)
}

/// Whether the quota's scopes let it count this object.
pub fn in_scope(quota_spec: &Value, group: &str, resource: &str, object: &Value) -> bool {
    let mut scopes = scopes(quota_spec).peekable();
    if scopes.peek().is_none() {
        return true;
    }
    match (group, resource) {
        ("", "pods") => {}
        ("", "persistentvolumeclaims") => {
            return scopes.all(|(name, operator, values)| name == "VolumeAttributesClass" && claim_in_scope(object, operator, &values));
        }
        _ => return false,
    }
    let Ok(pod) = serde_json::from_value::<Pod>(object.clone()) else { return false };
    scopes.all(|(name, operator, values)| pod_in_scope(&pod, name, operator, &values))
}

/// (name, operator, values)
fn scopes(quota_spec: &Value) -> impl Iterator<Item = (&str, &str, Vec<&str>)> {
    let plain = quota_spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).map(|s| (s, "Exists", Vec::new()));
    let selected = quota_spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten().map(|e| {
        let text = |f: &str| e[f].as_str().unwrap_or("");
        (text("scopeName"), text("operator"), e["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect())
    });
    plain.chain(selected)
}

fn pod_in_scope(pod: &Pod, scope: &str, operator: &str, values: &[&str]) -> bool {
    match scope {
        "Terminating" => has_deadline(pod),
        "NotTerminating" => !has_deadline(pod),
        "BestEffort" => qos::compute(pod) == "BestEffort",
        "NotBestEffort" => qos::compute(pod) != "BestEffort",
        "PriorityClass" => {
            let class = pod.spec.as_ref().and_then(|s| s.priority_class_name.as_deref()).unwrap_or("");
            match operator {
                "In" => values.contains(&class),
                "NotIn" => !values.contains(&class),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// By the attributes classes that a claim has, wants, or is on its way to.
fn claim_in_scope(claim: &Value, operator: &str, values: &[&str]) -> bool {
    let places = [
        "/spec/volumeAttributesClassName",
        "/status/currentVolumeAttributesClassName",
        "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
    ];
    let classes: Vec<&str> = places.iter().filter_map(|p| claim.pointer(p)?.as_str()).filter(|c| !c.is_empty()).collect();
    match operator {
        "In" => classes.iter().any(|class| values.contains(class)),
        "NotIn" => classes.is_empty() || classes.iter().any(|class| !values.contains(class)),
        "DoesNotExist" => classes.is_empty(),
        _ => !classes.is_empty(),
    }
}

fn has_deadline(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.active_deadline_seconds).is_some_and(|d| d >= 0)
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else { return false };
    let required = [
        affinity.pod_affinity.as_ref().and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
        affinity.pod_anti_affinity.as_ref().and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let preferred = [
        affinity.pod_affinity.as_ref().and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
        affinity.pod_anti_affinity.as_ref().and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let terms = required.into_iter().flatten().flatten().chain(preferred.into_iter().flatten().flatten().map(|w| &w.pod_affinity_term));
    terms.into_iter().any(|t| t.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || t.namespace_selector.is_some())
}

/// Pods that are over, or should long be gone, take nothing but their count.
fn of_pod(object: &Value, now: Timestamp) -> ResourceList {
    let Ok(pod) = serde_json::from_value::<Pod>(object.clone()) else { return ResourceList::new() };
    if pods::is_terminal(&pod) || should_be_gone(&pod, now) {
        return ResourceList::new();
    }
    let mut used = ResourceList::from([("pods".to_owned(), Quantity::new(1, Format::DecimalSi))]);
    let options = Options { use_status: true, ..Options::default() };
    for (name, amount) in resources::requests_with(&pod, options) {
        if COMPUTE.contains(&name.as_str()) || name.starts_with(HUGE_PAGES_PREFIX) {
            used.insert(format!("requests.{name}"), amount);
            used.insert(name, amount);
        } else if name.contains('/') {
            used.insert(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in resources::limits_with(&pod, options) {
        if COMPUTE.contains(&name.as_str()) {
            used.insert(format!("limits.{name}"), amount);
        }
    }
    used
}

fn should_be_gone(pod: &Pod, now: Timestamp) -> bool {
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    pod.metadata.deletion_timestamp.as_ref().is_some_and(|at| now > at.0 + SignedDuration::from_secs(grace))
}

fn of_service(object: &Value) -> ResourceList {
    let spec = &object["spec"];
    let ports = spec["ports"].as_array().map_or(0, Vec::len);
    let explicit = || spec["ports"].as_array().into_iter().flatten().filter(|p| p["nodePort"].as_i64().unwrap_or(0) != 0).count();
    let (node_ports, balancers) = match spec["type"].as_str() {
        Some("NodePort") => (ports, 0),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => (explicit(), 1),
        Some("LoadBalancer") => (ports, 1),
        _ => (0, 0),
    };
    let number = |n: usize| Quantity::new(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSi);
    ResourceList::from([
        ("services".to_owned(), number(1)),
        ("services.nodeports".to_owned(), number(node_ports)),
        ("services.loadbalancers".to_owned(), number(balancers)),
    ])
}

fn of_claim(object: &Value) -> ResourceList {
    let one = Quantity::new(1, Format::DecimalSi);
    let mut used = ResourceList::from([("persistentvolumeclaims".to_owned(), one)]);
    let annotation = object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = annotation.or_else(|| object["spec"]["storageClassName"].as_str()).unwrap_or("");
    if !class.is_empty() {
        used.insert(format!("{class}{CLASS_SUFFIX}persistentvolumeclaims"), one);
    }
    let read = |v: &Value| v.as_str().and_then(|t| Quantity::parse(t).ok());
    let requested = read(&object["spec"]["resources"]["requests"]["storage"]);
    let allocated = read(&object["status"]["allocatedResources"]["storage"]);
    if let Some(storage) = requested.into_iter().chain(allocated).max() {
        used.insert("requests.storage".into(), storage);
        if !class.is_empty() {
            used.insert(format!("{class}{CLASS_SUFFIX}requests.storage"), storage);
        }
    }
    used
}

/// Devices by class; of alternatives the most that one of them may take.
fn of_device_claim(object: &Value) -> ResourceList {
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let devices = |request: &Value| {
        let count = match request["allocationMode"].as_str() {
            Some("ExactCount") => request["count"].as_i64().unwrap_or(0),
            Some("All") => ALL_DEVICES,
            _ => 0,
        };
        let class = request["deviceClassName"].as_str().unwrap_or("");
        (format!("{class}{DEVICES_SUFFIX}"), count)
    };
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    for request in list(&object["spec"]["devices"]["requests"]) {
        let mut most: BTreeMap<String, i64> = BTreeMap::new();
        let exactly = request.get("exactly").cloned();
        for (name, count) in list(&request["firstAvailable"]).into_iter().chain(exactly).map(|r| devices(&r)) {
            let known = most.entry(name).or_default();
            *known = count.max(*known);
        }
        most.into_iter().for_each(|(name, count)| *used.entry(name).or_default() += count);
    }
    used.into_iter().map(|(name, count)| (name, Quantity::new(count, Format::DecimalSi))).collect()
}

/// With a quota on cpu or memory every container must say what it wants of it (kept for compatibility). The containers that do not, by name.
pub fn missing_compute(names: &[&str], pod: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let spec = &pod["spec"];
    let mut missing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    if spec["resources"].as_object().is_some_and(|r| !r.is_empty()) {
        return missing;
    }
    let required =
        names.iter().filter(|n| matches!(**n, "cpu" | "memory" | "requests.cpu" | "requests.memory" | "limits.cpu" | "limits.memory"));
    for name in required {
        let (kind, resource) = name.split_once('.').unwrap_or(("requests", name));
        for container in ["containers", "initContainers"].iter().flat_map(|f| spec[*f].as_array().into_iter().flatten()) {
            if container["resources"][kind].get(resource).is_none() {
                missing.entry((*name).to_owned()).or_default().insert(container["name"].as_str().unwrap_or("").to_owned());
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(list: &ResourceList) -> BTreeMap<String, String> {
        list.iter().map(|(k, v)| (k.clone(), v.to_string())).collect()
    }

    #[test]
    fn a_pod_takes_what_it_asks_for_until_it_is_over() {
        let now = Timestamp::UNIX_EPOCH;
        let mut pod = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "100m", "example.com/x": "2"}, "limits": {"cpu": "1"}}}]}});
        let used = shown(&usage("", "pods", &pod, now));
        let want = [
            ("count/pods", "1"),
            ("cpu", "100m"),
            ("limits.cpu", "1"),
            ("pods", "1"),
            ("requests.cpu", "100m"),
            ("requests.example.com/x", "2"),
        ];
        assert_eq!(used, want.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
        pod["status"] = json!({"phase": "Succeeded"});
        assert_eq!(shown(&usage("", "pods", &pod, now)).len(), 1);
    }

    #[test]
    fn names_and_scopes() {
        let names =
            ["pods", "requests.cpu", "limits.memory", "services", "count/deployments.apps", "requests.example.com/x", "requests.storage"];
        assert_eq!(tracked("", "pods", names), ["pods", "requests.cpu", "limits.memory", "requests.example.com/x"]);
        assert_eq!(tracked("apps", "deployments", names), ["count/deployments.apps"]);
        let pod = json!({"spec": {"containers": [{"name": "a"}], "activeDeadlineSeconds": 5}});
        for (scope, want) in
            [("BestEffort", true), ("NotBestEffort", false), ("Terminating", true), ("NotTerminating", false), ("PriorityClass", false)]
        {
            assert_eq!(in_scope(&json!({"scopes": [scope]}), "", "pods", &pod), want, "{scope}");
        }
        assert!(!in_scope(&json!({"scopes": ["BestEffort"]}), "", "services", &json!({})));
        assert_eq!(missing_compute(&["requests.cpu", "pods"], &pod).get("requests.cpu").map(BTreeSet::len), Some(1));
    }

    #[test]
    fn services_and_claims() {
        let service = json!({"spec": {"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}});
        assert_eq!(shown(&usage("", "services", &service, Timestamp::UNIX_EPOCH)).get("services.nodeports").map(String::as_str), Some("2"));
        let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}});
        let used = shown(&usage("", "persistentvolumeclaims", &claim, Timestamp::UNIX_EPOCH));
        assert_eq!(used.get("gold.storageclass.storage.k8s.io/requests.storage").map(String::as_str), Some("1Gi"));
        let exactly = |count: i64| json!({"exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count}});
        let either = json!({"firstAvailable": [{"deviceClassName": "gpu", "allocationMode": "All"},
            {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3}]});
        let devices = json!({"spec": {"devices": {"requests": [exactly(2), exactly(3), either]}}});
        let used = shown(&usage("resource.k8s.io", "resourceclaims", &devices, Timestamp::UNIX_EPOCH));
        let want = [("count/resourceclaims.resource.k8s.io", "1"), ("gpu.deviceclass.resource.k8s.io/devices", "37")];
        assert_eq!(used, want.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
        let moving = json!({"spec": {"volumeAttributesClassName": "fast"}, "status": {"currentVolumeAttributesClassName": "slow"}});
        for (operator, values, of_moving, of_plain) in [
            ("In", json!(["fast"]), true, false),
            ("In", json!(["slow"]), true, false),
            ("In", json!(["other"]), false, false),
            ("NotIn", json!(["fast"]), true, true),
            ("NotIn", json!(["fast", "slow"]), false, true),
            ("Exists", json!([]), true, false),
            ("DoesNotExist", json!([]), false, true),
        ] {
            let expression = json!({"scopeName": "VolumeAttributesClass", "operator": operator, "values": values});
            let quota = json!({"scopeSelector": {"matchExpressions": [expression]}});
            let counts = |claim: &Value| in_scope(&quota, "", "persistentvolumeclaims", claim);
            assert_eq!((counts(&moving), counts(&claim)), (of_moving, of_plain), "{operator} {values}");
        }
    }
}
