//! What a pod or a pod template says that is legal and probably not meant, in upstream's words.

use serde_json::{Value, json};
use tiphys_meta::field::go_quote;
use tiphys_meta::{Quantity, object};

use crate::tree::{array, at, int, map_at, text};

pub(super) const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const ANNOTATIONS: [(&str, &str); 3] = [
    ("scheduler.alpha.kubernetes.io/critical-pod", r#"non-functional in v1.16+; use the "priorityClassName" field instead"#),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    ("security.alpha.kubernetes.io/unsafe-sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
];
const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// A node label's newer name.
pub(crate) fn deprecated_node_label(key: &str) -> Option<String> {
    let instead = match key {
        "beta.kubernetes.io/arch" => "kubernetes.io/arch",
        "beta.kubernetes.io/os" => "kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
        "beta.kubernetes.io/instance-type" => "node.kubernetes.io/instance-type",
        _ => return None,
    };
    let since = if key.starts_with("beta.kubernetes.io/instance") || key.starts_with("failure") { "v1.17" } else { "v1.14" };
    Some(format!("deprecated since {since}; use \"{instead}\" instead"))
}

/// `owner` has `metadata` and `spec`; `base` is its path (`spec.template`), empty for a pod.
pub(crate) fn pod(owner: &Value, base: &str) -> Vec<String> {
    let dot = if base.is_empty() { String::new() } else { format!("{base}.") };
    let (annotations, spec_path) = (format!("{dot}metadata.annotations"), format!("{dot}spec"));
    let empty = json!({});
    let spec = owner.get("spec").unwrap_or(&empty);
    let mut all = Vec::new();
    scheduling(spec, &spec_path, &mut all);
    for (key, why) in ANNOTATIONS {
        if object::annotations(owner).any(|(k, _)| k == key) {
            all.push(format!("{annotations}[{key}]: {why}"));
        }
    }
    volumes(spec, &spec_path, &mut all);
    repeated(array(spec, "hostAliases"), "ip", &format!("{spec_path}.hostAliases"), &mut all);
    let secrets = format!("{spec_path}.imagePullSecrets");
    repeated(array(spec, "imagePullSecrets"), "name", &secrets, &mut all);
    for (i, _) in array(spec, "imagePullSecrets").iter().enumerate().filter(|(_, s)| text(s, "name").is_empty()) {
        all.push(format!("{secrets}[{i}].name: invalid empty name \"\""));
    }
    fractional(at(spec, "overhead"), &format!("{spec_path}.overhead"), &mut all);
    let containers = containers(spec, &spec_path);
    for (container, path) in &containers {
        apparmor(owner, container, &annotations, &mut all);
        for side in ["limits", "requests"] {
            let list = at(container, "resources").and_then(|r| r.get(side));
            fractional(list, &format!("{path}.resources.{side}"), &mut all);
        }
        environment(container, path, &mut all);
    }
    ports(&containers, &mut all);
    if int(spec, "terminationGracePeriodSeconds") < 0 {
        all.push(format!("{spec_path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    all
}

fn containers<'a>(spec: &'a Value, path: &str) -> Vec<(&'a Value, String)> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let of = |list: &'static str| array(spec, list).iter().enumerate().map(move |(i, c)| (c, format!("{path}.{list}[{i}]")));
    lists.into_iter().flat_map(of).collect()
}

fn scheduling(spec: &Value, path: &str, all: &mut Vec<String>) {
    for key in map_at(spec, "nodeSelector").into_iter().flat_map(|m| m.keys()) {
        if let Some(why) = deprecated_node_label(key) {
            all.push(format!("{path}.nodeSelector[{key}]: {why}"));
        }
    }
    let null = "a null labelSelector results in matching no pod";
    for kind in ["podAffinity", "podAntiAffinity"] {
        let rules = at(spec, "affinity").and_then(|a| at(a, kind));
        for (i, term) in rules.map(|r| array(r, "requiredDuringSchedulingIgnoredDuringExecution")).unwrap_or_default().iter().enumerate() {
            if at(term, "labelSelector").is_none() {
                all.push(format!("{path}.affinity.{kind}.requiredDuringSchedulingIgnoredDuringExecution[{i}].labelSelector: {null}"));
            }
        }
        for (i, term) in rules.map(|r| array(r, "preferredDuringSchedulingIgnoredDuringExecution")).unwrap_or_default().iter().enumerate() {
            if at(term, "podAffinityTerm.labelSelector").is_none() {
                let list = "preferredDuringSchedulingIgnoredDuringExecution";
                all.push(format!("{path}.affinity.{kind}.{list}[{i}].podAffinityTerm.labelSelector: {null}"));
            }
        }
    }
    for (i, constraint) in array(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{i}]");
        if let Some(why) = deprecated_node_label(text(constraint, "topologyKey")) {
            all.push(format!("{path}.topologyKey: {} is {why}", text(constraint, "topologyKey")));
        }
        if at(constraint, "labelSelector").is_none() {
            all.push(format!("{path}.labelSelector: {null}"));
        }
    }
}

fn volumes(spec: &Value, path: &str, all: &mut Vec<String>) {
    for (i, volume) in array(spec, "volumes").iter().enumerate() {
        for (kind, why) in VOLUMES {
            if at(volume, kind).is_some() {
                let kind = if kind == "storageos" { "storageOS" } else { kind };
                all.push(format!("{path}.volumes[{i}].{kind}: {why}"));
            }
        }
    }
    for volume in array(spec, "volumes") {
        for source in at(volume, "projected").map(|p| array(p, "sources")).unwrap_or_default() {
            if source.as_object().is_none_or(|kinds| kinds.values().all(Value::is_null)) {
                all.push(format!("volume {} (Projected) has no sources provided", go_quote(text(volume, "name"))));
            }
        }
    }
}

fn repeated(items: &[Value], field: &str, path: &str, all: &mut Vec<String>) {
    for (i, item) in items.iter().enumerate() {
        let value = text(item, field);
        if items[..i].iter().any(|other| text(other, field) == value) {
            all.push(format!("{path}[{i}].{field}: duplicate {field} {}", go_quote(value)));
        }
    }
}

fn fractional(list: Option<&Value>, path: &str, all: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let amount = list.and_then(|l| l.get(name)).and_then(Value::as_str).unwrap_or("");
        if Quantity::parse(amount).is_ok_and(|q| !q.is_integer()) {
            all.push(format!("{path}[{name}]: fractional byte value {} is invalid, must be an integer", go_quote(amount)));
        }
    }
}

fn apparmor(owner: &Value, container: &Value, annotations: &str, all: &mut Vec<String>) {
    let name = text(container, "name");
    let key = format!("{APPARMOR}{name}");
    let Some((_, value)) = object::annotations(owner).find(|(k, _)| *k == key) else { return };
    // A pod's profile has been made from the annotation by now; one that a user set beside it says something else or the same.
    let set = at(container, "securityContext.appArmorProfile");
    if set.is_none() || set == super::strategy::apparmor_profile(value).as_ref() {
        all.push(format!("{annotations}[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"));
    }
}

/// A variable given twice, unless the second builds on the first.
fn environment(container: &Value, path: &str, all: &mut Vec<String>) {
    let env = array(container, "env");
    for (i, variable) in env.iter().enumerate() {
        let name = text(variable, "name");
        if !env[..i].iter().any(|v| text(v, "name") == name) {
            continue;
        }
        let (value, reference) = (text(variable, "value"), format!("$({name})"));
        if at(variable, "valueFrom").is_some() || value == reference || !value.contains(&reference) {
            all.push(format!("{path}.env[{i}]: hides previous definition of {}, which may be dropped when using apply", go_quote(name)));
        }
    }
}

fn ports(containers: &[(&Value, String)], all: &mut Vec<String>) {
    let ports: Vec<(&Value, String)> = containers
        .iter()
        .flat_map(|(c, path)| array(c, "ports").iter().enumerate().map(move |(i, p)| (p, format!("{path}.ports[{i}]"))))
        .collect();
    for (port, path) in ports.iter().filter(|(p, _)| !text(p, "hostIP").is_empty() && int(p, "hostPort") == 0) {
        // As Go prints the struct.
        let shown = format!(
            "{{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{}}}",
            text(port, "name"),
            int(port, "containerPort"),
            text(port, "protocol"),
            text(port, "hostIP")
        );
        all.push(format!("{path}: hostIP set without hostPort: {shown}"));
    }
    for (i, (port, path)) in ports.iter().enumerate() {
        let same =
            |other: &Value| int(other, "containerPort") == int(port, "containerPort") && text(other, "protocol") == text(port, "protocol");
        for (other, other_path) in ports[..i].iter().filter(|(o, _)| same(o)) {
            let (host, other_host) = (int(port, "hostPort"), int(other, "hostPort"));
            let (ip, other_ip) = (text(port, "hostIP"), text(other, "hostIP"));
            let what = match () {
                () if host == other_host && ip == other_ip => "duplicate",
                () if host == 0 || other_host == 0 => "overlapping",
                () if host == other_host && ip.is_empty() != other_ip.is_empty() => "dangerously ambiguous",
                () => continue,
            };
            all.push(format!("{path}: {what} port definition with {other_path}"));
        }
    }
    for (i, (port, path)) in ports.iter().enumerate() {
        let name = text(port, "name");
        if let Some((_, first)) = ports[..i].iter().find(|(o, _)| !name.is_empty() && text(o, "name") == name) {
            all.push(format!(
                "{path}: duplicate port name {} with {first}, services and probes that select ports by name will use {first}",
                go_quote(name)
            ));
        }
    }
}
