//! What every cluster has besides upstream's own objects: the DNS Service, rights of node services, the nodes' pod ranges.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tiphys_base::tasks::Tasks;
use tiphys_cli::cluster::Cluster;
use tiphys_cli::pki::NODE_SERVICES_GROUP;
use tiphys_client::{Client, Delta, Informers, Patch};
use tiphys_types::api::core::v1::Node;
use tokio::net::UdpSocket;

pub(crate) async fn install(admin: &Client, cluster: &Cluster) -> Result<()> {
    for (path, object) in objects(cluster)? {
        apply(admin, &path, &object).await.with_context(|| format!("cannot make {path}"))?;
    }
    Ok(())
}

/// Makes the object or leaves the one that is there, except for what only this program writes.
async fn apply(admin: &Client, path: &str, object: &Value) -> Result<()> {
    let gvr = gvr_of(object, path);
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("");
    let name = object["metadata"]["name"].as_str().unwrap_or("");
    // Asked for first: making a Service again would fail for its address, which it has itself.
    match admin.get_value(&gvr, namespace, name).await {
        Ok(_) if object["kind"] == "Service" => {}
        Ok(_) => drop(admin.patch_value(&gvr, namespace, name, "", &Patch::Merge(object.clone())).await?),
        Err(error) if error.is_not_found() => drop(admin.create_value(&gvr, namespace, object).await?),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn gvr_of(object: &Value, resource: &str) -> tiphys_meta::Gvr {
    let api_version = object["apiVersion"].as_str().unwrap_or("v1");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    tiphys_meta::Gvr::new(group.to_owned(), version.to_owned(), resource.to_owned())
}

fn objects(cluster: &Cluster) -> Result<Vec<(String, Value)>> {
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"});
    let endpoints: Vec<Value> = (1..=cluster.nodes)
        .map(|n| Ok(json!({"addresses": [cluster.node_address(n)?.to_string()], "nodeName": cluster.node_name(n), "conditions": {"ready": true}})))
        .collect::<Result<_>>()?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "spec": {"clusterIP": cluster.dns_address()?.to_string(), "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53}, {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns-nodes", "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": "tiphys"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}],
    });
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": NODE_SERVICES_GROUP},
        "rules": [{"apiGroups": [""], "resources": ["services", "namespaces", "nodes"], "verbs": ["get", "list", "watch"]},
                  {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": NODE_SERVICES_GROUP},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NODE_SERVICES_GROUP},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": NODE_SERVICES_GROUP}],
    });
    let named = |resource: &str, object| (resource.to_owned(), object);
    Ok(vec![named("services", service), named("endpointslices", slice), named("clusterroles", role), named("clusterrolebindings", binding)])
}

/// Gives each of the cluster's own nodes the pod range that its links were made for, and the first one its role, which a node may not claim itself.
pub(crate) fn keep_node_ranges(informers: &Informers, admin: Client, cluster: Cluster, tasks: &Tasks) {
    let mut changes = informers.of::<Node>().subscribe();
    tasks.spawn("node ranges", async move {
        while let Some(change) = changes.recv().await {
            let (Delta::Added(node) | Delta::Updated { new: node, .. }) = change else { continue };
            let name = node.metadata.name.as_deref().unwrap_or("");
            let has_one = node.spec.as_ref().is_some_and(|s| s.pod_cidr.is_some());
            let number = (1..=cluster.nodes).find(|n| cluster.node_name(*n) == name);
            let Some(range) = number.filter(|_| !has_one).and_then(|n| cluster.node_pods(n).ok()) else { continue };
            let mut patch = json!({"spec": {"podCIDR": range.to_string(), "podCIDRs": [range.to_string()]}});
            if number == Some(1) {
                patch["metadata"] = json!({"labels": {"node-role.kubernetes.io/control-plane": ""}});
            }
            let patch = Patch::Merge(patch);
            if let Err(error) = admin.patch::<Node>("", name, "", &patch).await {
                tracing::warn!(%error, node = name, "a node's pod range could not be written");
            }
        }
    });
}

/// A question for `kubernetes.default.svc.cluster.local`, type A.
fn question(id: u8) -> Vec<u8> {
    let mut bytes = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["kubernetes", "default", "svc", "cluster", "local"] {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// Asks the DNS Service's address until it answers: each question waits for its answer for a moment, for rules are laid by watch.
pub(crate) async fn wait_for_dns(cluster: &Cluster) -> Result<()> {
    const TRIES: u8 = 200;
    const MOMENT: Duration = Duration::from_millis(50);
    let server = SocketAddr::from((cluster.dns_address()?, 53));
    for id in 1..=TRIES {
        // A new socket each time: an early packet must not leave a flow behind that later ones follow.
        let socket = UdpSocket::bind(("0.0.0.0", 0)).await?;
        socket.connect(server).await?;
        let mut answer = [0; 512];
        let asked = async {
            socket.send(&question(id)).await?;
            socket.recv(&mut answer).await
        };
        let begun = tokio::time::Instant::now();
        if let Ok(Ok(len)) = tokio::time::timeout(MOMENT, asked).await
            && len > 12
            && answer[3] & 15 == 0
            && answer[7] > 0
        {
            return Ok(());
        }
        tokio::time::sleep_until(begun + MOMENT).await;
    }
    anyhow::bail!("the cluster's DNS does not answer at {server}; the log says more")
}
