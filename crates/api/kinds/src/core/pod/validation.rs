//! What a pod must look like; pod templates share nearly all of it.

use serde_json::Value;
use tiphys_meta::field::go_quote;
use tiphys_meta::{ErrorList, Path, ip, names, object};

use super::containers::{self, one_of};
use super::{resources, scheduling, security, volumes};
use crate::tree::{array, at, int, is_true, said, text};

const SPEC: Path<'static> = Path::new("spec");

/// Every write of a pod.
pub(super) fn pod(pod: &Value, errors: &mut ErrorList) {
    let empty = Value::Null;
    let spec_value = pod.get("spec").unwrap_or(&empty);
    annotations(pod, errors);
    spec(spec_value, &SPEC, errors);
    if text(spec_value, "serviceAccountName").is_empty() {
        for (i, volume) in array(spec_value, "volumes").iter().enumerate() {
            for (j, source) in array(volume, "projected.sources").iter().enumerate() {
                if at(source, "serviceAccountToken").is_some() {
                    let path = SPEC.child("volumes");
                    let why = "must not be specified when serviceAccountName is not set";
                    errors.forbidden(&path.index(i).child("projected.sources").index(j).child("serviceAccountToken"), why);
                }
            }
        }
    }
    claims_of_volumes(pod, errors);
    containers::images(spec_value, &SPEC, errors);
}

/// An ephemeral volume's claim has a name made of the pod's and the volume's.
fn claims_of_volumes(pod: &Value, errors: &mut ErrorList) {
    let (pod_name, list) = (object::name(pod), SPEC.child("volumes"));
    for (i, volume) in array(pod, "spec.volumes").iter().enumerate().filter(|(_, v)| at(v, "ephemeral").is_some()) {
        let name = text(volume, "name");
        if pod_name.is_empty() || name.is_empty() {
            continue;
        }
        let claim = format!("{pod_name}-{name}");
        for why in names::dns1123_subdomain(&claim) {
            errors.invalid(&list.index(i).child("name"), name, format!("PVC name {}: {why}", go_quote(&claim)));
        }
    }
}

/// New pods only.
pub(super) fn created(pod: &Value, errors: &mut ErrorList) {
    if !array(pod, "spec.ephemeralContainers").is_empty() {
        errors.forbidden(&SPEC.child("ephemeralContainers"), "cannot be set on create");
    }
    if !text(pod, "spec.nodeName").is_empty() && !array(pod, "spec.schedulingGates").is_empty() {
        errors.forbidden(&SPEC.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

fn annotations(pod: &Value, errors: &mut ErrorList) {
    let meta = Path::new("metadata");
    let path = meta.child("annotations");
    for (key, value) in object::annotations(pod) {
        if key == "kubernetes.io/config.mirror" && text(pod, "spec.nodeName").is_empty() {
            errors.invalid(&path.key(key), value, "must set spec.nodeName if mirror pod annotation is set");
        }
    }
}

/// `template` of a workload.
pub(crate) fn template(template: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let meta = template.get("metadata");
    crate::meta::labels(meta.and_then(|m| m.get("labels")), &path.child("labels"), errors);
    crate::meta::annotations(meta.and_then(|m| m.get("annotations")), &path.child("annotations"), errors);
    let empty = Value::Null;
    spec(template.get("spec").unwrap_or(&empty), &path.child("spec"), errors);
    if !array(template, "spec.ephemeralContainers").is_empty() {
        errors.forbidden(&path.child("spec.ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

fn spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if at(spec, "terminationGracePeriodSeconds").is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::volumes(spec, &path.child("volumes"), errors);
    resource_claims(spec, &path.child("resourceClaims"), errors);
    containers::all(&containers::Pod::new(spec, volumes), path, errors);
    resources::pod_level(spec, path, errors);
    host_network(spec, path, errors);
    one_of(text(spec, "restartPolicy"), &["Always", "OnFailure", "Never"], &path.child("restartPolicy"), errors);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(text(spec, "dnsPolicy"), &dns, &path.child("dnsPolicy"), errors);
    crate::meta::labels(spec.get("nodeSelector"), &path.child("nodeSelector"), errors);
    security::pod(spec, path, errors);
    scheduling::affinity(spec, path, errors);
    dns_config(spec, &path.child("dnsConfig"), errors);
    for (i, gate) in array(spec, "readinessGates").iter().enumerate() {
        let kind = text(gate, "conditionType");
        let list = path.child("readinessGates");
        errors.invalid_all(&list.index(i).child("conditionType"), kind, names::qualified_name(kind));
    }
    scheduling::gates(spec, path, errors);
    scheduling::spread(spec, path, errors);
    named_fields(spec, path, errors);
    scheduling::tolerations(spec, path, errors);
    host_aliases(spec, &path.child("hostAliases"), errors);
    others(spec, path, errors);
}

fn resource_claims(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let claims = array(spec, "resourceClaims");
    for (i, claim) in claims.iter().enumerate() {
        let (path, name) = (path.index(i), text(claim, "name"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            if claims[..i].iter().any(|c| text(c, "name") == name) {
                errors.duplicate(&path.child("name"), name);
            }
            errors.invalid_all(&path.child("name"), name, names::dns1123_label(name));
        }
        match (at(claim, "resourceClaimName").is_some(), at(claim, "resourceClaimTemplateName").is_some()) {
            (true, true) => {
                errors.invalid(&path, claim.clone(), "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified");
            }
            (false, false) => {
                errors.invalid(&path, claim.clone(), "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {}
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(named) = said(claim, field) {
                errors.invalid_all(&path.child(field), named, names::dns1123_subdomain(named));
            }
        }
    }
}

/// With the host's network, a container's port is the host's.
fn host_network(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if !is_true(spec, "hostNetwork") {
        return;
    }
    for list in ["containers", "initContainers"] {
        for (i, container) in array(spec, list).iter().enumerate() {
            for (j, port) in array(container, "ports").iter().enumerate() {
                let (host, own) = (int(port, "hostPort"), int(port, "containerPort"));
                if host != 0 && host != own {
                    let containers = path.child(list);
                    let path = containers.index(i);
                    let why = "must match `containerPort` when `hostNetwork` is true";
                    errors.invalid(&path.child("ports").index(j).child("hostPort"), host, why);
                }
            }
        }
    }
}

fn dns_config(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let config = at(spec, "dnsConfig");
    if text(spec, "dnsPolicy") == "None" {
        match config {
            None => return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(config) if array(config, "nameservers").is_empty() => {
                let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                return errors.required(&path.child("nameservers"), why);
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return };
    let (servers, searches) = (array(config, "nameservers"), array(config, "searches"));
    if servers.len() > 3 {
        errors.invalid(&path.child("nameservers"), servers.to_vec(), "must not have more than 3 nameservers");
    }
    for (i, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        ip::validate(errors, &path.child("nameservers").index(i), server);
    }
    if searches.len() > 32 {
        errors.invalid(&path.child("searches"), searches.to_vec(), "must not have more than 32 search paths");
    }
    for (i, search) in searches.iter().filter_map(Value::as_str).enumerate() {
        // RelaxedDNSSearchValidation (KEP-4427): a dot alone, and underscores.
        let name = search.strip_suffix('.').unwrap_or(search);
        if search != "." {
            errors.invalid_all(&path.child("searches").index(i), name, names::dns1123_subdomain_with_underscore(name));
        }
    }
    for (i, option) in array(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.required(&path.child("options").index(i), "must not be empty");
        }
    }
}

fn named_fields(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    type Rule = fn(&str) -> Vec<String>;
    let rules: [(&str, Rule); 6] = [
        ("serviceAccountName", names::dns1123_subdomain),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
    ];
    for (field, rule) in rules {
        let value = text(spec, field);
        if !value.is_empty() {
            errors.invalid_all(&path.child(field), value, rule(value));
        }
    }
    if let Some(name) = at(spec, "hostnameOverride").and_then(Value::as_str) {
        let path = path.child("hostnameOverride");
        if name.len() > 64 {
            errors.too_long(&path, 64);
        }
        errors.invalid_all(&path, name, names::dns1123_subdomain(name));
        if is_true(spec, "hostNetwork") {
            errors.forbidden(&path, "may not be set when `hostNetwork` is true");
        }
    }
}

fn host_aliases(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for (i, alias) in array(spec, "hostAliases").iter().enumerate() {
        let path = path.index(i);
        ip::validate(errors, &path.child("ip"), text(alias, "ip"));
        for (j, name) in array(alias, "hostnames").iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_all(&path.child("hostnames").index(j), name, names::dns1123_subdomain(name));
        }
    }
}

fn others(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(seconds) = at(spec, "activeDeadlineSeconds").and_then(Value::as_i64) {
        for message in names::in_range(seconds, 1, i64::from(i32::MAX)) {
            errors.invalid(&path.child("activeDeadlineSeconds"), seconds, message);
        }
    }
    let preemption = text(spec, "preemptionPolicy");
    if !matches!(preemption, "" | "PreemptLowerPriority" | "Never") {
        errors.not_supported(&path.child("preemptionPolicy"), preemption, &["PreemptLowerPriority", "Never"]);
    }
    let os = at(spec, "os").map(|os| text(os, "name"));
    match os {
        None | Some("linux" | "windows") => {}
        Some("") => errors.required(&path.child("os.name"), ""),
        Some(other) => errors.not_supported(&path.child("os"), other, &["linux", "windows"]),
    }
    if at(spec, "hostUsers") == Some(&Value::Bool(false)) {
        for flag in ["hostNetwork", "hostPID", "hostIPC"] {
            if is_true(spec, flag) {
                // Two of the names are capital in upstream's paths.
                let name = match flag {
                    "hostPID" => "HostPID",
                    "hostIPC" => "HostIPC",
                    flag => flag,
                };
                errors.forbidden(&path.child(name), "when `hostUsers` is false");
            }
        }
    }
    for (name, amount) in crate::tree::map_at(spec, "overhead").into_iter().flatten() {
        let amount = amount.as_str().and_then(|t| tiphys_meta::Quantity::parse(t).ok()).unwrap_or_default();
        resources::check_amount(name, amount, &path.child("overhead").key(name), errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(change: impl FnOnce(&mut Value)) -> String {
        let mut o = json!({"metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]}});
        change(&mut o);
        super::super::defaults::pod(&mut o);
        let errors = super::super::STRATEGY.validate_create(&o);
        if errors.is_empty() { String::new() } else { errors.message() }
    }

    #[test]
    fn a_plain_pod_is_valid() {
        assert_eq!(check(|_| {}), "");
    }

    #[test]
    fn errors_are_upstreams() {
        type Change = fn(&mut Value);
        let cases: &[(Change, &str)] = &[
            (|p| p["spec"]["containers"] = json!([]), "spec.containers: Required value"),
            (
                |p| p["spec"]["containers"][0] = json!({"resources": {}}),
                "[spec.containers[0].name: Required value, spec.containers[0].image: Required value]",
            ),
            (
                |p| p["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/x"}]),
                "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            ),
            (
                |p| p["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                |p| p["spec"]["containers"][0]["resources"] = json!({"requests": {"example.com/x": "1"}}),
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
            ),
            (
                |p| p["spec"]["containers"][0]["env"] = json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.foo"}}}]),
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.foo\": error converting fieldPath: field label not supported: spec.foo",
            ),
            (
                |p| p["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "hugepages-2Mi": "3Mi"}}),
                "[spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi, \
                 spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi]",
            ),
            (
                |p| p["spec"]["restartPolicy"] = json!("Sometimes"),
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ),
            (
                |p| p["spec"]["tolerations"] = json!([{"operator": "Equal"}]),
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ),
            (|p| p["spec"]["initContainers"] = json!([{"name": "c", "image": "i"}]), "spec.initContainers[0].name: Duplicate value: \"c\""),
            (
                |p| p["spec"]["containers"][0]["livenessProbe"] = json!({"httpGet": {"port": 80}, "tcpSocket": {"port": 1}}),
                "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            ),
            (
                |p| p["spec"]["containers"][0]["ports"] = json!([{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]),
                "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//9\"",
            ),
            (
                |p| p["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]),
                "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
            ),
            (
                |p| p["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "i"}]),
                "spec.ephemeralContainers: Forbidden: cannot be set on create",
            ),
            (
                |p| p["spec"]["securityContext"] = json!({"runAsUser": -1}),
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ),
        ];
        for (change, message) in cases {
            assert_eq!(check(change), *message);
        }
    }
}
