//! What every cluster holds from its first second on: the system namespaces, the `kubernetes` Service with its endpoints, the system
//! PriorityClasses, the RBAC policy, and what aggregated servers read to trust this one.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tiphys_client::{Client, ClientError, EventType, Patch};
use tiphys_meta::{Gvr, object};

use crate::config::RequestHeader;
use crate::objects::{Objects, known};
use crate::policy;

/// What the objects say of this server.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub advertise_address: IpAddr,
    pub secure_port: u16,
    /// The first address of the service range.
    pub service_ip: IpAddr,
    pub service_ranges: Vec<String>,
    pub client_ca: Option<String>,
    pub request_header: Option<(RequestHeader, String)>,
    /// `2026-11-21`.
    pub today: String,
}

/// Makes everything that is missing; what nodes and components need first comes first.
pub(crate) async fn ensure(client: &Client, cache: &dyn Objects, facts: &Facts) -> Result<(), ClientError> {
    create_all(client, namespaces()).await?;
    tokio::try_join!(policy::ensure(client, cache), create_all(client, first_objects(facts)), kubernetes_service(client, cache, facts))?;
    default_range_is_ready(client, cache).await
}

/// Of the ranges of Services, only the default one is the server's to vouch for.
async fn default_range_is_ready(client: &Client, cache: &dyn Objects) -> Result<(), ClientError> {
    let there = cache.get(&known::SERVICE_CIDRS, "", "kubernetes");
    if there.is_some_and(|range| range["status"]["conditions"].as_array().is_some_and(|all| !all.is_empty())) {
        return Ok(());
    }
    let now = tiphys_meta::time::format(tiphys_base::Clock::now(&tiphys_base::SystemClock));
    let condition = json!({"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": now});
    let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    client.patch_value(&known::SERVICE_CIDRS, "", "kubernetes", "status", &patch).await.map(drop)
}

async fn create_all(client: &Client, objects: Vec<(&'static Gvr, Value)>) -> Result<(), ClientError> {
    let creations = objects.into_iter().map(|(gvr, value)| async move { create(client, gvr, &value).await });
    let mut results = stream::iter(creations).buffer_unordered(16);
    while let Some(result) = results.next().await {
        result?;
    }
    Ok(())
}

async fn create(client: &Client, gvr: &Gvr, value: &Value) -> Result<(), ClientError> {
    match client.create_value(gvr, object::namespace(value), value).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

fn namespaces() -> Vec<(&'static Gvr, Value)> {
    let make = |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    ["default", "kube-system", "kube-public", "kube-node-lease"].into_iter().map(|name| (&known::NAMESPACES, make(name))).collect()
}

fn first_objects(facts: &Facts) -> Vec<(&'static Gvr, Value)> {
    vec![
        priority_class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        priority_class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            &known::SERVICE_CIDRS,
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
                   "spec": {"cidrs": facts.service_ranges}}),
        ),
        (&known::CONFIG_MAPS, extension_authentication(facts)),
        (&known::CONFIG_MAPS, token_tracking(facts)),
    ]
}

fn priority_class(name: &str, value: i64, description: &str) -> (&'static Gvr, Value) {
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
        "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
    });
    (&known::PRIORITY_CLASSES, class)
}

/// What an aggregated API server reads to verify whoever comes through this one.
fn extension_authentication(facts: &Facts) -> Value {
    let mut data = json!({});
    if let Some(ca) = &facts.client_ca {
        data["client-ca-file"] = json!(ca);
    }
    if let Some((rules, ca)) = &facts.request_header {
        data["requestheader-client-ca-file"] = json!(ca);
        for (key, list) in [
            ("requestheader-allowed-names", &rules.allowed_names),
            ("requestheader-username-headers", &rules.username_headers),
            ("requestheader-uid-headers", &rules.uid_headers),
            ("requestheader-group-headers", &rules.group_headers),
            ("requestheader-extra-headers-prefix", &rules.extra_header_prefixes),
        ] {
            data[key] = json!(json!(list).to_string());
        }
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
           "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"}})
}

/// Since when the use of legacy tokens is tracked (KEP-2799); controllers clean up by this date.
fn token_tracking(facts: &Facts) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"since": facts.today},
           "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"}})
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The `kubernetes` Service in `default`, its Endpoints and its EndpointSlice: made, and mended where they point elsewhere.
/// Endpoints cannot name a loopback address (the API refuses it): a server that advertises one is for clients beside it, and has none.
pub(crate) async fn kubernetes_service(client: &Client, cache: &dyn Objects, facts: &Facts) -> Result<(), ClientError> {
    let reachable = !facts.advertise_address.is_loopback();
    for (gvr, want) in kubernetes_objects(facts).into_iter().filter(|(gvr, _)| reachable || **gvr == known::SERVICES) {
        match cache.get(gvr, "default", "kubernetes") {
            None => create(client, gvr, &want).await?,
            Some(have) => {
                if let Some(patch) = differing(&have, &want) {
                    client.patch_value(gvr, "default", "kubernetes", "", &Patch::Merge(patch)).await?;
                }
            }
        }
    }
    Ok(())
}

fn kubernetes_objects(facts: &Facts) -> [(&'static Gvr, Value); 3] {
    let address_type = family(facts.advertise_address);
    let address = facts.advertise_address.to_string();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": facts.service_ip.to_string(), "clusterIPs": [facts.service_ip.to_string()],
            "ipFamilies": [family(facts.service_ip)], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": facts.secure_port}],
        },
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": facts.secure_port, "protocol": "TCP"}]}],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": address_type,
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": facts.secure_port, "protocol": "TCP"}],
    });
    [(&known::SERVICES, service), (&known::ENDPOINTS, endpoints), (&known::ENDPOINT_SLICES, slice)]
}

/// A merge patch for the fields that carry this server's address and port; nothing else of the objects is ours to insist on.
fn differing(have: &Value, want: &Value) -> Option<Value> {
    let mut patch = json!({});
    for field in ["subsets", "endpoints", "ports"] {
        if want.get(field).is_some() && have.get(field) != want.get(field) {
            patch[field] = want[field].clone();
        }
    }
    if want.get("spec").is_some() && have["spec"]["ports"] != want["spec"]["ports"] {
        patch["spec"]["ports"] = want["spec"]["ports"].clone();
    }
    (patch != json!({})).then_some(patch)
}

/// Puts the `kubernetes` Service right again when someone changes or deletes a part of it.
pub(crate) async fn keep_kubernetes_service(client: Client, cache: Arc<dyn Objects>, facts: Facts) {
    loop {
        let watches = [&known::SERVICES, &known::ENDPOINTS, &known::ENDPOINT_SLICES].map(|gvr| {
            let path = format!("{}?watch=true&fieldSelector=metadata.name%3Dkubernetes", gvr.path("default", ""));
            client.watch_path(path)
        });
        let opened: Vec<_> = futures_util::future::join_all(watches).await.into_iter().flatten().collect();
        let mut events = stream::select_all(opened);
        while let Some(Ok((kind, _))) = events.next().await {
            if matches!(kind, EventType::Modified | EventType::Deleted)
                && let Err(error) = kubernetes_service(&client, cache.as_ref(), &facts).await
            {
                tracing::warn!(%error, "cannot mend the kubernetes Service");
            }
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

/// Keeps the compiled policy as the objects say.
pub(crate) async fn follow_policy(client: Client, rbac: Arc<crate::authorize::rbac::Rbac>) {
    loop {
        let watches = [&known::ROLES, &known::CLUSTER_ROLES, &known::ROLE_BINDINGS, &known::CLUSTER_ROLE_BINDINGS]
            .map(|gvr| client.watch_path(format!("{}?watch=true", gvr.path("", ""))));
        let opened: Vec<_> = futures_util::future::join_all(watches).await.into_iter().flatten().collect();
        let complete = opened.len() == 4;
        // One refresh for all that changed meanwhile.
        let mut events = stream::select_all(opened).ready_chunks(512);
        rbac.refresh();
        while complete && events.next().await.is_some() {
            rbac.refresh();
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_server_is_followed() {
        let facts = |port| Facts {
            advertise_address: IpAddr::from([10, 0, 0, 7]),
            secure_port: port,
            service_ip: IpAddr::from([10, 96, 0, 1]),
            service_ranges: vec!["10.96.0.0/16".into()],
            client_ca: None,
            request_header: None,
            today: String::new(),
        };
        for ((_, old), (_, new)) in kubernetes_objects(&facts(6443)).iter().zip(kubernetes_objects(&facts(6444))) {
            assert_eq!(differing(old, old), None);
            let patch = differing(old, &new).expect("a patch");
            assert!(patch.to_string().contains("6444"), "{patch}");
        }
    }
}
