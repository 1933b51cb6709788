//! What to do next for a pod: a pure function of its spec, what the runtime holds, and what probes found.
//!
//! The shape is upstream's computePodActions: first the sandbox, then init containers, then the rest; one plan is
//! carried out, then the pod is looked at again. Deliberately absent: RestartAllContainers rules (KEP-5532).

use super::spec::{self, KillReason, ProbeKind};
use super::view::{ProbeResults, Run, State, View};
use crate::resources;
use tiphys_cri as cri;
use tiphys_types::api::core::v1::{Container, Pod};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Empty: the ordinary words.
    pub(crate) message: String,
    pub(crate) reason: KillReason,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resize {
    pub(crate) id: String,
    pub(crate) name: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Actions {
    /// Stop everything, the sandbox too.
    pub(crate) kill_pod: bool,
    pub(crate) create_sandbox: bool,
    /// The sandbox to go on with, or the one that is replaced.
    pub(crate) sandbox_id: Option<String>,
    pub(crate) attempt: u32,
    /// Indexes into the spec.
    pub(crate) init: Vec<usize>,
    pub(crate) ephemeral: Vec<usize>,
    pub(crate) containers: Vec<usize>,
    pub(crate) kill: Vec<Kill>,
    pub(crate) resize: Vec<Resize>,
}

impl Actions {
    pub(crate) fn is_empty(&self) -> bool {
        !self.kill_pod
            && !self.create_sandbox
            && self.init.is_empty()
            && self.ephemeral.is_empty()
            && self.containers.is_empty()
            && self.kill.is_empty()
            && self.resize.is_empty()
    }
}

/// Must the pod get a new sandbox? With the attempt of the sandbox to be, or that is.
pub(crate) fn sandbox_changed(pod: &Pod, view: &View) -> (bool, u32, Option<String>) {
    let Some(newest) = view.sandboxes.first() else { return (true, 0, None) };
    let ready = view.sandboxes.iter().filter(|s| s.state == cri::PodSandboxState::Ready).count();
    let (attempt, id) = (newest.metadata.attempt, Some(newest.id.clone()));
    if ready > 1 || newest.state != cri::PodSandboxState::Ready {
        return (true, attempt + 1, id);
    }
    let on_host = newest.namespaces.network == cri::NamespaceMode::Node;
    if on_host != spec::host_network(pod) {
        return (true, attempt + 1, None);
    }
    if !on_host && newest.ips.is_empty() {
        return (true, attempt + 1, id);
    }
    (false, attempt, id)
}

pub(crate) fn plan(pod: &Pod, view: &View, probes: &ProbeResults) -> Actions {
    let (changed, attempt, sandbox_id) = sandbox_changed(pod, view);
    let mut actions = Actions { kill_pod: changed, create_sandbox: changed, sandbox_id, attempt, ..Actions::default() };
    if changed {
        with_new_sandbox(pod, view, &mut actions);
        return actions;
    }
    let ephemeral = spec::ephemeral_containers(pod);
    actions.ephemeral = (0..ephemeral.len()).filter(|i| view.run(&ephemeral[*i].name).is_none()).collect();
    let initialized = init_actions(pod, view, probes, &mut actions);
    if actions.kill_pod || !initialized {
        return actions;
    }
    let mut kept = 0;
    for (index, container) in spec::containers(pod).iter().enumerate() {
        kept += usize::from(container_action(pod, view, probes, index, container, &mut actions));
    }
    if kept == 0 && actions.containers.is_empty() {
        actions.kill_pod = true;
        // Sidecars alone do not keep a pod alive.
        actions.init.clear();
    }
    actions
}

fn with_new_sandbox(pod: &Pod, view: &View, actions: &mut Actions) {
    if spec::restart_policy(pod) == "Never" && actions.attempt != 0 && !view.runs.is_empty() {
        actions.create_sandbox = false;
        return;
    }
    let starts: Vec<usize> = spec::containers(pod)
        .iter()
        .enumerate()
        .filter(|(_, c)| {
            let policy = c.restart_policy.as_deref().unwrap_or(spec::restart_policy(pod));
            !(policy == "OnFailure" && succeeded(c, view))
        })
        .map(|(index, _)| index)
        .collect();
    if starts.is_empty() && any_regular_created(pod, view) {
        actions.create_sandbox = false;
        return;
    }
    if spec::init_containers(pod).is_empty() {
        actions.containers = starts;
    } else {
        actions.init = vec![0];
    }
}

fn succeeded(container: &Container, view: &View) -> bool {
    view.run(&container.name).is_some_and(|run| run.state == State::Exited && run.exit_code == 0)
}

pub(crate) fn any_regular_created(pod: &Pod, view: &View) -> bool {
    spec::containers(pod).iter().any(|c| view.run(&c.name).is_some())
}

/// Shall a container that does not run now be started?
pub(crate) fn should_start(pod: &Pod, container: &Container, view: &View) -> bool {
    if spec::is_deleted(pod) {
        return false;
    }
    match view.run(&container.name) {
        None => true,
        Some(run) => match run.state {
            State::Running => false,
            State::Created | State::Unknown => true,
            State::Exited => spec::should_restart(container, pod, run.exit_code),
        },
    }
}

/// True when the container runs and is to go on running.
fn container_action(pod: &Pod, view: &View, probes: &ProbeResults, index: usize, container: &Container, actions: &mut Actions) -> bool {
    let run = match view.run(&container.name) {
        Some(run) if run.state == State::Running => run,
        other => {
            if should_start(pod, container, view) {
                actions.containers.push(index);
                if let Some(run) = other.filter(|run| run.state == State::Unknown) {
                    actions.kill.push(kill_unknown(run, "Container"));
                }
            }
            return false;
        }
    };
    let mut restart = spec::restartable(container, pod);
    let (message, reason) = if run.hash != resources::container_hash(container) {
        restart = true;
        (format!("Container {} definition changed", container.name), KillReason::Unknown)
    } else if probes.liveness.get(&run.id) == Some(&false) {
        (format!("Container {} failed liveness probe", container.name), KillReason::Probe(ProbeKind::Liveness))
    } else if probes.startup.get(&run.id) == Some(&false) {
        (format!("Container {} failed startup probe", container.name), KillReason::Probe(ProbeKind::Startup))
    } else {
        match resources::resize_needed(pod, container, run) {
            resources::ResizeNeed::None => return true,
            resources::ResizeNeed::InPlace => {
                actions.resize.push(Resize { id: run.id.clone(), name: run.name.clone() });
                return true;
            }
            resources::ResizeNeed::Restart => {
                restart = true;
                (format!("Container {} resize requires restart", container.name), KillReason::Unknown)
            }
        }
    };
    let message = if restart { format!("{message}, will be restarted") } else { message };
    if restart {
        actions.containers.push(index);
    }
    actions.kill.push(Kill { id: run.id.clone(), name: run.name.clone(), message, reason });
    false
}

fn kill_unknown(run: &Run, what: &str) -> Kill {
    let message = format!("{what} is in \"unknown\" state, try killing it before restart");
    Kill { id: run.id.clone(), name: run.name.clone(), message, reason: KillReason::Unknown }
}

/// What init containers need, walked from the last to the first since finished ones may have been removed.
/// True when the pod is initialized.
fn init_actions(pod: &Pod, view: &View, probes: &ProbeResults, actions: &mut Actions) -> bool {
    let init = spec::init_containers(pod);
    if init.is_empty() {
        return true;
    }
    let mut initialized =
        spec::containers(pod).iter().any(|c| view.run(&c.name).is_some_and(|run| matches!(run.state, State::Created | State::Running)));
    let mut before = initialized;
    for (index, container) in init.iter().enumerate().rev() {
        let sidecar = spec::is_sidecar(container);
        let Some(run) = view.run(&container.name) else {
            if before && sidecar {
                actions.init.push(index);
            }
            continue;
        };
        if before && !sidecar {
            continue;
        }
        let last = index + 1 == init.len();
        match one_init(pod, container, run, probes) {
            Init::Fail => {
                actions.kill_pod = true;
                actions.init.clear();
                return false;
            }
            Init::Wait => {}
            Init::Start(kill) => {
                actions.kill.extend(kill);
                actions.init.push(index);
            }
            Init::Done { again } => {
                if last {
                    initialized = true;
                } else if !before || !sidecar {
                    actions.init.push(index + 1);
                }
                if let Some(kill) = again {
                    actions.kill.push(kill);
                    actions.init.push(index);
                }
            }
        }
        before = true;
    }
    if !before {
        actions.init.push(0);
    }
    actions.init.reverse();
    initialized
}

enum Init {
    /// Failed, and is not to be tried again: the pod is over.
    Fail,
    Wait,
    /// Start it (again), after this kill.
    Start(Option<Kill>),
    /// The next may start; a sidecar may have to be killed and started again itself.
    Done {
        again: Option<Kill>,
    },
}

fn one_init(pod: &Pod, container: &Container, run: &Run, probes: &ProbeResults) -> Init {
    let sidecar = spec::is_sidecar(container);
    let kill = |message: String, reason| Kill { id: run.id.clone(), name: run.name.clone(), message, reason };
    match run.state {
        State::Created => Init::Start(None),
        State::Running if !sidecar => Init::Wait,
        State::Running => {
            if container.startup_probe.is_some() {
                match probes.startup.get(&run.id) {
                    Some(true) => {}
                    Some(false) => {
                        let message = format!("Init container {} failed startup probe", container.name);
                        return Init::Start(Some(kill(message, KillReason::Probe(ProbeKind::Startup))));
                    }
                    None => return Init::Wait,
                }
            }
            if run.hash != resources::container_hash(container) {
                let message = format!("Init container {} definition changed", container.name);
                return Init::Done { again: Some(kill(message, KillReason::Unknown)) };
            }
            if probes.liveness.get(&run.id) == Some(&false) {
                let message = format!("Init container {} failed liveness probe", container.name);
                return Init::Done { again: Some(kill(message, KillReason::Probe(ProbeKind::Liveness))) };
            }
            Init::Done { again: None }
        }
        State::Exited if sidecar => Init::Start(None),
        State::Exited if run.exit_code == 0 => Init::Done { again: None },
        State::Exited if spec::should_restart(container, pod, run.exit_code) => Init::Start(None),
        State::Exited => Init::Fail,
        State::Unknown if sidecar || spec::restartable(container, pod) => Init::Start(Some(kill_unknown(run, "Init container"))),
        State::Unknown => Init::Fail,
    }
}
