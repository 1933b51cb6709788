//! What a pod or a pod template says that is legal and probably not meant, in upstream's words.

use serde_json::{Value, json};
use tiphys_meta::field::go_quote;
use tiphys_meta::{Path, Quantity, names, object};

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
    let root = if base.is_empty() { Path::ROOT } else { Path::new(base) };
    let (metadata, path) = (root.child("metadata"), root.child("spec"));
    let annotations = metadata.child("annotations");
    let empty = json!({});
    let spec = owner.get("spec").unwrap_or(&empty);
    let mut all = Vec::new();
    scheduling(spec, &path, &mut all);
    for (key, why) in ANNOTATIONS {
        if object::annotations(owner).any(|(k, _)| k == key) {
            all.push(format!("{}: {why}", annotations.key(key)));
        }
    }
    volumes(spec, &path.child("volumes"), &mut all);
    repeated(array(spec, "hostAliases"), "ip", &path.child("hostAliases"), &mut all);
    let secrets = path.child("imagePullSecrets");
    repeated(array(spec, "imagePullSecrets"), "name", &secrets, &mut all);
    for (i, _) in array(spec, "imagePullSecrets").iter().enumerate().filter(|(_, s)| text(s, "name").is_empty()) {
        all.push(format!("{secrets}[{i}].name: invalid empty name \"\""));
    }
    fractional(at(spec, "overhead"), &path.child("overhead"), &mut all);
    for (container, list, i) in containers(spec) {
        let list = path.child(list);
        let path = list.index(i);
        apparmor(owner, container, &annotations, &mut all);
        let (resources, own) = (at(container, "resources"), path.child("resources"));
        for side in ["limits", "requests"] {
            fractional(resources.and_then(|r| r.get(side)), &own.child(side), &mut all);
        }
        environment(container, &path.child("env"), &mut all);
    }
    ports(spec, &path, &mut all);
    if int(spec, "terminationGracePeriodSeconds") < 0 {
        all.push(format!("{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    all
}

/// Each container with its list and its place there.
fn containers(spec: &Value) -> impl Iterator<Item = (&Value, &'static str, usize)> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.into_iter().flat_map(move |list| array(spec, list).iter().enumerate().map(move |(i, c)| (c, list, i)))
}

fn scheduling(spec: &Value, path: &Path<'_>, all: &mut Vec<String>) {
    for key in map_at(spec, "nodeSelector").into_iter().flat_map(|m| m.keys()) {
        if let Some(why) = deprecated_node_label(key) {
            all.push(format!("{path}.nodeSelector[{key}]: {why}"));
        }
    }
    let node = at(spec, "affinity.nodeAffinity");
    let list = path.child("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    let required = node.map(|n| array(n, "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms")).unwrap_or_default();
    for (i, term) in required.iter().enumerate() {
        node_term(term, false, &list.index(i), all);
    }
    let list = path.child("affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution");
    let preferred = node.map(|n| array(n, "preferredDuringSchedulingIgnoredDuringExecution")).unwrap_or_default();
    for (i, term) in preferred.iter().enumerate() {
        node_term(at(term, "preference").unwrap_or(&Value::Null), true, &list.index(i).child("preference"), all);
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
        let list = path.child("topologySpreadConstraints");
        let path = list.index(i);
        if let Some(why) = deprecated_node_label(text(constraint, "topologyKey")) {
            all.push(format!("{path}.topologyKey: {} is {why}", text(constraint, "topologyKey")));
        }
        if at(constraint, "labelSelector").is_none() {
            all.push(format!("{path}.labelSelector: {null}"));
        }
    }
}

fn node_term(term: &Value, values_too: bool, path: &Path<'_>, all: &mut Vec<String>) {
    for (i, expression) in array(term, "matchExpressions").iter().enumerate() {
        let (list, key) = (path.child("matchExpressions"), text(expression, "key"));
        let path = list.index(i);
        if let Some(why) = deprecated_node_label(key) {
            all.push(format!("{path}.key: {key} is {why}"));
        }
        for (i, value) in array(expression, "values").iter().filter(|_| values_too).filter_map(Value::as_str).enumerate() {
            all.extend(names::label_value(value).into_iter().map(|why| format!("{path}.values[{i}]: {value} is invalid, {why}")));
        }
    }
}

/// Files of one volume that hide each other. `files` are paths and where they come from.
fn overlaps(volume: &str, kind: &str, files: &[(&str, String)], all: &mut Vec<String>) {
    let shown = |(path, from): &(&str, String)| match &**from {
        "" => go_quote(path.trim_end_matches('/')),
        from => format!("{} ({from})", go_quote(path.trim_end_matches('/'))),
    };
    let within = |inner: &str, outer: &str| inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    for (i, file) in files.iter().enumerate() {
        let path = file.0.trim_end_matches('/');
        for other in &files[..i] {
            let earlier = other.0.trim_end_matches('/');
            if !path.is_empty() && !earlier.is_empty() && (within(path, earlier) || within(earlier, path)) {
                all.push(format!("volume {} ({kind}): overlapping paths: {} with {}", go_quote(volume), shown(file), shown(other)));
            }
        }
    }
}

/// The files that a source of a projected volume makes.
fn projected_files(source: &Value) -> Vec<(&str, String)> {
    let items = |kind: &str, from: String| {
        let items = at(source, kind).map(|s| array(s, "items")).unwrap_or_default();
        items.iter().map(|item| (text(item, "path"), from.clone())).collect::<Vec<_>>()
    };
    let name = |path: &str| go_quote(text(source, path));
    if at(source, "configMap.items").is_some() {
        items("configMap", format!("ConfigMap {}", name("configMap.name")))
    } else if at(source, "secret.items").is_some() {
        items("secret", format!("Secret {}", name("secret.name")))
    } else if at(source, "downwardAPI.items").is_some() {
        items("downwardAPI", "DownwardAPI".into())
    } else if at(source, "serviceAccountToken").is_some() {
        vec![(text(source, "serviceAccountToken.path"), "ServiceAccountToken".into())]
    } else if let Some(bundle) = at(source, "clusterTrustBundle") {
        let name = if at(bundle, "name").is_some() { text(bundle, "name") } else { text(bundle, "signerName") };
        vec![(text(bundle, "path"), format!("ClusterTrustBundle {}", go_quote(name)))]
    } else {
        let files = [("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle")];
        let file =
            |(field, what): (&str, &str)| (at(source, "podCertificate").map_or("", |c| text(c, field)), format!("PodCertificate {what}"));
        files.into_iter().map(file).filter(|(path, _)| !path.is_empty()).collect()
    }
}

fn overlapping(volume: &Value, all: &mut Vec<String>) {
    let name = text(volume, "name");
    for (kind, field, called) in
        [("configMap", "name", "ConfigMap"), ("secret", "secretName", "Secret"), ("downwardAPI", "", "DownwardAPI")]
    {
        let Some(source) = at(volume, kind) else { continue };
        let files: Vec<(&str, String)> = array(source, "items").iter().map(|item| (text(item, "path"), String::new())).collect();
        let called = if field.is_empty() { called.to_owned() } else { format!("{called} {}", go_quote(text(source, field))) };
        overlaps(name, &called, &files, all);
    }
    let sources = at(volume, "projected").map(|p| array(p, "sources")).unwrap_or_default();
    let empty = |source: &&Value| source.as_object().is_none_or(|kinds| kinds.values().all(Value::is_null));
    for _ in sources.iter().filter(empty) {
        all.push(format!("volume {} (Projected) has no sources provided", go_quote(name)));
    }
    let files: Vec<(&str, String)> = sources.iter().flat_map(projected_files).collect();
    overlaps(name, "Projected", &files, all);
}

fn volumes(spec: &Value, path: &Path<'_>, all: &mut Vec<String>) {
    for (i, volume) in array(spec, "volumes").iter().enumerate() {
        for (kind, why) in VOLUMES {
            if at(volume, kind).is_some() {
                let kind = if kind == "storageos" { "storageOS" } else { kind };
                all.push(format!("{path}[{i}].{kind}: {why}"));
            }
        }
    }
    array(spec, "volumes").iter().for_each(|volume| overlapping(volume, all));
}

fn repeated(items: &[Value], field: &str, path: &Path<'_>, all: &mut Vec<String>) {
    for (i, item) in items.iter().enumerate() {
        let value = text(item, field);
        if items[..i].iter().any(|other| text(other, field) == value) {
            all.push(format!("{path}[{i}].{field}: duplicate {field} {}", go_quote(value)));
        }
    }
}

fn fractional(list: Option<&Value>, path: &Path<'_>, all: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let amount = list.and_then(|l| l.get(name)).and_then(Value::as_str).unwrap_or("");
        if Quantity::parse(amount).is_ok_and(|q| !q.is_integer()) {
            all.push(format!("{path}[{name}]: fractional byte value {} is invalid, must be an integer", go_quote(amount)));
        }
    }
}

fn apparmor(owner: &Value, container: &Value, annotations: &Path<'_>, all: &mut Vec<String>) {
    let name = text(container, "name");
    let Some((key, value)) = object::annotations(owner).find(|(k, _)| k.strip_prefix(APPARMOR) == Some(name)) else { return };
    // A pod's profile has been made from the annotation by now; one that a user set beside it says something else or the same.
    let set = at(container, "securityContext.appArmorProfile");
    if set.is_none() || set == super::strategy::apparmor_profile(value).as_ref() {
        all.push(format!("{}: deprecated since v1.30; use the \"appArmorProfile\" field instead", annotations.key(key)));
    }
}

/// A variable given twice, unless the second builds on the first.
fn environment(container: &Value, path: &Path<'_>, all: &mut Vec<String>) {
    let env = array(container, "env");
    for (i, variable) in env.iter().enumerate() {
        let name = text(variable, "name");
        if !env[..i].iter().any(|v| text(v, "name") == name) {
            continue;
        }
        let (value, reference) = (text(variable, "value"), format!("$({name})"));
        if at(variable, "valueFrom").is_some() || value == reference || !value.contains(&reference) {
            all.push(format!("{path}[{i}]: hides previous definition of {}, which may be dropped when using apply", go_quote(name)));
        }
    }
}

/// A container's port and where it stands.
struct Port<'a> {
    value: &'a Value,
    list: &'static str,
    container: usize,
    index: usize,
}

fn ports(spec: &Value, path: &Path<'_>, all: &mut Vec<String>) {
    let of = |(value, list, container): (_, _, usize)| {
        array(value, "ports").iter().enumerate().map(move |(index, value)| Port { value, list, container, index })
    };
    let ports: Vec<Port<'_>> = containers(spec).flat_map(of).collect();
    let place = |p: &Port<'_>| format!("{path}.{}[{}].ports[{}]", p.list, p.container, p.index);
    for port in ports.iter().filter(|p| !text(p.value, "hostIP").is_empty() && int(p.value, "hostPort") == 0) {
        all.push(format!("{}: hostIP set without hostPort: {}", place(port), as_go_prints(port.value)));
    }
    for (i, port) in ports.iter().enumerate() {
        for other in &ports[..i] {
            if let Some(what) = collision(port.value, other.value) {
                all.push(format!("{}: {what} port definition with {}", place(port), place(other)));
            }
        }
    }
    for (i, port) in ports.iter().enumerate() {
        let name = text(port.value, "name");
        if let Some(first) = ports[..i].iter().find(|o| !name.is_empty() && text(o.value, "name") == name) {
            let (place, first) = (place(port), place(first));
            all.push(format!(
                "{place}: duplicate port name {} with {first}, services and probes that select ports by name will use {first}",
                go_quote(name)
            ));
        }
    }
}

/// The struct `ContainerPort` under `%+v`.
fn as_go_prints(port: &Value) -> String {
    format!(
        "{{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{}}}",
        text(port, "name"),
        int(port, "containerPort"),
        text(port, "protocol"),
        text(port, "hostIP")
    )
}

/// How two ports of a pod are in each other's way.
fn collision(port: &Value, other: &Value) -> Option<&'static str> {
    let same = int(other, "containerPort") == int(port, "containerPort") && text(other, "protocol") == text(port, "protocol");
    let (host, other_host) = (int(port, "hostPort"), int(other, "hostPort"));
    let (ip, other_ip) = (text(port, "hostIP"), text(other, "hostIP"));
    match () {
        () if !same => None,
        () if host == other_host && ip == other_ip => Some("duplicate"),
        () if host == 0 || other_host == 0 => Some("overlapping"),
        () if host == other_host && ip.is_empty() != other_ip.is_empty() => Some("dangerously ambiguous"),
        () => None,
    }
}
