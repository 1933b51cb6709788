//! Defaults of pods and of pod templates, exactly upstream's. A template gets less than a pod: what depends on the whole pod
//! (requests from limits, host ports, service links) is decided when the pod is made.

use serde_json::{Map, Value, json};
use tiphys_types::resources::is_pod_level;

use crate::core::resource_list;
use crate::tree::{array_mut, child, int, is_true, present, set_absent, set_default, set_nonzero, text};

const FILE_MODE: i32 = 0o644;

pub(crate) fn pod(pod: &mut Value) {
    let spec = child(pod, "spec");
    for list in ["containers", "initContainers"] {
        array_mut(spec, list).iter_mut().for_each(resource_list::requests_from_limits);
    }
    pod_level_resources(spec);
    set_absent(spec, "enableServiceLinks", true);
    if is_true(spec, "hostNetwork") {
        for list in ["containers", "initContainers"] {
            array_mut(spec, list).iter_mut().for_each(host_ports);
        }
    }
    pod_spec(spec);
    status(pod);
}

/// `template` of a workload: its `spec` alone has defaults.
pub(crate) fn template(template: &mut Value) {
    pod_spec(child(template, "spec"));
}

/// `spec.template` of a workload.
pub(crate) fn template_of(workload: &mut Value) {
    let spec = child(workload, "spec");
    if spec.get("template").is_some_and(|t| !t.is_null()) {
        template(child(spec, "template"));
    }
}

fn pod_spec(spec: &mut Value) {
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "restartPolicy", "Always");
    set_absent(spec, "securityContext", json!({}));
    set_absent(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    array_mut(spec, "volumes").iter_mut().for_each(volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        array_mut(spec, list).iter_mut().for_each(container);
    }
    resource_list::round(spec.get_mut("overhead"));
    resource_list::round_requirements(spec.get_mut("resources"));
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are printed, the new one decides.
pub(crate) fn service_account(spec: &mut Value) {
    let name = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount"),
        name => name,
    };
    if !name.is_empty() {
        let name = name.to_owned();
        spec["serviceAccountName"] = json!(name);
        spec["serviceAccount"] = json!(name);
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(text(container, "image"));
    set_default(container, "imagePullPolicy", policy);
    set_default(container, "terminationMessagePath", "/dev/termination-log");
    set_default(container, "terminationMessagePolicy", "File");
    for port in array_mut(container, "ports") {
        set_default(port, "protocol", "TCP");
    }
    for env in array_mut(container, "env") {
        let Some(from) = present(env, "valueFrom") else { continue };
        field_ref(from);
        if let Some(key) = present(from, "fileKeyRef") {
            set_absent(key, "optional", false);
        }
    }
    resource_list::round_requirements(container.get_mut("resources"));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(p) = present(container, name) {
            probe(p);
        }
    }
    if let Some(lifecycle) = present(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(get) = present(lifecycle, hook).and_then(|h| present(h, "httpGet")) {
                http_get(get);
            }
        }
    }
}

fn probe(probe: &mut Value) {
    for (field, default) in [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)] {
        set_nonzero(probe, field, default);
    }
    if let Some(get) = present(probe, "httpGet") {
        http_get(get);
    }
    if let Some(grpc) = present(probe, "grpc") {
        set_absent(grpc, "service", "");
    }
}

fn http_get(action: &mut Value) {
    set_default(action, "path", "/");
    set_default(action, "scheme", "HTTP");
}

fn field_ref(source: &mut Value) {
    if let Some(field) = present(source, "fieldRef") {
        set_default(field, "apiVersion", "v1");
    }
}

fn volume(volume: &mut Value) {
    let sources = volume.as_object().map_or(0, |v| v.iter().filter(|(k, v)| *k != "name" && !v.is_null()).count());
    if sources == 0 {
        set_absent(volume, "emptyDir", json!({}));
    }
    if let Some(image) = present(volume, "image") {
        let policy = pull_policy(text(image, "reference"));
        set_default(image, "pullPolicy", policy);
    }
    if let Some(path) = present(volume, "hostPath") {
        set_absent(path, "type", "");
    }
    for name in ["secret", "downwardAPI", "configMap", "projected"] {
        if let Some(source) = present(volume, name) {
            set_absent(source, "defaultMode", FILE_MODE);
            array_mut(source, "items").iter_mut().for_each(field_ref);
            array_mut(source, "sources").iter_mut().for_each(projection);
        }
    }
    if let Some(claim) = present(volume, "ephemeral").and_then(|e| present(e, "volumeClaimTemplate")) {
        crate::core::persistent_volume_claim::spec_defaults(child(claim, "spec"));
    }
    remote_volume(volume);
}

/// Sources of storage systems whose drivers are long gone, but whose fields still have defaults.
fn remote_volume(volume: &mut Value) {
    const DEFAULTS: &[(&str, &[(&str, &str)])] = &[
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("azureDisk", &[("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
    ];
    for (name, fields) in DEFAULTS {
        if let Some(source) = present(volume, name) {
            fields.iter().for_each(|(field, default)| set_default(source, field, *default));
            if *name == "azureDisk" {
                set_absent(source, "readOnly", false);
            }
        }
    }
}

/// Trust bundles are behind a feature gate that is off by default: the field is dropped, as upstream drops it.
fn projection(source: &mut Value) {
    crate::tree::remove(source, "clusterTrustBundle");
    if let Some(downward) = present(source, "downwardAPI") {
        array_mut(downward, "items").iter_mut().for_each(field_ref);
    }
    if let Some(token) = present(source, "serviceAccountToken") {
        set_absent(token, "expirationSeconds", 3600);
    }
}

fn host_ports(container: &mut Value) {
    for port in array_mut(container, "ports") {
        let number = int(port, "containerPort");
        set_nonzero(port, "hostPort", number);
    }
}

/// KEP-2837: what the containers ask for is the pod's request where the pod limits and does not request; huge pages cannot be
/// overcommitted, so they go the other way.
fn pod_level_resources(spec: &mut Value) {
    let Some(own) = spec.get("resources").filter(|r| !r.is_null()) else { return };
    let empty = |side: &str| own.get(side).and_then(Value::as_object).is_none_or(Map::is_empty);
    let (no_limits, no_requests) = (empty("limits"), empty("requests"));
    let Ok(typed) = serde_json::from_value::<tiphys_types::api::core::v1::Pod>(json!({"spec": without_pod_level(spec)})) else { return };
    let huge = |name: &str| name.starts_with("hugepages-");
    if !(no_limits && no_requests) {
        let mut limits = tiphys_types::resources::limits(&typed);
        let requested = spec["resources"].get("requests");
        limits.retain(|name, _| huge(name) && requested.and_then(|r| r.get(name)).is_none());
        resource_list::add_missing(&mut spec["resources"], "limits", to_map(limits));
    }
    let Some(Value::Object(limits)) = spec["resources"].get("limits").filter(|l| l.as_object().is_some_and(|l| !l.is_empty())).cloned()
    else {
        return;
    };
    let mut requests = tiphys_types::resources::requests(&typed);
    requests.retain(|name, _| is_pod_level(name) && !huge(name));
    resource_list::add_missing(&mut spec["resources"], "requests", to_map(requests));
    let limits = limits.into_iter().filter(|(name, _)| is_pod_level(name)).collect();
    resource_list::add_missing(&mut spec["resources"], "requests", limits);
}

fn without_pod_level(spec: &Value) -> Value {
    json!({"containers": spec.get("containers").cloned().unwrap_or(json!([])), "initContainers": spec.get("initContainers")})
}

fn to_map(list: tiphys_types::resources::ResourceList) -> Map<String, Value> {
    list.into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect()
}

/// The status of old clients names one address, of new ones all.
fn status(pod: &mut Value) {
    let Some(status) = present(pod, "status") else { return };
    for (one, all) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let address = text(status, one).to_owned();
        let first = crate::tree::array(status, all).first().map(|a| text(a, "ip").to_owned());
        match first {
            None if !address.is_empty() => status[all] = json!([{"ip": address}]),
            Some(first) if address.is_empty() => status[one] = json!(first),
            // The single field decides where they differ.
            Some(first) if first != address && one == "podIP" => status[all] = json!([{"ip": address}]),
            _ => {}
        }
    }
}

/// `Always` for `:latest` or no tag, else `IfNotPresent`. A digest is a version; a name that cannot be read counts as one.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or("");
    let (repository, tag) = last.split_once(':').map_or((last, ""), |(r, t)| (r, t));
    let domain = name.strip_suffix(last).unwrap_or("");
    let part = |p: &str| {
        let alphanumeric = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        alphanumeric(p.bytes().next()) && alphanumeric(p.bytes().last()) && p.bytes().all(|c| alphanumeric(Some(c)) || b"._-".contains(&c))
    };
    let unreadable = !part(repository) || domain.starts_with('/') || name.len() > 255 || name.chars().any(char::is_whitespace);
    let latest = tag == "latest" || (tag.is_empty() && !digest);
    if latest && !unreadable { "Always" } else { "IfNotPresent" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaulted(mut value: Value) -> Value {
        pod(&mut value);
        let once = value.clone();
        pod(&mut value);
        assert_eq!(once, value, "defaults are idempotent");
        value
    }

    #[test]
    fn pull_policies() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("", "IfNotPresent"),
            ("NGINX", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_plain_pod() {
        let pod = defaulted(json!({"spec": {
            "containers": [{"name": "c", "image": "nginx", "resources": {"limits": {"cpu": "1"}}, "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}}], "serviceAccount": "me"}}));
        assert_eq!(
            pod,
            json!({"spec": {
                "containers": [{"name": "c", "image": "nginx", "imagePullPolicy": "Always",
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}, "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                        "successThreshold": 1, "failureThreshold": 3},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "serviceAccount": "me", "serviceAccountName": "me", "terminationGracePeriodSeconds": 30,
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}}]}})
        );
    }

    #[test]
    fn pod_level_requests_come_from_the_containers() {
        let pod = defaulted(json!({"spec": {
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}],
            "resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}}));
        assert_eq!(pod["spec"]["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
    }

    #[test]
    fn host_network_ports() {
        let pod = defaulted(json!({"spec": {"hostNetwork": true, "containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}}));
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
    }
}
