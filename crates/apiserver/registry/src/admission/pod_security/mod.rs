//! PodSecurity (KEP-2579): the pod security standards, as the labels of a namespace ask for them. `enforce` refuses pods, `warn` tells the client, also
//! of what makes pods. The newest version of the standards always holds: `-version` labels are not looked at. Audit annotations are absent.

mod checks;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_meta::{ApiError, ErrorList, Gvr, Path, object};

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

    /// What a label says, or why it says nothing.
    fn check(text: &str) -> Result<(), &'static str> {
        match text {
            "privileged" | "baseline" | "restricted" => Ok(()),
            _ => Err("must be one of privileged, baseline, restricted"),
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
            "" => attributes.is("", "pods") || attributes.is("", "namespaces") || template(attributes, &Value::Null).is_some(),
            "ephemeralcontainers" => attributes.is("", "pods"),
            _ => false,
        }
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(object) = new else { return Ok(()) };
        if attributes.is("", "namespaces") {
            return namespace(registry, attributes, object, old);
        }
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

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// Labels of a namespace have to be readable; where pods are held to more than before, the client hears which of those that are there break it.
fn namespace(registry: &Registry, attributes: &Attributes<'_>, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let wrong = wrong_labels(new);
    let was_wrong = old.is_some_and(|old| !wrong_labels(old).is_empty());
    if !wrong.is_empty() {
        return if was_wrong { Ok(()) } else { Err(wrong.into_invalid("", "Namespace", object::name(new))) };
    }
    let enforce = |o: &Value| Level::parse(object::labels(o).find(|(k, _)| *k == ENFORCE).map_or("", |(_, v)| v));
    let Some(old) = old.filter(|old| enforce(new) > enforce(old)) else { return Ok(()) };
    let mut warnings = existing(registry, object::name(old), enforce(new));
    if !warnings.is_empty() {
        let head = format!(
            "existing pods in namespace {:?} violate the new PodSecurity enforce level \"{}:latest\"",
            object::name(new),
            enforce(new).as_str()
        );
        warnings.insert(0, head);
        attributes.warnings.lock().append(&mut warnings);
    }
    Ok(())
}

fn wrong_labels(namespace: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("metadata.labels");
    for (key, value) in object::labels(namespace) {
        let why = match key.strip_prefix("pod-security.kubernetes.io/") {
            Some("enforce" | "audit" | "warn") => Level::check(value).err(),
            Some("enforce-version" | "audit-version" | "warn-version") if !is_version(value) => Some("must be \"latest\" or \"v1.x\""),
            _ => None,
        };
        if let Some(why) = why {
            errors.invalid(&path.key(key), value, why);
        }
    }
    errors
}

fn is_version(text: &str) -> bool {
    let minor = text.strip_prefix("v1.").unwrap_or("");
    text == "latest" || !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'))
}

/// `pod (and 2 other pods): reason, reason`, one line for each set of reasons.
fn existing(registry: &Registry, namespace: &str, level: Level) -> Vec<String> {
    let mut by_reasons: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for pod in registry.cached(&Gvr::new("", "v1", "pods")).map(|c| c.list(namespace)).unwrap_or_default() {
        let found = found(level, &pod.to_value());
        if !found.is_empty() {
            let reasons: Vec<&str> = found.iter().map(|f| f.split_once(" (").map_or(f.as_str(), |(reason, _)| reason)).collect();
            by_reasons.entry(reasons.join(", ")).or_default().push(pod.name().to_owned());
        }
    }
    let line = |(reasons, mut pods): (String, Vec<String>)| {
        pods.sort_unstable();
        let others = match pods.len() {
            0 | 1 => String::new(),
            2 => " (and 1 other pod)".into(),
            n => format!(" (and {} other pods)", n - 1),
        };
        format!("{}{others}: {reasons}", pods.first().map_or("", String::as_str))
    };
    let mut lines: Vec<String> = by_reasons.into_iter().map(line).collect();
    lines.sort_unstable();
    lines
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

fn found(level: Level, pod: &Value) -> Vec<String> {
    match level {
        Level::Privileged => Vec::new(),
        Level::Baseline => checks::run(checks::BASELINE, pod),
        Level::Restricted => checks::run(checks::RESTRICTED, pod),
    }
}

fn violations(level: Level, pod: &Value) -> Option<String> {
    let found = found(level, pod);
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
