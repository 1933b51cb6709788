//! What the door itself must know of objects (roles, pods, service accounts, endpoints …): plain reads of the registry's caches.

use std::sync::Arc;

use serde_json::Value;
use tiphys_meta::Gvr;

/// Reads without waiting. An object is as fresh as the watch cache.
pub trait Objects: Send + Sync + 'static {
    fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// All objects of a resource; of one namespace where that is not empty.
    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Arc<Value>>;

    /// What changes when the object does; none where there is no such object.
    fn revision(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<i64> {
        self.get(gvr, namespace, name).map(|o| tiphys_meta::object::resource_version(&o).parse().unwrap_or(0))
    }

    /// The pods of a node, in one namespace where that is not empty.
    fn pods_on(&self, node: &str, namespace: &str) -> Vec<Arc<Value>> {
        let mut pods = self.list(&known::PODS, namespace);
        pods.retain(|pod| text(pod, &["spec", "nodeName"]) == node);
        pods
    }
}

/// The registry's caches.
pub struct Cached {
    registry: Arc<tiphys_registry::Registry>,
}

impl Cached {
    pub fn new(registry: Arc<tiphys_registry::Registry>) -> Self {
        Cached { registry }
    }
}

impl Objects for Cached {
    fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.registry.get_value(gvr, namespace, name).map(Arc::new)
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Arc<Value>> {
        let entries = self.registry.cached(gvr).map(|cache| cache.list(namespace)).unwrap_or_default();
        entries.iter().map(|entry| Arc::new(entry.to_value())).collect()
    }

    fn revision(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<i64> {
        self.registry.cached(gvr)?.get(namespace, name).map(|entry| entry.revision())
    }

    /// By the field that the cache keeps beside the object, so that other nodes' pods are not even parsed.
    fn pods_on(&self, node: &str, namespace: &str) -> Vec<Arc<Value>> {
        let pods = self.registry.cached(&known::PODS).map(|cache| cache.list(namespace)).unwrap_or_default();
        let here = pods.iter().filter(|pod| pod.field("spec.nodeName") == Some(node));
        here.map(|pod| Arc::new(pod.to_value())).collect()
    }
}

macro_rules! resources {
    ($($name:ident = $group:literal / $version:literal / $resource:literal),* $(,)?) => {
        $(pub const $name: Gvr = Gvr {
            group: std::borrow::Cow::Borrowed($group),
            version: std::borrow::Cow::Borrowed($version),
            resource: std::borrow::Cow::Borrowed($resource),
        };)*
    };
}

/// The resources that the door reads or writes by itself.
pub mod known {
    use tiphys_meta::Gvr;
    resources! {
        PODS = "" / "v1" / "pods",
        NODES = "" / "v1" / "nodes",
        SECRETS = "" / "v1" / "secrets",
        CONFIG_MAPS = "" / "v1" / "configmaps",
        SERVICE_ACCOUNTS = "" / "v1" / "serviceaccounts",
        SERVICES = "" / "v1" / "services",
        ENDPOINTS = "" / "v1" / "endpoints",
        NAMESPACES = "" / "v1" / "namespaces",
        PERSISTENT_VOLUMES = "" / "v1" / "persistentvolumes",
        PERSISTENT_VOLUME_CLAIMS = "" / "v1" / "persistentvolumeclaims",
        ENDPOINT_SLICES = "discovery.k8s.io" / "v1" / "endpointslices",
        VOLUME_ATTACHMENTS = "storage.k8s.io" / "v1" / "volumeattachments",
        RESOURCE_SLICES = "resource.k8s.io" / "v1" / "resourceslices",
        PRIORITY_CLASSES = "scheduling.k8s.io" / "v1" / "priorityclasses",
        SERVICE_CIDRS = "networking.k8s.io" / "v1" / "servicecidrs",
        ROLES = "rbac.authorization.k8s.io" / "v1" / "roles",
        CLUSTER_ROLES = "rbac.authorization.k8s.io" / "v1" / "clusterroles",
        ROLE_BINDINGS = "rbac.authorization.k8s.io" / "v1" / "rolebindings",
        CLUSTER_ROLE_BINDINGS = "rbac.authorization.k8s.io" / "v1" / "clusterrolebindings",
        MUTATING_WEBHOOKS = "admissionregistration.k8s.io" / "v1" / "mutatingwebhookconfigurations",
        VALIDATING_WEBHOOKS = "admissionregistration.k8s.io" / "v1" / "validatingwebhookconfigurations",
        LEASES = "coordination.k8s.io" / "v1" / "leases",
        API_SERVICES = "apiregistration.k8s.io" / "v1" / "apiservices",
        CUSTOM_RESOURCE_DEFINITIONS = "apiextensions.k8s.io" / "v1" / "customresourcedefinitions",
        FLOW_SCHEMAS = "flowcontrol.apiserver.k8s.io" / "v1" / "flowschemas",
        PRIORITY_LEVELS = "flowcontrol.apiserver.k8s.io" / "v1" / "prioritylevelconfigurations",
    }
}

/// `value.a.b.c` as text; empty where it is missing.
pub fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    at(value, path).and_then(Value::as_str).unwrap_or("")
}

pub fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |v, field| v.get(field))
}

pub fn items<'v>(value: &'v Value, path: &[&str]) -> &'v [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub fn strings(value: &Value, field: &str) -> Vec<String> {
    value.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A label selector (`metav1.LabelSelector`) against the labels of an object; a selector that says nothing matches everything.
pub(crate) fn selector_matches(selector: &Value, object: &Value) -> bool {
    let label = |key: &str| tiphys_meta::object::labels(object).find(|(k, _)| *k == key).map(|(_, v)| v);
    let equal = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let mut equal = equal.map(|(k, v)| label(k) == v.as_str());
    let mut expressions = items(selector, &["matchExpressions"]).iter().map(|e| {
        let values = strings(e, "values");
        let found = label(text(e, &["key"]));
        match text(e, &["operator"]) {
            "In" => found.is_some_and(|v| values.iter().any(|x| x == v)),
            "NotIn" => found.is_none_or(|v| values.iter().all(|x| x != v)),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => false,
        }
    });
    equal.all(|matches| matches) && expressions.all(|matches| matches)
}

#[cfg(test)]
pub mod fake {
    use std::collections::BTreeMap;

    use tiphys_meta::object;

    use super::*;

    type Key = (Gvr, String, String);

    /// Objects in a map, for tests. Every write has a revision of its own.
    #[derive(Default)]
    pub struct FakeObjects(parking_lot::Mutex<(i64, BTreeMap<Key, (i64, Arc<Value>)>)>);

    fn key(gvr: &Gvr, namespace: &str, name: &str) -> Key {
        (gvr.clone(), namespace.to_owned(), name.to_owned())
    }

    impl FakeObjects {
        pub fn put(&self, gvr: &Gvr, value: Value) {
            let key = key(gvr, object::namespace(&value), object::name(&value));
            let (revision, all) = &mut *self.0.lock();
            *revision += 1;
            all.insert(key, (*revision, Arc::new(value)));
        }
    }

    impl Objects for FakeObjects {
        fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Arc<Value>> {
            self.0.lock().1.get(&key(gvr, namespace, name)).map(|(_, value)| value.clone())
        }

        fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Arc<Value>> {
            let (_, all) = &*self.0.lock();
            let here = all.iter().filter(|((g, ns, _), _)| g == gvr && (namespace.is_empty() || ns == namespace));
            here.map(|(_, (_, value))| value.clone()).collect()
        }

        fn revision(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<i64> {
            self.0.lock().1.get(&key(gvr, namespace, name)).map(|(revision, _)| *revision)
        }
    }
}
