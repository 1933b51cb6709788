//! ServiceAccount: pods get an account, its token and its pull secrets; what they refer to is limited where the account says so.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tiphys_meta::{ApiError, Gvr, generate_name, object};

use super::tree::{containers, is_mirror, list, list_mut, spec, text};
use super::{Attributes, Operation, Plugin};
use crate::chance;
use crate::registry::Registry;
use crate::storage::Entry;

pub(super) struct ServiceAccount;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";
/// An hour; by the seven the server tells tokens that the plugin mounted from others and lets them live longer (KEP-1205).
const TOKEN_SECONDS: u64 = 3607;
/// The default account is made by a controller, right after its namespace.
const WAIT_FOR_DEFAULT: Duration = Duration::from_millis(1500);

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create => attributes.is_whole("", "pods"),
            Operation::Update => attributes.is("", "pods") && attributes.subresource == "ephemeralcontainers",
            Operation::Delete | Operation::Connect => false,
        }
    }

    async fn admit(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        pod: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), ApiError> {
        if is_mirror(pod) {
            return check_mirror(attributes, pod);
        }
        if attributes.operation == Operation::Update {
            return Ok(());
        }
        let spec_map = spec(pod);
        let name = match spec_map.get("serviceAccountName").and_then(Value::as_str).unwrap_or("") {
            "" => "default".to_owned(),
            given => given.to_owned(),
        };
        // `serviceAccount` is the deprecated twin; both are always written.
        spec_map.insert("serviceAccountName".into(), json!(name));
        spec_map.insert("serviceAccount".into(), json!(name));
        let account = registry.trees.of(&*account(registry, attributes, &name).await?);
        if automounts(&account, &pod["spec"]) {
            mount_token(spec(pod));
        }
        let spec_map = spec(pod);
        let secrets = list(&account, "imagePullSecrets");
        if list_mut(spec_map, "imagePullSecrets").is_empty() {
            if secrets.is_empty() {
                spec_map.remove("imagePullSecrets");
            } else {
                let names = secrets.iter().map(|s| json!({"name": text(s, "name")})).collect();
                spec_map.insert("imagePullSecrets".into(), names);
            }
        }
        Ok(())
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        pod: Option<&Value>,
        _: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(pod) = pod else { return Ok(()) };
        if is_mirror(pod) {
            return if attributes.operation == Operation::Create { check_mirror(attributes, pod) } else { Ok(()) };
        }
        let name = text(&pod["spec"], "serviceAccountName");
        if name.is_empty() {
            let why = format!("no service account specified for pod {}/{}", attributes.namespace, attributes.name);
            return Err(attributes.forbidden(&why));
        }
        let account = registry.trees.of(&*account(registry, attributes, name).await?);
        if !object::annotations(&account).any(|(k, v)| k == "kubernetes.io/enforce-mountable-secrets" && v == "true") {
            return Ok(());
        }
        // Here and not before: what webhooks put in counts as well, and so does what is added to a pod that runs (CVE-2023-2728).
        let limited = match attributes.operation {
            Operation::Create => limit_secrets(&account, &pod["spec"]),
            _ => limit_containers(&account, &pod["spec"], "ephemeralContainers"),
        };
        limited.map_err(|why| attributes.forbidden(&why))
    }
}

async fn account(registry: &Arc<Registry>, attributes: &Attributes<'_>, name: &str) -> Result<Arc<Entry>, ApiError> {
    let gvr = Gvr::new("", "v1", "serviceaccounts");
    let cached = registry.cached(&gvr).ok_or_else(|| ApiError::internal("no service accounts"))?;
    let namespace = attributes.namespace;
    if let Some(account) = cached.get(namespace, name) {
        return Ok(account);
    }
    registry.catch_up().await;
    if let Some(account) = cached.get(namespace, name) {
        return Ok(account);
    }
    if name == "default" {
        let mut changes = cached.subscribe();
        let appears = async {
            loop {
                if let Some(account) = cached.get(namespace, name) {
                    return Some(account);
                }
                changes.next().await?;
            }
        };
        if let Ok(Some(account)) = tokio::time::timeout(WAIT_FOR_DEFAULT, appears).await {
            return Ok(account);
        }
    }
    let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
    Err(attributes.forbidden(&why))
}

/// The pod's wish, else the account's, else yes.
fn automounts(account: &Value, spec: &Value) -> bool {
    let says = |tree: &Value| tree.get("automountServiceAccountToken").and_then(Value::as_bool);
    says(spec).or_else(|| says(account)).unwrap_or(true)
}

fn mount_token(spec: &mut Map<String, Value>) {
    let present = list_mut(spec, "volumes").iter().map(|v| text(v, "name").to_owned()).find(|name| name.starts_with(VOLUME));
    let has_volume = present.is_some();
    let volume = present.unwrap_or_else(|| generate_name::generate(VOLUME, chance::number()));
    let mut needed = false;
    for field in ["initContainers", "containers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = list_mut(object::as_map(container), "volumeMounts");
            if !mounts.iter().any(|m| text(m, "mountPath") == MOUNT_PATH) {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
                needed = true;
            }
        }
    }
    let volumes = list_mut(spec, "volumes");
    if needed && !has_volume {
        volumes.push(token_volume(&volume));
    }
    if volumes.is_empty() {
        spec.remove("volumes");
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

/// Mirror pods stand for what a node runs by itself; they may not reach for the cluster's secrets.
fn check_mirror(attributes: &Attributes<'_>, pod: &Value) -> Result<(), ApiError> {
    let spec = &pod["spec"];
    if !text(spec, "serviceAccountName").is_empty() {
        return Err(attributes.forbidden("a mirror pod may not reference service accounts"));
    }
    let projects = |what: &str| list(spec, "volumes").iter().flat_map(|v| list(&v["projected"], "sources")).any(|s| s.get(what).is_some());
    let env = containers(spec).any(|(_, c)| {
        list(c, "env").iter().any(|e| e["valueFrom"].get("secretKeyRef").is_some())
            || list(c, "envFrom").iter().any(|e| e.get("secretRef").is_some())
    });
    if env || projects("secret") || list(spec, "volumes").iter().any(|v| v.get("secret").is_some()) {
        return Err(attributes.forbidden("a mirror pod may not reference secrets"));
    }
    if projects("serviceAccountToken") {
        return Err(attributes.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

fn limit_secrets(account: &Value, spec: &Value) -> Result<(), String> {
    for name in list(spec, "volumes").iter().filter_map(|v| v["secret"]["secretName"].as_str()) {
        if !refers(account, "secrets", name) {
            return Err(format!("volume with secret.secretName=\"{name}\" {}", not_referred(account, "secret")));
        }
    }
    limit_containers(account, spec, "initContainers")?;
    limit_containers(account, spec, "containers")?;
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        let name = text(secret, "name");
        if !refers(account, "imagePullSecrets", name) {
            return Err(format!("imagePullSecrets[{i}].name=\"{name}\" {}", not_referred(account, "imagePullSecret")));
        }
    }
    Ok(())
}

fn refers(account: &Value, field: &str, name: &str) -> bool {
    list(account, field).iter().any(|s| text(s, "name") == name)
}

fn not_referred(account: &Value, what: &str) -> String {
    format!("is not allowed because service account {} does not reference that {what}", object::name(account))
}

/// Secrets that containers take their environment from.
fn limit_containers(account: &Value, spec: &Value, field: &str) -> Result<(), String> {
    let what = match field {
        "initContainers" => "init container",
        "ephemeralContainers" => "ephemeral container",
        _ => "container",
    };
    let refuse = |called: &str, how: String, name: &str| {
        Err(format!("{what} {called} with {how} referencing secret.secretName=\"{name}\" {}", not_referred(account, "secret")))
    };
    for container in list(spec, field) {
        let called = text(container, "name");
        for env in list(container, "env") {
            if let Some(name) = env["valueFrom"]["secretKeyRef"]["name"].as_str().filter(|n| !refers(account, "secrets", n)) {
                return refuse(called, format!("envVar {}", text(env, "name")), name);
            }
        }
        for name in list(container, "envFrom").iter().filter_map(|e| e["secretRef"]["name"].as_str()) {
            if !refers(account, "secrets", name) {
                return refuse(called, "envFrom".into(), name);
            }
        }
    }
    Ok(())
}
