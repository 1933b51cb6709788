//! One APIService with a Service behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use rustls::ClientConfig;
use serde_json::Value;
use tiphys_base::tls::{self, ServerTrust};
use tiphys_meta::object;
use tiphys_schema::discovery::{Resource, ResponseKind, SubresourceInfo, Version};

use crate::documents::catalogue::Extra;
use crate::identity::Reloading;
use crate::objects::{at, items, text};

pub(crate) struct Remote {
    /// `v1alpha1.wardle.example.com`.
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) port: u64,
    trust: Trusted,
    /// How the server is verified, or why it cannot be.
    pub(crate) tls: Result<Arc<ClientConfig>, String>,
    available: AtomicBool,
    group_priority: AtomicI64,
    version_priority: AtomicI64,
    learned: Mutex<Learned>,
}

/// What the connection's configuration was made from.
#[derive(PartialEq, Eq)]
struct Trusted {
    ca_bundle: String,
    insecure: bool,
}

#[derive(Default)]
struct Learned {
    resources: Vec<Resource>,
    stale: bool,
    openapi: Option<String>,
}

impl Remote {
    /// None where the APIService is this server's own.
    pub(super) fn read(api_service: &Value, identity: Option<&Arc<Reloading>>) -> Option<Remote> {
        let spec = api_service.get("spec")?;
        let service = spec.get("service").filter(|s| s.is_object())?;
        let insecure = spec.get("insecureSkipTLSVerify").and_then(Value::as_bool).unwrap_or(false);
        let trust = Trusted { ca_bundle: text(spec, &["caBundle"]).to_owned(), insecure };
        let remote = Remote {
            name: object::name(api_service).to_owned(),
            group: text(spec, &["group"]).to_owned(),
            version: text(spec, &["version"]).to_owned(),
            namespace: text(service, &["namespace"]).to_owned(),
            service: text(service, &["name"]).to_owned(),
            port: service.get("port").and_then(Value::as_u64).unwrap_or(443),
            tls: config(&trust, identity).map(Arc::new),
            trust,
            available: AtomicBool::new(false),
            group_priority: AtomicI64::new(0),
            version_priority: AtomicI64::new(0),
            learned: Mutex::default(),
        };
        remote.update(api_service);
        Some(remote)
    }

    /// Takes over what may change without another server being meant.
    pub(super) fn update(&self, api_service: &Value) {
        let conditions = items(api_service, &["status", "conditions"]);
        let available = conditions.iter().any(|c| text(c, &["type"]) == "Available" && text(c, &["status"]) == "True");
        self.available.store(available, Ordering::Relaxed);
        let priority = |field: &str| at(api_service, &["spec", field]).and_then(Value::as_i64).unwrap_or(0);
        self.group_priority.store(priority("groupPriorityMinimum"), Ordering::Relaxed);
        self.version_priority.store(priority("versionPriority"), Ordering::Relaxed);
    }

    pub(super) fn same_place(&self, other: &Remote) -> bool {
        let place = |r: &Remote| (r.namespace.clone(), r.service.clone(), r.port);
        place(self) == place(other) && self.trust == other.trust
    }

    pub(crate) fn is_available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }

    /// The name that its certificate must be for.
    pub(crate) fn server_name(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// The path of its discovery document, which every such server has.
    pub(crate) fn path(&self) -> String {
        if self.group.is_empty() { format!("/api/{}", self.version) } else { format!("/apis/{}/{}", self.group, self.version) }
    }

    pub(super) fn learn(&self, resources: &Value) {
        let mut learned = self.learned.lock();
        learned.resources = read_resources(resources);
        learned.stale = false;
    }

    /// The hash of its OpenAPI document, where it has one.
    pub(super) fn learn_openapi(&self, hash: Option<String>) {
        self.learned.lock().openapi = hash;
    }

    pub(super) fn openapi(&self) -> Option<String> {
        self.learned.lock().openapi.clone()
    }

    pub(super) fn failed(&self) {
        self.learned.lock().stale = true;
    }

    pub(super) fn extra(&self) -> Extra {
        let learned = self.learned.lock();
        let unknown = learned.resources.is_empty() && !self.is_available();
        Extra {
            group: self.group.clone(),
            version: Version { version: self.version.clone(), resources: learned.resources.clone(), stale: learned.stale || unknown },
            group_priority: self.group_priority.load(Ordering::Relaxed),
            version_priority: self.version_priority.load(Ordering::Relaxed),
        }
    }
}

fn config(trust: &Trusted, identity: Option<&Arc<Reloading>>) -> Result<ClientConfig, String> {
    let bundle = tiphys_meta::base64::decode(&trust.ca_bundle).map_err(|e| format!("caBundle: {e}"))?;
    let trusted = match () {
        () if trust.insecure => ServerTrust::Anyone,
        () if bundle.is_empty() => ServerTrust::Machine,
        () => ServerTrust::Ca(&bundle),
    };
    let mut config = tls::client(trusted, None).map_err(|e| e.to_string())?;
    if let Some(identity) = identity {
        config.client_auth_cert_resolver = identity.clone();
    }
    Ok(config)
}

/// The resources of an `APIResourceList`; subresources stand in it as `resource/subresource`.
fn read_resources(list: &Value) -> Vec<Resource> {
    let all = items(list, &["resources"]);
    let strings = |value: &Value, field: &str| crate::objects::strings(value, field);
    let kind = |value: &Value| ResponseKind {
        group: text(value, &["group"]).to_owned(),
        version: text(value, &["version"]).to_owned(),
        kind: text(value, &["kind"]).to_owned(),
    };
    let mut resources: Vec<Resource> = all
        .iter()
        .filter(|r| !text(r, &["name"]).contains('/'))
        .map(|r| Resource {
            name: text(r, &["name"]).to_owned(),
            singular: text(r, &["singularName"]).to_owned(),
            kind: kind(r),
            namespaced: r.get("namespaced").and_then(Value::as_bool).unwrap_or(false),
            short_names: strings(r, "shortNames"),
            categories: strings(r, "categories"),
            verbs: strings(r, "verbs"),
            storage_version_hash: text(r, &["storageVersionHash"]).to_owned(),
            subresources: Vec::new(),
        })
        .collect();
    for value in all {
        let Some((of, name)) = text(value, &["name"]).split_once('/') else { continue };
        if let Some(resource) = resources.iter_mut().find(|r| r.name == of) {
            resource.subresources.push(SubresourceInfo { name: name.to_owned(), kind: kind(value), verbs: strings(value, "verbs") });
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn api_service(spec: Value, available: &str) -> Value {
        let status = json!({"conditions": [{"type": "Available", "status": available}]});
        json!({"metadata": {"name": "v1.x.example.com"}, "spec": spec, "status": status})
    }

    #[test]
    fn what_stands_behind_an_api_service() {
        let spec = json!({"group": "x.example.com", "version": "v1", "insecureSkipTLSVerify": true, "groupPriorityMinimum": 7, "versionPriority": 8,
            "service": {"namespace": "n", "name": "s", "port": 7443}});
        let remote = Remote::read(&api_service(spec.clone(), "True"), None).expect("a remote");
        assert!(remote.is_available() && remote.tls.is_ok());
        assert_eq!((remote.server_name().as_str(), remote.path().as_str()), ("s.n.svc", "/apis/x.example.com/v1"));
        let mut moved = spec.clone();
        moved["service"]["port"] = json!(443);
        assert!(!remote.same_place(&Remote::read(&api_service(moved, "True"), None).expect("a remote")));
        let mut unverified = spec.clone();
        unverified["insecureSkipTLSVerify"] = json!(false);
        assert!(Remote::read(&api_service(unverified.clone(), "False"), None).expect("a remote").tls.is_ok(), "the machine's CAs vouch");
        unverified["caBundle"] = json!("bm8gUEVN");
        assert!(Remote::read(&api_service(unverified, "False"), None).expect("a remote").tls.is_err(), "no PEM");
        let mut local = spec;
        local.as_object_mut().expect("object").remove("service");
        assert!(Remote::read(&api_service(local, "True"), None).is_none());
    }

    #[test]
    fn resources_with_their_subresources() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]},
            {"name": "flunders/status", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
        ]});
        let resources = read_resources(&list);
        assert_eq!(resources.len(), 1);
        assert_eq!((resources[0].kind.kind.as_str(), resources[0].subresources[0].name.as_str()), ("Flunder", "status"));
    }
}
