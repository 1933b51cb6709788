//! The conditions of a pod that the kubelet owns, in upstream's order and words.

use super::plan::sandbox_changed;
use super::spec;
use super::status::Facts;
use tiphys_types::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use tiphys_types::metav1::Time;

/// Conditions that the kubelet writes; others are kept as they are.
pub(crate) const OWNED: [&str; 8] = [
    "PodScheduled",
    "Ready",
    "Initialized",
    "ContainersReady",
    "PodReadyToStartContainers",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
];

struct Finding {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Finding {
    fn yes() -> Self {
        Finding { status: true, reason: "", message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Finding { status: false, reason, message }
    }
}

pub(crate) fn fill(facts: &Facts<'_>, status: &mut PodStatus) {
    let api = facts.pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let mut conditions: Vec<PodCondition> = api.iter().filter(|c| !OWNED.contains(&c.type_.as_str())).cloned().collect();
    conditions.extend(facts.resize.iter().cloned());
    // Set once by an eviction of ours; the API may not have it yet.
    let disrupted = facts.old.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget");
    if let Some(disrupted) = disrupted {
        conditions.retain(|c| c.type_ != "DisruptionTarget");
        conditions.push(disrupted.clone());
    }
    let (sandbox_missing, _, _) = sandbox_changed(facts.pod, facts.view);
    let sandbox = if sandbox_missing { Finding::no("", String::new()) } else { Finding::yes() };
    let containers_ready = containers_ready(facts, status);
    let ready = match containers_ready.status {
        true => gates(facts, &conditions),
        false => Finding::no(containers_ready.reason, containers_ready.message.clone()),
    };
    let found = [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized(facts, status)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Finding::yes()),
    ];
    conditions.extend(found.into_iter().map(|(kind, finding)| condition(facts, kind, finding)));
    for condition in &mut conditions {
        keep_transition(facts, condition);
    }
    status.conditions = Some(conditions);
}

fn condition(facts: &Facts<'_>, kind: &str, finding: Finding) -> PodCondition {
    let text = |t: &str| Some(t.to_owned()).filter(|t| !t.is_empty());
    PodCondition {
        type_: kind.into(),
        status: if finding.status { "True" } else { "False" }.into(),
        reason: text(finding.reason),
        message: text(&finding.message),
        observed_generation: spec::generation(facts.pod),
        ..PodCondition::default()
    }
}

fn keep_transition(facts: &Facts<'_>, condition: &mut PodCondition) {
    let api = facts.pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut known = facts.old.conditions.iter().flatten().chain(api.into_iter().flatten());
    let before = known.find(|c| c.type_ == condition.type_ && c.status == condition.status);
    match before {
        Some(before) if before.last_transition_time.is_some() => condition.last_transition_time = before.last_transition_time.clone(),
        _ if condition.last_transition_time.is_none() || OWNED.contains(&condition.type_.as_str()) => {
            condition.last_transition_time = Some(Time(facts.now));
        }
        _ => {}
    }
}

fn listed(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn shown<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let all = status.init_container_statuses.iter().chain(status.container_statuses.iter()).flatten();
    all.into_iter().find(|s| s.name == name)
}

fn two_messages(unknown: &[&str], other: &[&str], words: &str) -> String {
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: {}", listed(unknown)));
    }
    if !other.is_empty() {
        messages.push(format!("containers with {words} status: {}", listed(other)));
    }
    messages.join(", ")
}

fn containers_ready(facts: &Facts<'_>, status: &PodStatus) -> Finding {
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = spec::init_containers(facts.pod).iter().filter(|c| spec::is_sidecar(c));
    for container in sidecars.chain(spec::containers(facts.pod)) {
        match shown(status, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(one) if !one.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    match status.phase.as_deref() {
        Some("Succeeded") if unknown.is_empty() => return Finding::no("PodCompleted", String::new()),
        Some("Failed") => return Finding::no("PodFailed", String::new()),
        _ => {}
    }
    let message = two_messages(&unknown, &unready, "unready");
    if message.is_empty() { Finding::yes() } else { Finding::no("ContainersNotReady", message) }
}

/// Readiness gates (KEP-580).
fn gates(facts: &Facts<'_>, conditions: &[PodCondition]) -> Finding {
    let gates = spec::spec(facts.pod).readiness_gates.as_deref().unwrap_or_default();
    let missing: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match conditions.iter().find(|c| c.type_ == *kind) {
                None => Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
                Some(c) if c.status != "True" => {
                    Some(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", c.status))
                }
                Some(_) => None,
            }
        })
        .collect();
    if missing.is_empty() { Finding::yes() } else { Finding::no("ReadinessGatesNotReady", missing.join(", ")) }
}

fn initialized(facts: &Facts<'_>, status: &PodStatus) -> Finding {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in spec::init_containers(facts.pod) {
        match shown(status, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(one) if spec::is_sidecar(container) && one.started != Some(true) => incomplete.push(container.name.as_str()),
            Some(one) if !spec::is_sidecar(container) && !one.ready => incomplete.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if status.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
        return Finding { status: true, reason: "PodCompleted", message: String::new() };
    }
    let began = |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some());
    if status.container_statuses.iter().flatten().any(began) {
        return Finding::yes();
    }
    let message = two_messages(&unknown, &incomplete, "incomplete");
    if message.is_empty() { Finding::yes() } else { Finding::no("ContainersNotInitialized", message) }
}
