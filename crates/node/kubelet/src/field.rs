//! The values that a pod can ask to know about itself (downward API): fields, and resources of its containers.

use crate::pod::spec;
use std::collections::BTreeMap;
use tiphys_meta::Quantity;
use tiphys_types::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use tiphys_types::resources::{self, CPU, MEMORY};

/// What is known of the node and the sandbox.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) pod_ips: Vec<String>,
    pub(crate) host_ips: Vec<String>,
    /// Stands in for limits that are not set.
    pub(crate) node_cpu_milli: i64,
    pub(crate) node_memory: i64,
    pub(crate) node_ephemeral: i64,
}

/// Of an environment variable.
pub(crate) fn field(selector: &ObjectFieldSelector, pod: &Pod, known: &Known) -> Result<String, String> {
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    Ok(match selector.field_path.as_str() {
        "spec.nodeName" => spec::spec(pod).node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec::spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&known.host_ips),
        "status.hostIPs" => known.host_ips.join(","),
        "status.podIP" => first(&known.pod_ips),
        "status.podIPs" => known.pod_ips.join(","),
        path => metadata(path, pod)?,
    })
}

/// What volumes and variables share.
pub(crate) fn metadata(path: &str, pod: &Pod) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((path, key)) = subscript(path) {
        let map = match path {
            "metadata.annotations" => &meta.annotations,
            "metadata.labels" => &meta.labels,
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => spec::uid(pod).to_owned(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (path, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((path, key))
}

/// One `key="value"` line per entry, sorted, quoted as Go does.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", tiphys_meta::field::go_quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// A resource in units of the divisor, rounded up.
pub(crate) fn resource(selector: &ResourceFieldSelector, pod: &Pod, of: Option<&Container>, known: &Known) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let container = match named {
        Some(name) => spec::container(pod, name).ok_or_else(|| format!("container {name} not found"))?,
        None => of.cloned().ok_or("container  not found")?,
    };
    let (kind, name) = selector.resource.split_once('.').ok_or_else(|| unsupported(selector))?;
    let list = container.resources.as_ref().and_then(|r| if kind == "limits" { r.limits.as_ref() } else { r.requests.as_ref() });
    let amount = list.and_then(|l| l.get(name)).map(resources::quantity).filter(|q| !q.is_zero());
    let fallback = |whole: Quantity| if kind == "limits" { whole } else { Quantity::ZERO };
    let divisor = selector.divisor.as_ref().map(resources::quantity).filter(|q| !q.is_zero()).unwrap_or(Quantity::from_milli(1000));
    match name {
        CPU => {
            let milli = amount.unwrap_or_else(|| fallback(Quantity::from_milli(known.node_cpu_milli))).milli();
            Ok(divide_up(milli, divisor.milli()).to_string())
        }
        MEMORY => {
            let bytes = amount.unwrap_or_else(|| fallback(Quantity::from(known.node_memory))).value();
            Ok(divide_up(bytes, divisor.value()).to_string())
        }
        "ephemeral-storage" => {
            let bytes = amount.unwrap_or_else(|| fallback(Quantity::from(known.node_ephemeral))).value();
            Ok(divide_up(bytes, divisor.value()).to_string())
        }
        _ if name.starts_with(resources::HUGE_PAGES_PREFIX) => {
            Ok(divide_up(amount.unwrap_or(Quantity::ZERO).value(), divisor.value()).to_string())
        }
        _ => Err(unsupported(selector)),
    }
}

fn unsupported(selector: &ResourceFieldSelector) -> String {
    format!("unsupported container resource : {}", selector.resource)
}

fn divide_up(amount: i64, divisor: i64) -> i64 {
    let divisor = divisor.max(1);
    amount / divisor + i64::from(amount % divisor > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "x\"y"}},
            "spec": {"nodeName": "node", "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "10Mi"}}}]}
        }))
        .expect("a pod")
    }

    #[test]
    fn fields() {
        let known = Known { pod_ips: vec!["10.0.0.1".into(), "fd::1".into()], ..Known::default() };
        for (path, expected) in [
            ("metadata.name", Ok("p")),
            ("metadata.labels", Ok("a=\"x\\\"y\"\nb=\"2\"")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.annotations['none']", Ok("")),
            ("status.podIP", Ok("10.0.0.1")),
            ("status.podIPs", Ok("10.0.0.1,fd::1")),
            ("spec.nodeName", Ok("node")),
            ("spec.hostname", Err("unsupported fieldPath: spec.hostname")),
        ] {
            let selector = ObjectFieldSelector { api_version: None, field_path: path.into() };
            assert_eq!(field(&selector, &pod(), &known), expected.map(str::to_owned).map_err(str::to_owned), "{path}");
        }
    }

    #[test]
    fn resources_are_rounded_up_and_default_to_the_node() {
        let known = Known { node_cpu_milli: 4000, node_memory: 1 << 30, ..Known::default() };
        for (resource_name, divisor, expected) in [
            ("limits.cpu", "", "2"),
            ("limits.cpu", "1m", "1500"),
            ("requests.cpu", "", "0"),
            ("limits.memory", "1Mi", "1024"),
            ("requests.memory", "1Mi", "10"),
            ("requests.memory", "3Mi", "4"),
        ] {
            let divisor =
                Some(divisor).filter(|d| !d.is_empty()).map(|d| tiphys_types::apimachinery::pkg::api::resource::Quantity(d.into()));
            let selector = ResourceFieldSelector { container_name: None, divisor, resource: resource_name.into() };
            let pod = pod();
            assert_eq!(resource(&selector, &pod, spec::containers(&pod).first(), &known).as_deref(), Ok(expected), "{resource_name}");
        }
    }
}
