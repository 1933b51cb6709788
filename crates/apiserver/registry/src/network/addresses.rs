//! The IPAddress objects of Services: written and deleted together with the Service, so that neither is ever seen without the other.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, object};

use super::held_ips;
use crate::chance;
use crate::resource::Resource;
use crate::storage::Draft;

/// Who allocates, as the label `ipaddress.kubernetes.io/managed-by` says it.
const MANAGED_BY: &str = "ipallocator.k8s.io";

/// What a write of a Service writes beside it.
#[derive(Default)]
pub(crate) struct Beside {
    pub(crate) puts: Vec<Arc<Draft>>,
    pub(crate) deletes: Vec<Bytes>,
}

/// From the addresses held before to those held after; none of both for what is not there.
pub(crate) fn beside(addresses: &Resource, old: Option<&Value>, new: Option<&Value>, now: &str) -> Result<Beside, ApiError> {
    let held = |service: Option<&Value>| service.map(|s| held_ips(&s["spec"])).unwrap_or_default();
    let (before, after) = (held(old), held(new));
    let mut beside = Beside::default();
    for ip in after.iter().filter(|ip| !before.contains(ip)) {
        let tree = ip_address(*ip, new.unwrap_or(&Value::Null), now);
        beside.puts.push(Arc::new(Draft::new(&addresses.shape, addresses.key("", &ip.to_string()), tree)?));
    }
    let gone = before.iter().filter(|ip| !after.contains(ip));
    beside.deletes = gone.map(|ip| addresses.key("", &ip.to_string())).filter(|key| addresses.cache.get(key).is_some()).collect();
    Ok(beside)
}

fn ip_address(ip: IpAddr, service: &Value, now: &str) -> Value {
    let (family, managed_by) = ("ipaddress.kubernetes.io/ip-family", "ipaddress.kubernetes.io/managed-by");
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, format!("f:{family}"): {}, format!("f:{managed_by}"): {}}},
        "f:spec": {"f:parentRef": {".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}}},
    });
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": ip.to_string(),
            "uid": chance::uuid(),
            "creationTimestamp": now,
            "labels": {family: if ip.is_ipv4() { "IPv4" } else { "IPv6" }, managed_by: MANAGED_BY},
            "managedFields": [{"manager": "kube-apiserver", "operation": "Update", "apiVersion": "networking.k8s.io/v1", "time": now,
                "fieldsType": "FieldsV1", "fieldsV1": fields}],
        },
        "spec": {"parentRef": {"resource": "services", "namespace": object::namespace(service), "name": object::name(service)}},
    })
}
