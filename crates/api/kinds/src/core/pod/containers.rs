//! Checks of containers: the main ones, init containers with sidecars, and ephemeral ones.

use std::collections::BTreeSet;

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, names};

use super::security;
use super::volumes::{self, Volumes};
use crate::core::service::port_number_or_name;
use crate::tree::{array, at, int, is_true, said, text};

/// What a container's rules know of the pod.
pub(super) struct Pod<'a> {
    pub(super) spec: &'a Value,
    pub(super) claims: Vec<&'a str>,
    pub(super) grace: Option<i64>,
    volumes: Volumes<'a>,
}

impl<'a> Pod<'a> {
    pub(super) fn new(spec: &'a Value, volumes: Volumes<'a>) -> Self {
        let claims = array(spec, "resourceClaims").iter().map(|c| text(c, "name")).collect();
        Pod {
            spec,
            claims, // A negative period is 1.
            grace: at(spec, "terminationGracePeriodSeconds").and_then(Value::as_i64).map(|g| if g < 0 { 1 } else { g }),
            volumes,
        }
    }

    fn host_users(&self) -> bool {
        at(self.spec, "hostUsers").and_then(Value::as_bool).unwrap_or(true)
    }
}

pub(super) fn all(pod: &Pod<'_>, path: &Path<'_>, errors: &mut ErrorList) {
    main(pod, &path.child("containers"), errors);
    init(pod, &path.child("initContainers"), errors);
    ephemeral(pod, &path.child("ephemeralContainers"), errors);
}

fn main(pod: &Pod<'_>, path: &Path<'_>, errors: &mut ErrorList) {
    let containers = array(pod.spec, "containers");
    if containers.is_empty() {
        errors.required(path, "");
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        common(container, pod, &path, errors);
        let name = text(container, "name");
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        long_running(container, pod, &path, errors);
        restart_policy(container, &["Always", "Never", "OnFailure"], &path, errors);
    }
    host_ports(containers, path, errors);
}

fn init(pod: &Pod<'_>, path: &Path<'_>, errors: &mut ErrorList) {
    let mut seen: BTreeSet<&str> = array(pod.spec, "containers").iter().map(|c| text(c, "name")).collect();
    for (i, container) in array(pod.spec, "initContainers").iter().enumerate() {
        let (path, name) = (path.index(i), text(container, "name"));
        common(container, pod, &path, errors);
        restart_policy(container, &["Always", "Never", "OnFailure"], &path, errors);
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        host_ports(std::slice::from_ref(container), &path, errors);
        if text(container, "restartPolicy") == "Always" {
            long_running(container, pod, &path, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if at(container, field).is_some() {
                errors.forbidden(&path.child(field), "may not be set for init containers without restartPolicy=Always");
            }
        }
    }
}

fn ephemeral(pod: &Pod<'_>, path: &Path<'_>, errors: &mut ErrorList) {
    const FORBIDDEN: &[&str] =
        &["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources", "restartPolicy", "resizePolicy"];
    let others = || array(pod.spec, "containers").iter().chain(array(pod.spec, "initContainers")).map(|c| text(c, "name"));
    let mut seen: BTreeSet<&str> = others().collect();
    for (i, container) in array(pod.spec, "ephemeralContainers").iter().enumerate() {
        let (path, name) = (path.index(i), text(container, "name"));
        common(container, pod, &path, errors);
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others().any(|o| o == target) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        for field in FORBIDDEN {
            let set = container.get(*field).is_some_and(|v| match v {
                Value::Null => false,
                Value::Array(a) => !a.is_empty(),
                Value::Object(o) => !o.is_empty(),
                _ => true,
            });
            if set {
                errors.forbidden(&path.child(field), "cannot be set for an Ephemeral Container");
            }
        }
        for (j, mount) in array(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, field).is_empty() {
                    errors.forbidden(&path.child("volumeMounts").index(j).child(field), "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

fn common(container: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut ErrorList) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.invalid_all(&path.child("name"), name, names::dns1123_label(name));
    }
    // Upstream's TODO: an empty image is for templates that others fill; it is required all the same.
    if text(container, "image").is_empty() {
        errors.required(&path.child("image"), "");
    }
    one_of(
        text(container, "terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
        &path.child("terminationMessagePolicy"),
        errors,
    );
    ports(container, &path.child("ports"), errors);
    env(container, &path.child("env"), errors);
    env_from(container, &path.child("envFrom"), errors);
    volumes::mounts(container, &pod.volumes, path, errors);
    one_of(text(container, "imagePullPolicy"), &["Always", "IfNotPresent", "Never"], &path.child("imagePullPolicy"), errors);
    if let Some(resources) = at(container, "resources") {
        super::resources::requirements(resources, &pod.claims, &path.child("resources"), errors);
    }
    resize_policy(container, pod.spec, &path.child("resizePolicy"), errors);
    security::container(container, pod.host_users(), &path.child("securityContext"), errors);
}

/// Required, and one of a few.
pub(super) fn one_of(value: &str, known: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.required(path, "");
    } else if !known.contains(&value) {
        errors.not_supported(path, value, known);
    }
}

fn long_running(container: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(lifecycle) = at(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = at(lifecycle, hook) {
                check_handler(handler, pod.grace, &path.child("lifecycle").child(hook), errors);
            }
        }
        if at(lifecycle, "stopSignal").is_some() && text(pod.spec, "os.name").is_empty() {
            errors.forbidden(&path.child("lifecycle").child("stopSignal"), "may not be set for containers with empty `spec.os.name`");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = at(container, name) {
            check_probe(probe, name, &path.child(name), errors);
        }
    }
}

fn check_probe(probe: &Value, name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    check_handler(probe, None, path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        let value = int(probe, field);
        if value < 0 {
            errors.invalid(&path.child(field), value, "must be greater than or equal to 0");
        }
    }
    let grace = at(probe, "terminationGracePeriodSeconds").and_then(Value::as_i64);
    if let Some(grace) = grace.filter(|g| *g <= 0) {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), grace, "must be greater than 0");
    }
    if name == "readinessProbe" {
        if let Some(grace) = grace {
            errors.invalid(&path.child("terminationGracePeriodSeconds"), grace, "must not be set for readinessProbes");
        }
    } else if int(probe, "successThreshold") != 1 {
        errors.invalid(&path.child("successThreshold"), int(probe, "successThreshold"), "must be 1");
    }
}

/// Exactly one way to act.
fn check_handler(handler: &Value, grace: Option<i64>, path: &Path<'_>, errors: &mut ErrorList) {
    let mut found = false;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = at(handler, kind) else { continue };
        let path = path.child(kind);
        if found {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match kind {
            "exec" if array(action, "command").is_empty() => errors.required(&path.child("command"), ""),
            "httpGet" => http_get(action, &path, errors),
            "tcpSocket" | "grpc" => port_number_or_name(action.get("port"), &path.child("port"), errors),
            "sleep" => sleep(int(action, "seconds"), grace, &path, errors),
            _ => {}
        }
    }
    if !found {
        errors.required(path, "must specify a handler type");
    }
}

fn sleep(seconds: i64, grace: Option<i64>, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(grace) = grace.filter(|g| seconds < 0 || seconds > *g) {
        errors.invalid(path, seconds, format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"));
    }
}

fn http_get(action: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if text(action, "path").is_empty() {
        errors.required(&path.child("path"), "");
    }
    port_number_or_name(action.get("port"), &path.child("port"), errors);
    let scheme = text(action, "scheme");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in array(action, "httpHeaders") {
        let name = text(header, "name");
        errors.invalid_all(&path.child("httpHeaders"), name, names::http_header_name(name));
    }
}

fn ports(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, port) in array(container, "ports").iter().enumerate() {
        let (path, name) = (path.index(i), text(port, "name"));
        if !name.is_empty() {
            let messages = names::port_name(name);
            if messages.is_empty() && !seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
            errors.invalid_all(&path.child("name"), name, messages);
        }
        for (field, required) in [("containerPort", true), ("hostPort", false)] {
            let number = int(port, field);
            if number == 0 {
                if required {
                    errors.required(&path.child(field), "");
                }
                continue;
            }
            for message in names::port_number(number) {
                errors.invalid(&path.child(field), number, message);
            }
        }
        crate::core::service::check_protocol(text(port, "protocol"), &path.child("protocol"), errors);
    }
}

/// No two containers take the same port of the host.
fn host_ports(containers: &[Value], path: &Path<'_>, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in array(container, "ports").iter().enumerate().filter(|(_, p)| int(p, "hostPort") != 0) {
            let key = format!("{}/{}/{}", text(port, "protocol"), text(port, "hostIP"), int(port, "hostPort"));
            if !seen.insert(key.clone()) {
                errors.duplicate(&path.index(i).child("ports").index(j).child("hostPort"), key);
            }
        }
    }
}

fn env(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for (i, variable) in array(container, "env").iter().enumerate() {
        let (path, name) = (path.index(i), text(variable, "name"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_all(&path.child("name"), name, names::env_var_name(name));
        }
        if let Some(from) = at(variable, "valueFrom") {
            value_from(from, !text(variable, "value").is_empty(), &path.child("valueFrom"), errors);
        }
    }
}

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub(super) const ENV_RESOURCES: &[&str] =
    &["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];

fn value_from(from: &Value, has_value: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let mut sources = 0;
    for kind in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
        let Some(source) = at(from, kind) else { continue };
        sources += 1;
        let path = path.child(kind);
        match kind {
            "fieldRef" => field_ref(source, ENV_FIELDS, &path, errors),
            "resourceFieldRef" => resource_field_ref(source, false, &path, errors),
            "fileKeyRef" => {
                for field in ["volumeName", "path", "key"] {
                    if text(source, field).is_empty() {
                        errors.required(&path.child(field), "");
                    }
                }
            }
            _ => {
                let (name, key) = (text(source, "name"), text(source, "key"));
                errors.invalid_all(&path.child("name"), name, names::name_is_dns_subdomain(name, false));
                if key.is_empty() {
                    errors.required(&path.child("key"), "");
                } else {
                    errors.invalid_all(&path.child("key"), key, names::config_map_key(key));
                }
            }
        }
    }
    if sources == 0 {
        errors.invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
    } else if has_value {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

pub(super) fn field_ref(source: &Value, known: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    let field = text(source, "fieldPath");
    if text(source, "apiVersion").is_empty() {
        errors.required(&path.child("apiVersion"), "");
        return;
    }
    if field.is_empty() {
        errors.required(&path.child("fieldPath"), "");
        return;
    }
    if text(source, "apiVersion") != "v1" {
        let why = format!("error converting fieldPath: unsupported pod version: {}", text(source, "apiVersion"));
        errors.invalid(&path.child("fieldPath"), field, why);
        return;
    }
    let subscript = field.strip_suffix("']").and_then(|f| f.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => errors.invalid_all(path, key, names::qualified_name(&key.to_lowercase())),
        Some(("metadata.labels", key)) => errors.invalid_all(path, key, names::qualified_name(key)),
        Some((field, _)) => errors.invalid(path, field, "does not support subscript"),
        None if known.contains(&field) => {}
        None if ENV_FIELDS.contains(&field) || matches!(field, "metadata.annotations" | "metadata.labels") => {
            errors.not_supported(&path.child("fieldPath"), field, known);
        }
        None => {
            errors.invalid(&path.child("fieldPath"), field, format!("error converting fieldPath: field label not supported: {field}"));
        }
    }
}

pub(super) fn resource_field_ref(source: &Value, volume: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let resource = text(source, "resource");
    if volume && text(source, "containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !ENV_RESOURCES.contains(&resource)
        && !resource.starts_with("limits.hugepages-")
        && !resource.starts_with("requests.hugepages-")
    {
        errors.not_supported(&path.child("resource"), resource, ENV_RESOURCES);
    }
    check_divisor(resource, text(source, "divisor"), &path.child("divisor"), errors);
}

/// Amounts are shown in whole units of a power.
fn check_divisor(resource: &str, divisor: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let Some((_, name)) = resource.split_once('.').filter(|(side, _)| matches!(*side, "limits" | "requests")) else { return };
    let (known, shown) = match name {
        "cpu" => (&["1m", "1"][..], "1m and 1 are supported with the cpu resource"),
        "memory" => (POWERS, "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"),
        "ephemeral-storage" => {
            (POWERS, "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local ephemeral storage resource")
        }
        name if name.starts_with("hugepages-") => {
            (POWERS, "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages resource")
        }
        _ => return,
    };
    if !matches!(divisor, "" | "0") && !known.contains(&divisor) {
        errors.invalid(path, resource, format!("only divisor's values {shown}"));
    }
}

const POWERS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

fn env_from(container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for (i, source) in array(container, "envFrom").iter().enumerate() {
        let (item, prefix) = (path.index(i), text(source, "prefix"));
        if !prefix.is_empty() {
            errors.invalid_all(&item.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let kinds: Vec<&str> = ["configMapRef", "secretRef"].into_iter().filter(|k| at(source, k).is_some()).collect();
        for kind in &kinds {
            let name = at(source, kind).map_or("", |s| text(s, "name"));
            let source_path = item.child(kind);
            if name.is_empty() {
                errors.required(&source_path.child("name"), "");
            } else {
                errors.invalid_all(&source_path.child("name"), name, names::name_is_dns_subdomain(name, true));
            }
        }
        match kinds.len() {
            0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn resize_policy(container: &Value, spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, policy) in array(container, "resizePolicy").iter().enumerate() {
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if !seen.insert(resource) {
            errors.duplicate(&path.index(i), resource);
        }
        one_of(resource, &["cpu", "memory"], path, errors);
        one_of(restart, &["NotRequired", "RestartContainer"], path, errors);
        if text(spec, "restartPolicy") == "Never" && restart != "NotRequired" {
            errors.invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

/// Restart policies and rules of single containers (KEP-5307).
fn restart_policy(container: &Value, known: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    let rules = array(container, "restartPolicyRules");
    let policy_path = path.child("restartPolicy");
    match said(container, "restartPolicy") {
        None if !rules.is_empty() => errors.required(&policy_path, "must specify restartPolicy when restart rules are used"),
        Some(policy) if !known.contains(&policy) => errors.not_supported(&policy_path, policy, known),
        _ => {}
    }
    if rules.len() > 20 {
        errors.too_many(&path.child("restartPolicyRules"), rules.len(), 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        let rules_path = path.child("restartPolicyRules");
        let path = rules_path.index(i);
        if text(rule, "action") != "Restart" && text(rule, "action") != "RestartAllContainers" {
            errors.not_supported(&path.child("action"), text(rule, "action"), &["Restart", "RestartAllContainers"]);
        }
        match at(rule, "exitCodes") {
            None => errors.required(&path.child("exitCodes"), "must be specified"),
            Some(codes) if !matches!(text(codes, "operator"), "In" | "NotIn") => {
                errors.not_supported(&path.child("exitCodes.operator"), text(codes, "operator"), &["In", "NotIn"]);
            }
            Some(_) => {}
        }
    }
}

/// For pods, not for templates: no blanks around the image.
pub(super) fn images(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for list in ["containers", "initContainers"] {
        for (i, container) in array(spec, list).iter().enumerate() {
            let image = text(container, "image");
            if image != image.trim() {
                errors.invalid(&path.child(list).index(i).child("image"), image, "must not have leading or trailing whitespace");
            }
        }
    }
}

pub(super) fn is_privileged(container: &Value) -> bool {
    is_true(container, "securityContext.privileged")
}
