//! Reading a Pod: the fields that everything asks for, with the API's defaults where an old object lacks them.

use tiphys_types::api::core::v1::{Container, ContainerRestartRule, Pod, PodSpec, Probe};

static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// How upstream's messages name a pod: `name_namespace(uid)`.
pub(crate) fn format(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub(crate) fn containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

/// An ephemeral container as an ordinary one: they differ in names only.
pub(crate) fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    let Some(list) = spec(pod).ephemeral_containers.as_deref() else { return Vec::new() };
    list.iter()
        .map(|e| Container {
            args: e.args.clone(),
            command: e.command.clone(),
            env: e.env.clone(),
            env_from: e.env_from.clone(),
            image: e.image.clone(),
            image_pull_policy: e.image_pull_policy.clone(),
            name: e.name.clone(),
            resources: e.resources.clone(),
            security_context: e.security_context.clone(),
            stdin: e.stdin,
            stdin_once: e.stdin_once,
            termination_message_path: e.termination_message_path.clone(),
            termination_message_policy: e.termination_message_policy.clone(),
            tty: e.tty,
            volume_mounts: e.volume_mounts.clone(),
            working_dir: e.working_dir.clone(),
            ..Container::default()
        })
        .collect()
}

/// A container of any sort by its name.
pub(crate) fn container(pod: &Pod, name: &str) -> Option<Container> {
    let mut ordinary = init_containers(pod).iter().chain(containers(pod));
    ordinary.find(|c| c.name == name).cloned().or_else(|| ephemeral_containers(pod).into_iter().find(|c| c.name == name))
}

/// What events call the container's place in the pod.
pub(crate) fn field_path(pod: &Pod, name: &str) -> String {
    let kind = if containers(pod).iter().any(|c| c.name == name) {
        "containers"
    } else if init_containers(pod).iter().any(|c| c.name == name) {
        "initContainers"
    } else {
        "ephemeralContainers"
    };
    format!("spec.{kind}{{{name}}}")
}

/// A restartable init container (KEP-753).
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(crate) fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

pub(crate) fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub(crate) fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network == Some(true)
}

pub(crate) fn generation(pod: &Pod) -> Option<i64> {
    pod.metadata.generation
}

pub(crate) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub(crate) const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
pub(crate) const CONFIG_HASH: &str = "kubernetes.io/config.hash";
pub(crate) const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// From a file and not from the API.
pub(crate) fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE).is_some_and(|source| source != "api")
}

pub(crate) fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR).is_some()
}

pub(crate) fn is_critical(pod: &Pod) -> bool {
    /// scheduling.SystemCriticalPriority.
    const SYSTEM_CRITICAL: i32 = 2_000_000_000;
    is_static(pod) || is_mirror(pod) || spec(pod).priority.is_some_and(|p| p >= SYSTEM_CRITICAL)
}

/// Shall a container that ended with this code run again (KEP-5307: rules, then its own policy, then the pod's)?
pub(crate) fn should_restart(container: &Container, pod: &Pod, exit_code: i32) -> bool {
    if let Some(policy) = container.restart_policy.as_deref() {
        if matching_rule(container, exit_code).is_some_and(|rule| rule.action == "Restart") {
            return true;
        }
        return by_policy(policy, exit_code);
    }
    by_policy(restart_policy(pod), exit_code)
}

fn by_policy(policy: &str, exit_code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

fn matching_rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.as_deref()?.iter().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.as_ref().is_some_and(|values| values.contains(&exit_code));
            match codes.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        })
    })
}

/// Would the container be started again after a kill of ours, whose exit code no rule may judge?
pub(crate) fn restartable(container: &Container, pod: &Pod) -> bool {
    container.restart_policy.as_deref().unwrap_or(restart_policy(pod)) != "Never"
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    Liveness,
    Readiness,
    Startup,
}

impl ProbeKind {
    pub(crate) const ALL: [ProbeKind; 3] = [ProbeKind::Liveness, ProbeKind::Readiness, ProbeKind::Startup];

    pub(crate) fn word(self) -> &'static str {
        match self {
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Startup => "Startup",
        }
    }

    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
            ProbeKind::Startup => container.startup_probe.as_ref(),
        }
    }
}

/// Why a container is killed; probes may have a grace period of their own (KEP-2238).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillReason {
    Unknown,
    Probe(ProbeKind),
    PostStart,
}

/// Seconds between SIGTERM and SIGKILL.
pub(crate) fn grace_period(pod: &Pod, container: &Container, reason: KillReason) -> i64 {
    const MINIMUM: i64 = 2;
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        return seconds;
    }
    let Some(of_pod) = spec(pod).termination_grace_period_seconds else { return MINIMUM };
    match reason {
        KillReason::Probe(kind) => kind.of(container).and_then(|p| p.termination_grace_period_seconds).unwrap_or(of_pod),
        KillReason::Unknown | KillReason::PostStart => of_pod,
    }
}
