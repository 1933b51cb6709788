//! NodeRestriction: what a kubelet writes is about its own node and the pods on it. The Node authorizer has said that it may write at all;
//! here the objects are looked at. Token requests are checked where they are answered (`crate::reviews`).
//!
//! Absent: PodCertificateRequests, which are not served.

use serde_json::Value;
use tiphys_meta::{ApiError, object};
use tiphys_registry::{Operation, UserInfo, Write};

use super::node::node_of;
use crate::objects::{Objects, items, known, text};

/// Refuses writes of nodes to what is not theirs; says nothing of other users.
pub fn check(objects: &dyn Objects, user: &UserInfo, write: &Write<'_>) -> Result<(), ApiError> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let why = match (write.gvr.group.as_ref(), write.gvr.resource.as_ref()) {
        _ if node.is_empty() => Err(format!("could not determine node from user {:?}", user.name)),
        ("", "pods") => pod(objects, node, write),
        ("", "nodes") => node_object(node, write),
        ("", "persistentvolumeclaims") => claim_status(node, write),
        ("coordination.k8s.io", "leases") => lease(node, write),
        ("storage.k8s.io", "csinodes") if name_of(write) != node => {
            Err("can only access CSINode with the same name as the requesting node".into())
        }
        ("resource.k8s.io", "resourceslices") => resource_slice(node, write),
        ("certificates.k8s.io", "certificatesigningrequests") => signing_request(node, write),
        _ => Ok(()),
    };
    why.map_err(|why| ApiError::forbidden(write.gvr, name_of(write), &why))
}

fn name_of<'a>(write: &Write<'a>) -> &'a str {
    if write.name.is_empty() { write.object.map_or("", object::name) } else { write.name }
}

fn on_node(pod: Option<&Value>, node: &str) -> bool {
    pod.is_some_and(|p| text(p, &["spec", "nodeName"]) == node)
}

fn pod(objects: &dyn Objects, node: &str, write: &Write<'_>) -> Result<(), String> {
    match (write.subresource, write.operation) {
        ("", Operation::Create) => mirror_pod(objects, node, write.object.unwrap_or(&Value::Null)),
        ("", Operation::Delete) if on_node(write.old, node) => Ok(()),
        ("", Operation::Delete) => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
        ("", operation) => {
            Err(format!("unexpected operation {:?}, node {node:?} can only create and delete mirror pods", operation.as_str()))
        }
        ("status", Operation::Update) if !on_node(write.old, node) => {
            Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"))
        }
        ("status", Operation::Update) => {
            let labels = |o: Option<&Value>| o.and_then(|o| o.pointer("/metadata/labels")).cloned();
            if labels(write.object) != labels(write.old) {
                return Err(format!("node {node:?} cannot update labels through pod status"));
            }
            claims_stay(node, write)
        }
        ("eviction", Operation::Create) => {
            let evicted = objects.get(&known::PODS, write.namespace, name_of(write));
            let mine = on_node(evicted.as_deref(), node);
            if mine { Ok(()) } else { Err(format!("node {node} can only evict pods with spec.nodeName set to itself")) }
        }
        ("status" | "eviction", operation) => Err(format!("unexpected operation {:?}", operation.as_str())),
        (other, _) => Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed")),
    }
}

/// Which claims a pod has is the resource claim controller's to say.
fn claims_stay(node: &str, write: &Write<'_>) -> Result<(), String> {
    let said = |o: Option<&Value>, path: &str| o.and_then(|o| o.pointer(path)).cloned();
    for (path, what) in [
        ("/status/resourceClaimStatuses", "resource claim statues"),
        ("/status/extendedResourceClaimStatus", "extended resource claim status"),
    ] {
        if said(write.object, path) != said(write.old, path) {
            return Err(format!("node {node:?} cannot update {what}"));
        }
    }
    Ok(())
}

/// A kubelet tells how large a volume has become, and how that goes.
fn claim_status(node: &str, write: &Write<'_>) -> Result<(), String> {
    if write.subresource != "status" {
        return Err("may only update PVC status".into());
    }
    if write.operation != Operation::Update {
        return Err(format!("unexpected operation {:?}", write.operation.as_str()));
    }
    let rest = |claim: Option<&Value>| {
        let mut claim = claim.cloned().unwrap_or_default();
        for (part, fields) in [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            ("status", &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"]),
        ] {
            let Some(part) = claim.get_mut(part).and_then(Value::as_object_mut) else { continue };
            fields.iter().for_each(|field| drop(part.remove(*field)));
        }
        // A status with nothing left in it says as much as none.
        if claim.get("status").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
            object::as_map(&mut claim).remove("status");
        }
        claim
    };
    if rest(write.object) == rest(write.old) {
        return Ok(());
    }
    Err(format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions"))
}

/// A static pod's mirror: on this node, owned by it, and without a word about objects that it would open to the node.
fn mirror_pod(objects: &dyn Objects, node: &str, pod: &Value) -> Result<(), String> {
    if !object::annotations(pod).any(|(k, _)| k == "kubernetes.io/config.mirror") {
        return Err(format!("pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"));
    }
    if !on_node(Some(pod), node) {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let [owner] = items(pod, &["metadata", "ownerReferences"]) else {
        let how = if items(pod, &["metadata", "ownerReferences"]).is_empty() { "an owner reference" } else { "a single owner reference" };
        return Err(format!("node {node:?} can only create pods with {how} set to itself"));
    };
    let is_node = text(owner, &["apiVersion"]) == "v1" && text(owner, &["kind"]) == "Node" && text(owner, &["name"]) == node;
    if !is_node {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let real = objects.get(&known::NODES, "", node).map(|n| object::uid(&n).to_owned());
    let Some(uid) = real else { return Err(format!("error looking up node {node} to verify uid: nodes \"{node}\" not found")) };
    if uid != text(owner, &["uid"]) {
        return Err(format!("node {node} UID mismatch: expected {} got {uid}", text(owner, &["uid"])));
    }
    match api_reference(&pod["spec"]) {
        Some(resource) => Err(format!("node {node:?} can not create pods that reference {resource}")),
        None => Ok(()),
    }
}

/// What of the API a pod would open to its node. Containers of all three lists count, and volumes that nobody knows.
fn api_reference(spec: &Value) -> Option<&'static str> {
    if !text(spec, &["serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    const FIELDS: [(&str, &str); 11] = [
        ("secretKeyRef", "secrets"),
        ("secretRef", "secrets"),
        ("imagePullSecrets", "secrets"),
        ("nodePublishSecretRef", "secrets"),
        ("secretName", "secrets"),
        ("secret", "secrets"),
        ("configMapKeyRef", "configmaps"),
        ("configMapRef", "configmaps"),
        ("configMap", "configmaps"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("resourceClaims", "resourceclaims"),
    ];
    const VOLUMES: [(&str, &str); 4] = [
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
        ("azureFile", "secrets (via azureFile volumes)"),
    ];
    const SOURCES: [(&str, &str); 3] = [
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let volumes = items(spec, &["volumes"]);
    let of_volume = |volume: &Value| VOLUMES.iter().find(|(kind, _)| volume.get(kind).is_some()).map(|(_, what)| *what);
    let of_source = |source: &Value| SOURCES.iter().find(|(kind, _)| source.get(kind).is_some()).map(|(_, what)| *what);
    let anywhere = FIELDS.into_iter().find(|(field, _)| mentions(spec, field)).map(|(_, resource)| resource);
    anywhere
        .or_else(|| volumes.iter().find_map(of_volume))
        .or_else(|| volumes.iter().flat_map(|v| items(v, &["projected", "sources"])).find_map(of_source))
}

fn mentions(value: &Value, field: &str) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(k, v)| (k == field && !v.is_null()) || mentions(v, field)),
        Value::Array(list) => list.iter().any(|v| mentions(v, field)),
        _ => false,
    }
}

fn node_object(node: &str, write: &Write<'_>) -> Result<(), String> {
    let name = name_of(write);
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = write.object else { return Ok(()) };
    let empty = Value::Null;
    let old = write.old.unwrap_or(&empty);
    let forbidden = forbidden_labels(new, old);
    let source = |o: &Value| o.pointer("/spec/configSource").cloned();
    if write.operation == Operation::Create && source(new).is_some() {
        return Err(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
    }
    if write.operation == Operation::Create {
        return match forbidden.as_slice() {
            [] => Ok(()),
            some => Err(format!("node {node:?} is not allowed to set the following labels: {}", some.join(", "))),
        };
    }
    if source(new).is_some() && source(new) != source(old) {
        return Err(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"));
    }
    if new.pointer("/spec/taints") != old.pointer("/spec/taints") {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    if new.pointer("/metadata/ownerReferences") != old.pointer("/metadata/ownerReferences") {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    match forbidden.as_slice() {
        [] => Ok(()),
        some => Err(format!("is not allowed to modify labels: {}", some.join(", "))),
    }
}

/// Labels that differ and that a kubelet has no business with (KEP-279).
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let label = |o: &Value, key: &str| object::labels(o).find(|(k, _)| *k == key).map(|(_, v)| v.to_owned());
    let keys = object::labels(new).chain(object::labels(old)).map(|(k, _)| k);
    let mut changed: Vec<String> = keys.filter(|k| label(new, k) != label(old, k)).filter(|k| !is_kubelets(k)).map(str::to_owned).collect();
    changed.sort();
    changed.dedup();
    changed
}

fn is_kubelets(label: &str) -> bool {
    const OWN: [&str; 11] = [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    ];
    let namespace = label.split_once('/').map_or("", |(ns, _)| ns);
    let within = |domain: &str| namespace == domain || namespace.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    let reserved = within("kubernetes.io") || within("k8s.io");
    !reserved || OWN.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

fn lease(node: &str, write: &Write<'_>) -> Result<(), String> {
    if write.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".into());
    }
    if name_of(write) != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn resource_slice(node: &str, write: &Write<'_>) -> Result<(), String> {
    let mine = |o: Option<&Value>| o.is_some_and(|o| text(o, &["spec", "nodeName"]) == node);
    match write.operation {
        Operation::Create if !mine(write.object) => {
            Err("can only create ResourceSlice with the same NodeName as the requesting node".into())
        }
        Operation::Delete if !mine(write.old) => Err("can only delete ResourceSlice with the same NodeName as the requesting node".into()),
        _ => Ok(()),
    }
}

/// A kubelet asks for certificates of its own name.
fn signing_request(node: &str, write: &Write<'_>) -> Result<(), String> {
    use x509_parser::prelude::FromDer;
    let Some(request) = write.object.filter(|_| write.subresource.is_empty() && write.operation == Operation::Create) else {
        return Ok(());
    };
    let signer = text(request, &["spec", "signerName"]);
    if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
        return Ok(());
    }
    let unreadable = |e: &dyn std::fmt::Display| format!("unable to parse csr: {e}");
    let pem = tiphys_meta::base64::decode(text(request, &["spec", "request"])).map_err(|e| unreadable(&e))?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|e| unreadable(&e))?;
    let (_, csr) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents).map_err(|e| unreadable(&e))?;
    let subject = &csr.certification_request_info.subject;
    let name = subject.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or("");
    if name == format!("system:node:{node}") { Ok(()) } else { Err(format!("can only create a node CSR with CN=system:node:{node}")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_meta::Gvr;

    use super::*;
    use crate::objects::fake::FakeObjects;

    fn refused(gvr: &Gvr, subresource: &str, operation: Operation, new: Option<&Value>, old: Option<&Value>) -> Option<String> {
        let user = UserInfo::new("system:node:n1", &["system:nodes"]);
        let some = new.or(old).unwrap_or(&Value::Null);
        let (namespace, name) = (object::namespace(some), object::name(some));
        let write = Write { operation, gvr, requested: gvr, subresource, namespace, name, object: new, old };
        check(&FakeObjects::default(), &user, &write).err().map(|e| e.message)
    }

    #[test]
    fn nodes_write_themselves_and_their_labels() {
        let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
        let plain = node("n1", json!({}));
        let update = |new: &Value| refused(&known::NODES, "", Operation::Update, Some(new), Some(&plain));
        assert_eq!(update(&node("n1", json!({"kubernetes.io/hostname": "n1", "mine": "1", "node.kubernetes.io/x": "1"}))), None);
        assert!(update(&node("n1", json!({"node-restriction.kubernetes.io/x": "1"}))).is_some());
        let message = update(&node("n1", json!({"foo.kubernetes.io/x": "1"}))).expect("refused");
        assert_eq!(message, "nodes \"n1\" is forbidden: is not allowed to modify labels: foo.kubernetes.io/x");
        assert!(refused(&known::NODES, "", Operation::Create, Some(&node("n2", json!({}))), None).is_some());
        let tainted = json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "a"}]}});
        assert!(update(&tainted).is_some());
        assert_eq!(refused(&known::NODES, "", Operation::Create, Some(&tainted), None), None);
    }

    #[test]
    fn nodes_touch_their_own_pods() {
        let pod = |node: &str| json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": node}});
        let status = |node: &str| refused(&known::PODS, "status", Operation::Update, Some(&pod(node)), Some(&pod(node)));
        assert_eq!(status("n1"), None);
        assert!(status("n2").is_some());
        assert_eq!(refused(&known::PODS, "", Operation::Delete, None, Some(&pod("n1"))), None);
        assert!(refused(&known::PODS, "", Operation::Delete, None, Some(&pod("n2"))).is_some());
        assert!(refused(&known::PODS, "", Operation::Create, Some(&pod("n1")), None).is_some());
    }

    #[test]
    fn nodes_evict_their_own_pods_only() {
        let objects = FakeObjects::default();
        for (name, node) in [("mine", "n1"), ("other", "n2")] {
            objects.put(&known::PODS, json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"nodeName": node}}));
        }
        let user = UserInfo::new("system:node:n1", &["system:nodes"]);
        let evict = |name: &str| {
            let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": name, "namespace": "a"}});
            let (gvr, subresource) = (&known::PODS, "eviction");
            let object = Some(&eviction);
            let write = Write { operation: Operation::Create, gvr, requested: gvr, subresource, namespace: "a", name, object, old: None };
            check(&objects, &user, &write).err().map(|e| e.message)
        };
        assert_eq!(evict("mine"), None);
        let why = "is forbidden: node n1 can only evict pods with spec.nodeName set to itself";
        assert_eq!(evict("other"), Some(format!("pods \"other\" {why}")));
        assert_eq!(evict("gone"), Some(format!("pods \"gone\" {why}")));
    }

    #[test]
    fn nodes_say_nothing_of_claims_and_sources() {
        let pod = |status: Value| json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": "n1"}, "status": status});
        let status =
            |new: Value| refused(&known::PODS, "status", Operation::Update, Some(&pod(new)), Some(&pod(json!({"phase": "Pending"}))));
        assert_eq!(status(json!({"phase": "Running"})), None);
        let message = status(json!({"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "of-others"}]})).expect("refused");
        assert_eq!(message, "pods \"p\" is forbidden: node \"n1\" cannot update resource claim statues");
        let node = |spec: Value| json!({"metadata": {"name": "n1"}, "spec": spec});
        let source = node(json!({"configSource": {"configMap": {"name": "c"}}}));
        assert!(refused(&known::NODES, "", Operation::Create, Some(&source), None).is_some());
        assert!(refused(&known::NODES, "", Operation::Update, Some(&source), Some(&node(json!({})))).is_some());
        let owned = json!({"metadata": {"name": "n1", "ownerReferences": [{"name": "x"}]}});
        assert!(refused(&known::NODES, "", Operation::Update, Some(&owned), Some(&node(json!({})))).is_some());
    }

    #[test]
    fn nodes_write_the_size_of_claims() {
        let gvr = Gvr::new("", "v1", "persistentvolumeclaims");
        let claim = |labels: Value, status: Value| json!({"metadata": {"name": "c", "namespace": "a", "labels": labels}, "status": status});
        let old = claim(json!({}), json!({"phase": "Bound"}));
        let update = |new: &Value| refused(&gvr, "status", Operation::Update, Some(new), Some(&old));
        assert_eq!(update(&claim(json!({}), json!({"phase": "Bound", "capacity": {"storage": "1Gi"}}))), None);
        assert!(update(&claim(json!({}), json!({"phase": "Lost"}))).is_some());
        assert!(update(&claim(json!({"a": "b"}), json!({"phase": "Bound"}))).is_some());
        assert!(refused(&gvr, "", Operation::Update, Some(&old), Some(&old)).is_some());
    }

    #[test]
    fn mirror_pods_open_nothing() {
        let spec = |more: Value| {
            let mut spec = json!({"nodeName": "n1", "containers": [{"name": "c"}]});
            object::as_map(&mut spec).extend(more.as_object().cloned().unwrap_or_default());
            spec
        };
        assert_eq!(api_reference(&spec(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}))), None);
        let env_from = json!([{"name": "x", "envFrom": [{"secretRef": {"name": "s"}}]}]);
        for more in [
            json!({"serviceAccountName": "a"}),
            json!({"containers": env_from}),
            json!({"initContainers": env_from}),
            json!({"ephemeralContainers": env_from}),
            json!({"imagePullSecrets": [{"name": "s"}]}),
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
            json!({"volumes": [{"name": "v", "csi": {"driver": "d"}}]}),
            json!({"volumes": [{"name": "v", "azureFile": {"secretName": "s"}}]}),
            json!({"volumes": [{"name": "v", "ephemeral": {}}]}),
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]}),
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"podCertificate": {}}]}}]}),
            json!({"resourceClaims": [{"name": "c"}]}),
        ] {
            assert!(api_reference(&spec(more.clone())).is_some(), "{more}");
        }
    }
}
