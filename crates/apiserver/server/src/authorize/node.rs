//! The Node authorizer: a kubelet reads what pods on its node refer to, and nothing else.
//! What upstream keeps as a graph is looked up in the pod cache here: a kubelet asks once per object and watch.
//!
//! Absent: PodCertificateRequests, whose feature is off by default in v1.36.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use tiphys_meta::object;
use tiphys_registry::UserInfo;

use super::rbac::Rule;
use super::{Attributes, Decision};
use crate::objects::{Objects, at, items, known, text};
use crate::policy::parse_rules;

const NODE_PREFIX: &str = "system:node:";
const NODE_GROUP: &str = "system:nodes";

/// The node that a user is: `Some("")` for a node without a name.
pub fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_PREFIX)?;
    user.in_group(NODE_GROUP).then_some(name)
}

/// What every node may do, whatever runs on it (upstream's NodeRules).
static NODE_RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    parse_rules(
        "create authentication.k8s.io tokenreviews
         create authorization.k8s.io subjectaccessreviews,localsubjectaccessreviews
         get,list,watch core services
         create,update,patch core,events.k8s.io events
         get core endpoints
         create,get,list,watch certificates.k8s.io certificatesigningrequests
         get,list,watch storage.k8s.io csidrivers
         get,list,watch node.k8s.io runtimeclasses",
    )
});

pub struct NodeAuthorizer {
    objects: Arc<dyn Objects>,
}

impl NodeAuthorizer {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        NodeAuthorizer { objects }
    }

    pub fn decide(&self, user: &UserInfo, q: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(user) else { return Decision::no_opinion("") };
        if node.is_empty() {
            return Decision::no_opinion(format!("unknown node for user {:?}", user.name));
        }
        let verdict = match (q.is_resource, q.group, q.resource) {
            (true, "", "secrets" | "configmaps") => self.read_namespaced(node, q),
            (true, "", "persistentvolumeclaims") if q.subresource == "status" => self.claim_status(node, q),
            (true, "", "persistentvolumeclaims" | "persistentvolumes")
            | (true, "resource.k8s.io", "resourceclaims")
            | (true, "storage.k8s.io", "volumeattachments") => self.get_only(node, q),
            (true, "", "serviceaccounts") => self.service_account(node, q),
            (true, "coordination.k8s.io", "leases") => lease(node, q),
            (true, "storage.k8s.io", "csinodes") => csi_node(node, q),
            (true, "resource.k8s.io", "resourceslices") => self.resource_slice(node, q),
            (true, "", "nodes") => node_object(node, q),
            (true, "", "pods") => self.pod(node, q),
            _ => return if NODE_RULES.iter().any(|r| r.allows(q)) { Decision::allow("") } else { Decision::no_opinion("") },
        };
        match verdict {
            Ok(()) => Decision::allow(""),
            Err(reason) => Decision::NoOpinion { reason },
        }
    }

    fn related(&self, node: &str, q: &Attributes<'_>) -> Result<(), String> {
        if q.name.is_empty() {
            return Err("No Object name found".into());
        }
        let found = match (q.group, q.resource) {
            ("", "persistentvolumes") => self.volume_is_used(node, q.name),
            ("", "pods") => self.objects.get(&known::PODS, q.namespace, q.name).is_some_and(|pod| runs_on(&pod, node)),
            ("storage.k8s.io", "volumeattachments") => {
                self.objects.get(&known::VOLUME_ATTACHMENTS, "", q.name).is_some_and(|va| text(&va, &["spec", "nodeName"]) == node)
            }
            ("resource.k8s.io", "resourceslices") => {
                self.objects.get(&known::RESOURCE_SLICES, "", q.name).is_some_and(|s| text(&s, &["spec", "nodeName"]) == node)
            }
            _ => self.objects.pods_on(node, q.namespace).iter().any(|pod| refers_to(pod, q.resource, q.name)),
        };
        let found = found || (q.resource == "secrets" && self.secret_of_a_volume(node, q.namespace, q.name));
        if found { Ok(()) } else { Err(format!("no relationship found between node '{node}' and this object")) }
    }

    /// A volume is the node's when a pod there uses the claim that the volume is bound to.
    fn volume_is_used(&self, node: &str, volume: &str) -> bool {
        let Some(volume) = self.objects.get(&known::PERSISTENT_VOLUMES, "", volume) else { return false };
        let claim = text(&volume, &["spec", "claimRef", "name"]);
        let namespace = text(&volume, &["spec", "claimRef", "namespace"]);
        !claim.is_empty() && self.objects.pods_on(node, namespace).iter().any(|pod| refers_to(pod, "persistentvolumeclaims", claim))
    }

    /// Secrets that a bound volume's driver needs (`spec.csi.*SecretRef` and the older drivers' `secretRef`).
    fn secret_of_a_volume(&self, node: &str, namespace: &str, secret: &str) -> bool {
        self.objects.list(&known::PERSISTENT_VOLUMES, "").into_iter().any(|volume| {
            mentions_secret(&volume["spec"], namespace, text(&volume, &["spec", "claimRef", "namespace"]), secret)
                && self.volume_is_used(node, object::name(&volume))
        })
    }

    fn read_namespaced(&self, node: &str, q: &Attributes<'_>) -> Result<(), String> {
        if !matches!(q.verb, "get" | "list" | "watch") {
            return Err("can only read resources of this type".into());
        }
        if !q.subresource.is_empty() {
            return Err("cannot read subresource".into());
        }
        if q.namespace.is_empty() {
            return Err("can only read namespaced object of this type".into());
        }
        self.related(node, q)
    }

    fn get_only(&self, node: &str, q: &Attributes<'_>) -> Result<(), String> {
        if q.verb != "get" {
            return Err("can only get individual resources of this type".into());
        }
        if !q.subresource.is_empty() {
            return Err("cannot get subresource".into());
        }
        self.related(node, q)
    }

    fn claim_status(&self, node: &str, q: &Attributes<'_>) -> Result<(), String> {
        if !matches!(q.verb, "update" | "patch") {
            return Err("can only get/update/patch this type".into());
        }
        self.related(node, q)
    }

    fn service_account(&self, node: &str, q: &Attributes<'_>) -> Result<(), String> {
        if q.verb == "get" && q.subresource.is_empty() {
            return self.read_namespaced(node, q);
        }
        if q.verb != "create" || q.name.is_empty() {
            return Err("can only create tokens for individual service accounts".into());
        }
        if q.subresource != "token" {
            return Err("can only create token subresource of serviceaccount".into());
        }
        self.related(node, q)
    }

    fn resource_slice(&self, node: &str, q: &Attributes<'_>) -> Result<(), String> {
        match q.verb {
            _ if !q.subresource.is_empty() => Err("cannot authorize ResourceSlice subresources".into()),
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, q),
            "watch" | "list" | "deletecollection" if selects(q, "spec.nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                Err("can only list/watch/deletecollection resourceslices with nodeName field selector".into())
            }
            _ => Err("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, \
                      deletecollection"
                .into()),
        }
    }

    fn pod(&self, node: &str, q: &Attributes<'_>) -> Result<(), String> {
        match (q.subresource, q.verb) {
            ("", "get") => self.get_only(node, q),
            ("", "list" | "watch") if selects(q, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !q.name.is_empty() => self.related(node, q),
            ("", "list" | "watch") => Err("can only list/watch pods with spec.nodeName field selector".into()),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }
}

fn node_object(node: &str, q: &Attributes<'_>) -> Result<(), String> {
    match (q.subresource, q.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if q.name == node => Ok(()),
        ("", "get" | "list" | "watch") if q.name.is_empty() => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => Err(format!("node '{node}' cannot read '{}', only its own Node object", q.name)),
        _ => Err(String::new()),
    }
}

fn lease(node: &str, q: &Attributes<'_>) -> Result<(), String> {
    if !matches!(q.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".into());
    }
    if q.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".into());
    }
    if q.verb != "create" && q.name != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn csi_node(node: &str, q: &Attributes<'_>) -> Result<(), String> {
    if !matches!(q.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a CSINode".into());
    }
    if !q.subresource.is_empty() {
        return Err("cannot authorize CSINode subresources".into());
    }
    if q.verb != "create" && q.name != node {
        return Err("can only access CSINode with the same name as the requesting node".into());
    }
    Ok(())
}

fn runs_on(pod: &Value, node: &str) -> bool {
    text(pod, &["spec", "nodeName"]) == node
}

/// The field selector pins `field` to `value`.
fn selects(q: &Attributes<'_>, field: &str, value: &str) -> bool {
    q.field_selector.is_some_and(|selector| {
        selector.split(',').any(|term| {
            let rest = term.trim().strip_prefix(field).and_then(|r| r.strip_prefix('='));
            rest.is_some_and(|r| r.strip_prefix('=').unwrap_or(r) == value)
        })
    })
}

/// A pod names an object of its namespace. Mirror pods vouch for nothing: the kubelet wrote them itself.
fn refers_to(pod: &Value, resource: &str, name: &str) -> bool {
    if object::annotations(pod).any(|(k, _)| k == "kubernetes.io/config.mirror") {
        return false;
    }
    let spec = &pod["spec"];
    match resource {
        "serviceaccounts" => text(spec, &["serviceAccountName"]) == name,
        "secrets" => items(spec, &["imagePullSecrets"]).iter().any(|s| text(s, &["name"]) == name) || volumes_and_env(spec, "secret", name),
        "configmaps" => volumes_and_env(spec, "configMap", name),
        "persistentvolumeclaims" => items(spec, &["volumes"]).iter().any(|v| {
            text(v, &["persistentVolumeClaim", "claimName"]) == name
                || (v.get("ephemeral").is_some() && format!("{}-{}", object::name(pod), text(v, &["name"])) == name)
        }),
        "resourceclaims" => {
            items(pod, &["status", "resourceClaimStatuses"]).iter().any(|s| text(s, &["resourceClaimName"]) == name)
                || items(spec, &["resourceClaims"]).iter().any(|c| text(c, &["resourceClaimName"]) == name)
        }
        _ => false,
    }
}

fn volumes_and_env(spec: &Value, source: &str, name: &str) -> bool {
    let containers = ["containers", "initContainers", "ephemeralContainers"].into_iter().flat_map(|list| items(spec, &[list]));
    let mut env = containers.flat_map(|c| {
        let direct = items(c, &["env"]).iter().map(|e| at(e, &["valueFrom", key_ref(source)]));
        direct.chain(items(c, &["envFrom"]).iter().map(|e| e.get(env_ref(source))))
    });
    env.any(|reference| reference.is_some_and(|r| text(r, &["name"]) == name))
        || items(spec, &["volumes"]).iter().any(|volume| volume_names(volume, source, name))
}

fn key_ref(source: &str) -> &'static str {
    if source == "secret" { "secretKeyRef" } else { "configMapKeyRef" }
}

fn env_ref(source: &str) -> &'static str {
    if source == "secret" { "secretRef" } else { "configMapRef" }
}

fn volume_names(volume: &Value, source: &str, name: &str) -> bool {
    let direct = if source == "secret" { text(volume, &["secret", "secretName"]) } else { text(volume, &["configMap", "name"]) };
    direct == name
        || items(volume, &["projected", "sources"]).iter().any(|s| text(s, &[source, "name"]) == name)
        || (source == "secret" && mentions_secret(volume, "", "", name))
}

/// Some `…SecretRef`, `secretRef` or `secretName` of a volume source names the secret, in `namespace` (its own, or `home` when it says none).
fn mentions_secret(source: &Value, namespace: &str, home: &str, secret: &str) -> bool {
    let Some(fields) = source.as_object() else { return false };
    fields.iter().any(|(field, value)| {
        let here = |v: &Value| match text(v, &["namespace"]) {
            "" => home == namespace,
            other => other == namespace,
        };
        let by_ref = field.to_ascii_lowercase().ends_with("secretref") && text(value, &["name"]) == secret && here(value);
        let by_name = field == "secretName" && value.as_str() == Some(secret) && home == namespace;
        by_ref || by_name || mentions_secret(value, namespace, home, secret)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::fake::FakeObjects;

    fn ask(verb: &'static str, resource: &'static str, namespace: &'static str, name: &'static str) -> Attributes<'static> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let group = match resource {
            "leases" => "coordination.k8s.io",
            "csinodes" => "storage.k8s.io",
            _ => "",
        };
        Attributes { verb, is_resource: true, group, resource, subresource, namespace, name, ..Attributes::default() }
    }

    #[test]
    fn a_node_reaches_what_its_pods_name() {
        let objects = Arc::new(FakeObjects::default());
        objects.put(
            &known::PODS,
            json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": "n1", "serviceAccountName": "sa",
                "imagePullSecrets": [{"name": "pull"}],
                "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}], "envFrom": [{"configMapRef": {"name": "all"}}]}],
                "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "root-ca"}}]}},
                            {"name": "s", "secret": {"secretName": "vol"}},
                            {"name": "d", "persistentVolumeClaim": {"claimName": "claim"}}]}}),
        );
        objects.put(
            &known::PERSISTENT_VOLUMES,
            json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "a", "name": "claim"}}}),
        );
        let authorizer = NodeAuthorizer::new(objects);
        let n1 = UserInfo::new("system:node:n1", &["system:nodes"]);
        let n2 = UserInfo::new("system:node:n2", &["system:nodes"]);
        let yes = [
            ask("get", "secrets", "a", "pull"),
            ask("watch", "secrets", "a", "env"),
            ask("list", "secrets", "a", "vol"),
            ask("get", "configmaps", "a", "all"),
            ask("get", "configmaps", "a", "root-ca"),
            ask("get", "persistentvolumeclaims", "a", "claim"),
            ask("get", "persistentvolumes", "", "pv"),
            ask("create", "serviceaccounts/token", "a", "sa"),
            ask("get", "pods", "a", "p"),
        ];
        for question in yes {
            assert!(authorizer.decide(&n1, &question).is_allowed(), "{question:?}");
            assert!(!authorizer.decide(&n2, &question).is_allowed(), "{question:?}");
        }
        let no = [
            ask("get", "secrets", "a", "other"),
            ask("get", "secrets", "b", "pull"),
            ask("list", "secrets", "a", ""),
            ask("update", "secrets", "a", "pull"),
            ask("list", "pods", "", ""),
            ask("list", "nodes", "", ""),
            ask("update", "leases", "kube-node-lease", "n2"),
            ask("create", "leases", "default", ""),
            ask("delete", "nodes", "", "n1"),
        ];
        for question in no {
            assert!(!authorizer.decide(&n1, &question).is_allowed(), "{question:?}");
        }
        let mine = Attributes { field_selector: Some("spec.nodeName=n1"), ..ask("watch", "pods", "", "") };
        assert!(authorizer.decide(&n1, &mine).is_allowed() && !authorizer.decide(&n2, &mine).is_allowed());
        assert!(authorizer.decide(&n1, &ask("update", "leases", "kube-node-lease", "n1")).is_allowed());
        assert!(authorizer.decide(&n1, &ask("patch", "nodes/status", "", "n1")).is_allowed());
        assert!(!authorizer.decide(&UserInfo::new("system:node:n1", &[]), &ask("get", "pods", "a", "p")).is_allowed());
    }
}
