//! PodSecurity (KEP-2579): the pod security standards, as the labels of a namespace ask for them, in the version of the standards that they name.
//! `enforce` refuses pods, `warn` tells the client and `audit` the audit log, also of what makes pods. Defaults and exemptions: [`PodSecuritySettings`].
//!
//! Absent: the limits on how many pods of a namespace are looked at when it asks for more (upstream: 3,000, for one second).

mod checks;
mod settings;
mod standard;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_meta::{ApiError, Gvr, object};

use super::namespace_lifecycle::namespaces;
use super::tree::{list, text};
use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;
pub use settings::PodSecuritySettings;
use standard::{Level, PREFIX, Policy, Standard};

pub(super) struct PodSecurity;

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
            // Whatever else changes a pod's spec is judged as the pod.
            "ephemeralcontainers" | "resize" => attributes.is("", "pods"),
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
        let settings = &registry.config.pod_security;
        if settings.namespaces.iter().any(|n| n == attributes.namespace) {
            return exempt(attributes, "namespace");
        }
        if settings.users.contains(&attributes.user.name) {
            return exempt(attributes, "user");
        }
        let Some(namespace) = registry.cached(&namespaces()).and_then(|c| c.get("", attributes.namespace)) else { return Ok(()) };
        let (policy, errors) = Policy::of_labels(namespace.labels(), &settings.defaults);
        let is_pod = attributes.is("", "pods");
        if errors.is_empty() && policy.is_privileged() {
            if is_pod {
                note(attributes, "enforce-policy", || Standard::PRIVILEGED.to_string());
            }
            return Ok(());
        }
        if is_pod && old.is_some_and(|o| same_to_us(o, object)) {
            return Ok(());
        }
        let Some(pod) = template(attributes, object) else { return Ok(()) };
        if exempt_class(registry, &pod["spec"]) {
            return exempt(attributes, "runtimeClass");
        }
        if !errors.is_empty() {
            let all = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let all = if errors.len() == 1 { all } else { format!("[{all}]") };
            note(attributes, "error", || format!("Failed to parse policy: {all}"));
        }
        judge(attributes, &policy, pod, is_pod)
    }
}

fn exempt(attributes: &Attributes<'_>, by: &str) -> Result<(), ApiError> {
    note(attributes, "exempt", || by.to_owned());
    Ok(())
}

fn exempt_class(registry: &Registry, spec: &Value) -> bool {
    let class = text(spec, "runtimeClassName");
    !class.is_empty() && registry.config.pod_security.runtime_classes.iter().any(|c| c == class)
}

/// For the audit log.
fn note(attributes: &Attributes<'_>, name: &str, value: impl FnOnce() -> String) {
    attributes.notes.add(|| format!("{PREFIX}{name}"), value);
}

/// Only pods are refused; of what makes pods the client and the audit log hear.
fn judge(attributes: &Attributes<'_>, policy: &Policy, pod: &Value, is_pod: bool) -> Result<(), ApiError> {
    let refusal = if is_pod {
        note(attributes, "enforce-policy", || policy.enforce.to_string());
        violations(policy.enforce, pod)
    } else {
        None
    };
    if let Some(why) = violations(policy.audit, pod) {
        note(attributes, "audit-violations", || format!("would violate {why}"));
    }
    if let Some(why) = refusal {
        return Err(attributes.forbidden(&format!("violates {why}")));
    }
    if let Some(why) = violations(policy.warn, pod) {
        attributes.warnings.lock().push(format!("would violate {why}"));
    }
    Ok(())
}

/// Labels of a namespace have to be readable; where pods are held to more than before, the client hears which of those that are there break it.
fn namespace(registry: &Registry, attributes: &Attributes<'_>, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    if !attributes.subresource.is_empty() {
        return Ok(());
    }
    let settings = &registry.config.pod_security;
    let read = |namespace: &Value| Policy::of_labels(object::labels(namespace), &settings.defaults);
    let (policy, wrong) = read(new);
    let before = old.map(read);
    if !wrong.is_empty() && before.as_ref().is_none_or(|(_, was)| *was != wrong) {
        return Err(wrong.into_invalid("", "Namespace", object::name(new)));
    }
    if let Some((before, _)) = &before {
        let (to, from) = (policy.enforce, before.enforce);
        if to == from || to.level == Level::Privileged || to.version == from.version && to.level <= from.level {
            return Ok(());
        }
    }
    if settings.namespaces.iter().any(|n| n == object::name(new)) {
        attributes.warnings.lock().extend(standard::exempt_warning(new, &policy, &settings.defaults));
        return Ok(());
    }
    let mut warnings = if before.is_some() { existing(registry, object::name(new), policy.enforce) } else { Vec::new() };
    if !warnings.is_empty() {
        let name = object::name(new);
        warnings.insert(0, format!("existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{}\"", policy.enforce));
        attributes.warnings.lock().append(&mut warnings);
    }
    Ok(())
}

/// `pod (and 2 other pods): reason, reason`, one line for each set of reasons.
fn existing(registry: &Registry, namespace: &str, standard: Standard) -> Vec<String> {
    let mut by_reasons: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for pod in registry.cached(&Gvr::new("", "v1", "pods")).map(|c| c.list(namespace)).unwrap_or_default() {
        let tree = pod.to_value();
        let found = if exempt_class(registry, &tree["spec"]) { Vec::new() } else { checks::run(standard, &tree) };
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

/// Of what an update can change, only images and ephemeral containers matter, as upstream.
fn same_to_us(old: &Value, new: &Value) -> bool {
    let images = |pod: &Value| -> Vec<Value> {
        let fields = ["initContainers", "containers", "ephemeralContainers"].iter();
        fields.flat_map(|f| list(&pod["spec"], f)).map(|c| c["image"].clone()).collect()
    };
    images(old) == images(new)
}

/// `PodSecurity "LEVEL:VERSION": REASONS`.
fn violations(standard: Standard, pod: &Value) -> Option<String> {
    let found = checks::run(standard, pod);
    (!found.is_empty()).then(|| format!("PodSecurity \"{standard}\": {}", found.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::standard::Version;
    use super::*;

    fn at(level: Level) -> Standard {
        Standard { level, version: Version::Latest }
    }

    #[test]
    fn a_plain_pod_is_baseline_but_not_restricted() {
        let pod = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(violations(at(Level::Baseline), &pod), None);
        let want = "PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set \
                    securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
                    securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
                    securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type \
                    to \"RuntimeDefault\" or \"Localhost\")";
        assert_eq!(violations(at(Level::Restricted), &pod).as_deref(), Some(want));
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
            let found = violations(at(Level::Baseline), &json!({"spec": spec}));
            assert_eq!(found, Some(format!("PodSecurity \"baseline:latest\": {want}")));
        }
    }

    #[test]
    fn a_careful_pod_is_restricted() {
        let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        let pod = json!({"spec": {"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": context}], "volumes": [{"name": "v", "projected": {}}]}});
        assert_eq!(violations(at(Level::Restricted), &pod), None);
    }

    #[test]
    fn versions_of_the_standards() {
        let windows = json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]});
        let own_users =
            json!({"hostUsers": false, "containers": [{"name": "c", "securityContext": {"procMount": "Unmasked", "runAsUser": 0}}]});
        let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name}]}});
        let probe = json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "h"}}}]});
        let selinux = json!({"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}});
        for (spec, level, minor, want) in [
            (&windows, Level::Restricted, 24, vec!["allowPrivilegeEscalation != false", "unrestricted capabilities", "seccompProfile"]),
            (&windows, Level::Restricted, 25, vec![]),
            (&windows, Level::Restricted, 18, vec!["allowPrivilegeEscalation != false"]),
            (&windows, Level::Restricted, 7, vec![]),
            (&own_users, Level::Baseline, 34, vec!["procMount"]),
            (&own_users, Level::Baseline, 35, vec![]),
            (&sysctl("net.ipv4.tcp_rmem"), Level::Baseline, 31, vec!["forbidden sysctls"]),
            (&sysctl("net.ipv4.tcp_rmem"), Level::Baseline, 32, vec![]),
            (&sysctl("net.ipv4.ip_local_reserved_ports"), Level::Baseline, 26, vec!["forbidden sysctls"]),
            (&sysctl("net.ipv4.tcp_fin_timeout"), Level::Baseline, 29, vec![]),
            (&probe, Level::Baseline, 33, vec![]),
            (&probe, Level::Baseline, 34, vec!["probe or lifecycle host"]),
            (&selinux, Level::Baseline, 30, vec!["seLinuxOptions"]),
            (&selinux, Level::Baseline, 31, vec![]),
        ] {
            let found = checks::run(Standard { level, version: Version::Minor(minor) }, &json!({"spec": spec}));
            let reasons: Vec<&str> = found.iter().filter_map(|f| f.split(" (").next()).collect();
            assert_eq!(reasons, want, "v1.{minor} {spec}");
        }
        // Restricted never lets a pod see all of /proc, whatever user namespace it has.
        let found = checks::run(at(Level::Restricted), &json!({"spec": own_users}));
        assert!(found.iter().any(|f| f.starts_with("procMount")), "{found:?}");
        assert!(!found.iter().any(|f| f.starts_with("runAs")), "{found:?}");
        let annotated = json!({"metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}});
        let old = checks::run(Standard { level: Level::Baseline, version: Version::Minor(18) }, &annotated);
        assert_eq!(old, ["seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"]);
    }

    #[test]
    fn every_container_is_seen() {
        let bad = json!([{"name": "c", "image": "i", "securityContext": {"privileged": true}}]);
        for field in ["containers", "initContainers", "ephemeralContainers"] {
            let pod = json!({"spec": {field: bad}});
            assert!(violations(at(Level::Baseline), &pod).is_some(), "{field}");
            assert!(!same_to_us(&json!({"spec": {}}), &pod), "{field}");
        }
    }
}
