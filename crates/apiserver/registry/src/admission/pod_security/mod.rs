//! PodSecurity (KEP-2579): the pod security standards, as the labels of a namespace ask for them. `enforce` refuses pods, `warn` tells the client, also
//! of what makes pods. The newest version of the standards always holds: `-version` labels are not looked at. Audit annotations are absent.

mod checks;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_meta::ApiError;

use super::namespace_lifecycle::namespaces;
use super::tree::list;
use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;

pub(super) struct PodSecurity;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Level {
        match text {
            "baseline" => Level::Baseline,
            "restricted" => Level::Restricted,
            // An unreadable level counts as the strictest.
            "" | "privileged" => Level::Privileged,
            _ => Level::Restricted,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        if attributes.operation == Operation::Delete {
            return false;
        }
        match attributes.subresource {
            "" => attributes.is("", "pods") || template(attributes, &Value::Null).is_some(),
            "ephemeralcontainers" => attributes.is("", "pods"),
            _ => false,
        }
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(object) = object else { return Ok(()) };
        let Some(namespace) = registry.cached(&namespaces()).and_then(|c| c.get("", attributes.namespace)) else { return Ok(()) };
        let label = |name: &str| Level::parse(namespace.labels().find(|(k, _)| *k == name).map_or("", |(_, v)| v));
        let (enforce, warn) = (label("pod-security.kubernetes.io/enforce"), label("pod-security.kubernetes.io/warn"));
        let is_pod = attributes.is("", "pods");
        if enforce == Level::Privileged && warn == Level::Privileged || is_pod && old.is_some_and(|o| same_to_us(o, object)) {
            return Ok(());
        }
        let (Some(pod), enforce) = (template(attributes, object), if is_pod { enforce } else { Level::Privileged }) else { return Ok(()) };
        if let Some(why) = violations(enforce, pod) {
            return Err(attributes.forbidden(&why));
        }
        if let Some(why) = violations(warn, pod) {
            attributes.warnings.lock().push(format!("would {}", why.replacen("violates", "violate", 1)));
        }
        Ok(())
    }
}

/// The pod, or the template of the pods that the object makes.
fn template<'o>(attributes: &Attributes<'_>, object: &'o Value) -> Option<&'o Value> {
    match (&*attributes.gvr.group, &*attributes.gvr.resource) {
        ("", "pods") => Some(object),
        ("", "podtemplates") => Some(&object["template"]),
        ("", "replicationcontrollers") | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") | ("batch", "jobs") => {
            Some(&object["spec"]["template"])
        }
        ("batch", "cronjobs") => Some(&object["spec"]["jobTemplate"]["spec"]["template"]),
        _ => None,
    }
}

/// Of what an update can change only images, annotations and ephemeral containers matter.
fn same_to_us(old: &Value, new: &Value) -> bool {
    let images = |pod: &Value| -> Vec<Value> {
        ["initContainers", "containers", "ephemeralContainers"]
            .iter()
            .flat_map(|f| list(&pod["spec"], f))
            .map(|c| c["image"].clone())
            .collect()
    };
    images(old) == images(new) && old["metadata"]["annotations"] == new["metadata"]["annotations"]
}

fn violations(level: Level, pod: &Value) -> Option<String> {
    let found: Vec<String> = match level {
        Level::Privileged => return None,
        Level::Baseline => checks::run(checks::BASELINE, pod),
        Level::Restricted => checks::run(checks::RESTRICTED, pod),
    };
    (!found.is_empty()).then(|| format!("violates PodSecurity \"{}:latest\": {}", level.as_str(), found.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plain_pod_is_baseline_but_not_restricted() {
        let pod = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(violations(Level::Baseline, &pod), None);
        let want = "violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set \
                    securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
                    securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
                    securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type \
                    to \"RuntimeDefault\" or \"Localhost\")";
        assert_eq!(violations(Level::Restricted, &pod).as_deref(), Some(want));
    }

    #[test]
    fn what_baseline_refuses() {
        for (spec, want) in [
            (json!({"hostNetwork": true, "hostPID": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
            (json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), "hostPath volumes (volume \"v\")"),
            (
                json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]}),
                "privileged (container \"c\" must not set securityContext.privileged=true)",
            ),
            (json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}]}]}), "hostPort (container \"c\" uses hostPort 80)"),
            (
                json!({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}}]}),
                "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
            ),
            (json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}), "forbidden sysctls (kernel.msgmax)"),
            (
                json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
                "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
        ] {
            let found = violations(Level::Baseline, &json!({"spec": spec}));
            assert_eq!(found, Some(format!("violates PodSecurity \"baseline:latest\": {want}")));
        }
    }

    #[test]
    fn a_careful_pod_is_restricted() {
        let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        let pod = json!({"spec": {"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": context}], "volumes": [{"name": "v", "projected": {}}]}});
        assert_eq!(violations(Level::Restricted, &pod), None);
    }
}
