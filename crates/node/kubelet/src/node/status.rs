//! The Node's labels and status, and the patch that brings the API to them. Pure.

use crate::agent::Machine;
use crate::config::Config;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tiphys_base::platform;
use tiphys_cri as cri;
use tiphys_meta::Quantity;
use tiphys_meta::quantity::Format;
use tiphys_types::api::core::v1::{NodeCondition, NodeStatus};
use tiphys_types::metav1::Time;
use tiphys_types::resources;

/// How the node is, as far as conditions go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) memory_pressure: bool,
    pub(crate) disk_pressure: bool,
    pub(crate) pid_pressure: bool,
    /// Why the node is not ready; empty when it is.
    pub(crate) not_ready: String,
}

pub(crate) struct Facts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) machine: &'a Machine,
    pub(crate) info: &'a tiphys_types::api::core::v1::NodeSystemInfo,
    pub(crate) health: &'a Health,
    pub(crate) images: &'a [cri::Image],
    pub(crate) handlers: &'a [cri::RuntimeHandler],
    pub(crate) port: u16,
    pub(crate) now: Timestamp,
}

pub(crate) fn labels(config: &Config) -> BTreeMap<String, String> {
    let arch = platform::architecture();
    let own = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ];
    let own = own.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
    own.chain(config.node_labels.iter().filter(|(name, _)| is_ours_to_set(name)).cloned()).collect()
}

/// A node may not give itself labels of Kubernetes' own domains but for these (NodeRestriction; upstream refuses the flag).
pub(crate) fn is_ours_to_set(label: &str) -> bool {
    const ALLOWED: [&str; 8] = [
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/instance-type",
    ];
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |root: &str| domain == root || domain.strip_suffix(root).is_some_and(|rest| rest.ends_with('.'));
    let free = within("node.kubernetes.io") || within("kubelet.kubernetes.io");
    ALLOWED.contains(&label) || free || !(within("kubernetes.io") || within("k8s.io"))
}

fn amounts(facts: &Facts<'_>, allocatable: bool) -> Map<String, Value> {
    let machine = facts.machine;
    let held = |amount: i64| if allocatable { amount } else { 0 };
    let memory = machine.memory - held(facts.config.reserved_memory + facts.config.eviction_memory_available as i64);
    let ephemeral =
        if allocatable { machine.ephemeral / 100 * (100 - i64::from(facts.config.eviction_disk_percent)) } else { machine.ephemeral };
    let binary = |amount: i64| Quantity::new(amount.max(0) / 1024 * 1024, Format::BinarySi).to_string();
    let cpu = Quantity::from_milli(machine.cpus * 1000 - held(facts.config.reserved_cpu_milli)).to_string();
    let storage = if allocatable { Quantity::from(ephemeral).to_string() } else { binary(ephemeral) };
    let list = json!({
        "cpu": cpu, "memory": binary(memory), "ephemeral-storage": storage, "pods": facts.config.max_pods.to_string(),
        "hugepages-2Mi": "0", "hugepages-1Gi": "0",
    });
    list.as_object().cloned().unwrap_or_default()
}

fn is_own(resource: &str) -> bool {
    resources::is_pod_level(resource)
        || matches!(resource, "cpu" | "memory" | "ephemeral-storage" | "pods")
        || resource.starts_with("hugepages-")
}

/// The fields that differ, or None. What others have put into the status stays; extended resources that somebody
/// advertises in the capacity become allocatable.
pub(crate) fn patch(facts: &Facts<'_>, shown: &NodeStatus, heartbeat: bool) -> Option<Value> {
    let shown_value = serde_json::to_value(shown).unwrap_or_default();
    let mut status = Map::new();
    let capacity = amounts(facts, false);
    let mut allocatable = amounts(facts, true);
    for (name, amount) in shown.capacity.iter().flatten().filter(|(name, _)| !is_own(name)) {
        allocatable.insert(name.clone(), json!(amount.0));
    }
    for (key, wanted) in [("capacity", capacity), ("allocatable", allocatable)] {
        if let Some(change) = quantities(&shown_value[key], &wanted, key == "allocatable") {
            status.insert(key.into(), change);
        }
    }
    let addresses = addresses(facts.config);
    if shown_value["addresses"] != addresses {
        let list = addresses.as_array().cloned().unwrap_or_default();
        let all = std::iter::once(json!({"$patch": "replace"})).chain(list).collect();
        status.insert("addresses".into(), Value::Array(all));
    }
    let mut plain = |key: &str, wanted: Value| {
        if shown_value[key] != wanted {
            status.insert(key.into(), wanted);
        }
    };
    plain("nodeInfo", serde_json::to_value(facts.info).unwrap_or_default());
    plain("daemonEndpoints", json!({"kubeletEndpoint": {"Port": facts.port}}));
    plain("images", images(facts.images));
    plain("runtimeHandlers", handlers(facts.handlers));
    if let Some(conditions) = conditions(facts, shown, heartbeat || !status.is_empty()) {
        status.insert("conditions".into(), conditions);
    }
    (!status.is_empty()).then(|| json!({"status": status}))
}

fn quantities(shown: &Value, wanted: &Map<String, Value>, all: bool) -> Option<Value> {
    let mut change = Map::new();
    let amount = |v: &Value| v.as_str().and_then(|t| Quantity::parse(t).ok());
    for (name, value) in wanted {
        if amount(&shown[name]) != amount(value) {
            change.insert(name.clone(), value.clone());
        }
    }
    for name in shown.as_object().into_iter().flat_map(Map::keys).filter(|name| all && !wanted.contains_key(*name)) {
        change.insert(name.clone(), Value::Null);
    }
    (!change.is_empty()).then_some(Value::Object(change))
}

fn addresses(config: &Config) -> Value {
    let ips = config.node_ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}));
    ips.chain(std::iter::once(json!({"type": "Hostname", "address": config.node_name}))).collect()
}

/// The largest fifty, five names each.
fn images(images: &[cri::Image]) -> Value {
    let mut list: Vec<&cri::Image> = images.iter().collect();
    list.sort_by_key(|i| (std::cmp::Reverse(i.size), i.id.clone()));
    let one = |image: &cri::Image| {
        let names: Vec<&String> = image.repo_digests.iter().chain(&image.repo_tags).take(5).collect();
        json!({"names": names, "sizeBytes": image.size})
    };
    let shown: Vec<Value> = list.into_iter().filter(|i| !i.repo_tags.is_empty() || !i.repo_digests.is_empty()).take(50).map(one).collect();
    if shown.is_empty() { Value::Null } else { Value::Array(shown) }
}

fn handlers(handlers: &[cri::RuntimeHandler]) -> Value {
    if handlers.is_empty() {
        return Value::Null;
    }
    let one = |h: &cri::RuntimeHandler| {
        let features = json!({"recursiveReadOnlyMounts": h.recursive_read_only_mounts, "userNamespaces": h.user_namespaces});
        if h.name.is_empty() { json!({"features": features}) } else { json!({"name": h.name, "features": features}) }
    };
    handlers.iter().map(one).collect()
}

fn found(health: &Health) -> [(&'static str, bool, &'static str, String); 4] {
    let pressure = |kind, on, yes: (&'static str, &str), no: (&'static str, &str)| {
        let (reason, message): (&'static str, &str) = if on { yes } else { no };
        (kind, on, reason, message.to_owned())
    };
    let ready = health.not_ready.is_empty();
    let (reason, message) =
        if ready { ("KubeletReady", "kubelet is posting ready status".to_owned()) } else { ("KubeletNotReady", health.not_ready.clone()) };
    [
        pressure(
            "MemoryPressure",
            health.memory_pressure,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            health.disk_pressure,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            health.pid_pressure,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ("Ready", ready, reason, message),
    ]
}

fn conditions(facts: &Facts<'_>, shown: &NodeStatus, heartbeat: bool) -> Option<Value> {
    let shown = shown.conditions.as_deref().unwrap_or_default();
    let now = Some(Time(facts.now));
    let mut changed = false;
    let mut list = Vec::new();
    for (kind, on, reason, message) in found(facts.health) {
        let status = if on { "True" } else { "False" };
        let before = shown.iter().find(|c| c.type_ == kind);
        let same =
            before.is_some_and(|b| b.status == status && b.reason.as_deref() == Some(reason) && b.message.as_deref() == Some(&message));
        changed |= !same;
        let moved = before.filter(|b| b.status == status).and_then(|b| b.last_transition_time.clone());
        list.push(NodeCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_heartbeat_time: now.clone(),
            last_transition_time: moved.or_else(|| now.clone()),
        });
    }
    (changed || heartbeat).then(|| serde_json::to_value(list).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(shown: Value, health: Health, heartbeat: bool) -> Option<Value> {
        let config = Config::new("n", "/x");
        let machine = Machine { cpus: 2, memory: 4 << 30, ephemeral: 100 << 30 };
        let facts = Facts {
            config: &config,
            machine: &machine,
            info: &Default::default(),
            health: &health,
            images: &[],
            handlers: &[],
            port: 10250,
            now: Timestamp::from_second(1_000_000).expect("a time"),
        };
        patch(&facts, &serde_json::from_value(shown).expect("a status"), heartbeat)
    }

    #[test]
    fn labels_that_a_node_may_give_itself() {
        for (label, expected) in [
            ("mine", true),
            ("example.com/a", true),
            ("node.kubernetes.io/instance-type", true),
            ("node-role.kubernetes.io/control-plane", false),
            ("notkubernetes.io/a", true),
        ] {
            assert_eq!(is_ours_to_set(label), expected, "{label}");
        }
    }

    #[test]
    fn nothing_is_written_when_nothing_has_changed() {
        let mut first = run(json!({}), Health::default(), false).expect("everything is new")["status"].clone();
        first["addresses"].as_array_mut().expect("a list").remove(0);
        assert_eq!(first["capacity"]["cpu"], "2");
        assert_eq!(first["allocatable"]["memory"], "4092Mi".replace("4092", &(4096 - 100).to_string()));
        assert_eq!(run(first.clone(), Health::default(), false), None);
        let beat = run(first.clone(), Health::default(), true).expect("a heartbeat");
        assert_eq!(beat["status"].as_object().expect("an object").keys().collect::<Vec<_>>(), ["conditions"]);
        let pressed = run(first.clone(), Health { memory_pressure: true, ..Health::default() }, false).expect("changed");
        assert_eq!(pressed["status"]["conditions"][0]["reason"], "KubeletHasInsufficientMemory");
        first["capacity"]["example.com/fake"] = json!("5");
        let extended = run(first, Health::default(), false).expect("changed");
        assert_eq!(extended["status"]["allocatable"], json!({"example.com/fake": "5"}));
    }
}
