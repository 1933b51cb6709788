//! The PodStatus that the API shows: a pure function of the pod, what the runtime holds, what probes found and why
//! starts failed. Words and reasons are upstream's, for people and tests match on them.

use super::conditions;
use super::phase;
use super::plan::{self, should_start};
use super::spec;
use super::view::{ProbeResults, Run, State, View};
use crate::names;
use crate::resources;
use jiff::Timestamp;
use std::collections::HashMap;
use tiphys_types::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, ContainerUser,
    HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use tiphys_types::metav1::Time;

/// Why a container does not start: `ErrImagePull`, `CrashLoopBackOff`, … with the message beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartFailure {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Everything that a status is made of.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    /// What was shown last: ours if there is one, else the API's.
    pub(crate) old: &'a PodStatus,
    pub(crate) view: &'a View,
    pub(crate) probes: &'a ProbeResults,
    pub(crate) failures: &'a HashMap<String, StartFailure>,
    /// All containers are gone for good.
    pub(crate) terminal: bool,
    pub(crate) host_ips: &'a [String],
    /// PodResizePending and PodResizeInProgress, when they hold.
    pub(crate) resize: &'a [PodCondition],
    pub(crate) now: Timestamp,
}

/// A phase that the kubelet decided by itself: eviction, deadline, rejection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) reason: String,
    pub(crate) message: String,
}

pub(crate) fn status(facts: &Facts<'_>, verdict: Option<&Verdict>) -> PodStatus {
    let pod = facts.pod;
    let old = facts.old;
    let mut status = PodStatus {
        qos_class: Some(resources::qos_class(pod).into()),
        observed_generation: spec::generation(pod),
        start_time: old.start_time.clone().or(Some(Time(facts.now))),
        nominated_node_name: pod.status.as_ref().and_then(|s| s.nominated_node_name.clone()),
        resource_claim_statuses: pod.status.as_ref().and_then(|s| s.resource_claim_statuses.clone()),
        ..PodStatus::default()
    };
    container_lists(facts, &mut status);
    let started = facts.view.runs.iter().any(|r| facts.view.is_current(r) && spec::containers(pod).iter().any(|c| c.name == r.name));
    status.phase = Some(phase::phase(pod, &status, facts.terminal, started).into());
    settle_phase(facts, &mut status);
    if let Some(verdict) = verdict {
        status.phase = Some("Failed".into());
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone()).filter(|m| !m.is_empty());
    }
    resources::pod_level_status(pod, &mut status);
    mark_ready(facts, &mut status);
    conditions::fill(facts, &mut status);
    addresses(facts, &mut status);
    status
}

/// A phase that was terminal once stays, with its reason and message.
fn settle_phase(facts: &Facts<'_>, status: &mut PodStatus) {
    let api = facts.pod.status.as_ref();
    let shown = api.and_then(|s| s.phase.as_deref()).filter(|p| phase::is_terminal(p));
    let before = facts.old.phase.as_deref().filter(|p| phase::is_terminal(p));
    if let Some(terminal) = shown.or_else(|| before.filter(|_| !status.phase.as_deref().is_some_and(phase::is_terminal))) {
        status.phase = Some(terminal.into());
    }
    if status.phase == facts.old.phase {
        status.reason = facts.old.reason.clone().or_else(|| api.and_then(|s| s.reason.clone()));
        status.message = facts.old.message.clone().or_else(|| api.and_then(|s| s.message.clone()));
    }
}

fn container_lists(facts: &Facts<'_>, status: &mut PodStatus) {
    let (pod, old) = (facts.pod, facts.old);
    let some = |list: Vec<ContainerStatus>| (!list.is_empty()).then_some(list);
    let mut regular = statuses(facts, spec::containers(pod), old.container_statuses.as_deref(), false);
    regular.sort_by(|a, b| a.name.cmp(&b.name));
    status.container_statuses = some(regular);
    let init = spec::init_containers(pod);
    status.init_container_statuses = some(statuses(facts, init, old.init_container_statuses.as_deref(), true));
    let ephemeral = spec::ephemeral_containers(pod);
    let mut ephemeral = statuses(facts, &ephemeral, old.ephemeral_container_statuses.as_deref(), false);
    ephemeral.sort_by(|a, b| a.name.cmp(&b.name));
    status.ephemeral_container_statuses = some(ephemeral);
}

fn statuses(facts: &Facts<'_>, containers: &[Container], old: Option<&[ContainerStatus]>, init: bool) -> Vec<ContainerStatus> {
    let old = old.unwrap_or_default();
    containers.iter().map(|c| one(facts, c, old.iter().find(|s| s.name == c.name), init)).collect()
}

fn one(facts: &Facts<'_>, container: &Container, old: Option<&ContainerStatus>, init: bool) -> ContainerStatus {
    // One that is created is about to be started: what was before is shown until it is.
    let mut runs = facts.view.runs.iter().filter(|r| r.name == container.name && r.state != State::Created);
    let mut status = match runs.next() {
        Some(newest) => {
            let mut status = of_run(facts.pod, container, newest, old);
            if let Some(previous) = runs.next() {
                status.last_state = of_run(facts.pod, container, previous, old).state;
            } else if status.last_state.is_none() {
                status.last_state = old.and_then(|o| o.last_state.clone());
            }
            status
        }
        None => without_run(facts, container, old),
    };
    apply_failure(facts, container, init, &mut status);
    status
}

fn waiting(reason: &str, message: Option<&str>) -> ContainerState {
    let state = ContainerStateWaiting { reason: Some(reason.into()).filter(|r: &String| !r.is_empty()), message: message.map(Into::into) };
    ContainerState { waiting: Some(state), ..ContainerState::default() }
}

fn initial_reason(pod: &Pod) -> &'static str {
    if spec::init_containers(pod).is_empty() { "ContainerCreating" } else { "PodInitializing" }
}

/// The runtime knows nothing of the container: never started, or gone.
fn without_run(facts: &Facts<'_>, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(initial_reason(facts.pod), None)),
        started: Some(false),
        volume_mounts: mounts(container),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    let old_state = old.state.clone().unwrap_or_default();
    if old_state.terminated.is_some() {
        return old.clone();
    }
    status.restart_count = old.restart_count;
    status.last_state = old.last_state.clone();
    let ended = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    if old_state.running.is_some() && !ended {
        // It ran, and how it ended will never be known.
        status.last_state = Some(ContainerState { terminated: Some(unknown_end(DELETED)), ..ContainerState::default() });
        if !spec::is_deleted(facts.pod) {
            status.restart_count += 1;
        }
    }
    status
}

const DELETED: &str = "The container could not be located when the pod was deleted.  The container used to be Running";
pub(crate) const TERMINATED: &str = "The container could not be located when the pod was terminated";

pub(crate) fn unknown_end(message: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        reason: Some("ContainerStatusUnknown".into()),
        message: Some(message.into()),
        exit_code: 137,
        ..ContainerStateTerminated::default()
    }
}

fn container_id(run: &Run) -> String {
    format!("{}://{}", names::RUNTIME, run.id)
}

fn of_run(pod: &Pod, container: &Container, run: &Run, old: Option<&ContainerStatus>) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        restart_count: old.map_or(run.restart_count, |o| o.restart_count.max(run.restart_count)),
        image: if run.image.is_empty() { container.image.clone().unwrap_or_default() } else { run.image.clone() },
        image_id: run.image_ref.clone(),
        container_id: Some(container_id(run)),
        volume_mounts: mounts(container),
        user: run.user.as_ref().map(user),
        stop_signal: Some(run.stop_signal.clone()).filter(|s| !s.is_empty()),
        ..ContainerStatus::default()
    };
    let (resources, allocated) = resources::container_status(pod, container, run);
    status.resources = resources;
    status.allocated_resources = allocated;
    status.state = Some(state(run, old, &mut status.restart_count));
    status
}

fn state(run: &Run, old: Option<&ContainerStatus>, restart_count: &mut i32) -> ContainerState {
    match run.state {
        State::Running => {
            let running = ContainerStateRunning { started_at: Some(Time(run.started_at)) };
            ContainerState { running: Some(running), ..ContainerState::default() }
        }
        State::Exited => ContainerState { terminated: Some(terminated(run)), ..ContainerState::default() },
        State::Unknown if old.and_then(|o| o.state.as_ref()).is_some_and(|s| s.running.is_some()) => {
            *restart_count += 1;
            ContainerState { terminated: Some(unknown_end(TERMINATED)), ..ContainerState::default() }
        }
        State::Created | State::Unknown => waiting("", None),
    }
}

fn terminated(run: &Run) -> ContainerStateTerminated {
    let reason = match (run.reason.as_str(), run.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerStateTerminated {
        exit_code: run.exit_code,
        reason: Some(reason.into()),
        message: Some(run.message.clone()).filter(|m| !m.is_empty()),
        started_at: Some(Time(run.started_at)),
        finished_at: Some(Time(run.finished_at)),
        container_id: Some(container_id(run)),
        signal: None,
    }
}

fn user(user: &tiphys_cri::LinuxContainerUser) -> ContainerUser {
    let groups = Some(user.supplemental_groups.clone()).filter(|g| !g.is_empty());
    ContainerUser { linux: Some(LinuxContainerUser { uid: user.uid, gid: user.gid, supplemental_groups: groups }) }
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let list = container.volume_mounts.as_ref()?;
    let one = |m: &tiphys_types::api::core::v1::VolumeMount| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only.filter(|r| *r),
        recursive_read_only: (m.read_only == Some(true)).then(|| {
            let wanted = matches!(m.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
            if wanted { "Enabled".into() } else { "Disabled".into() }
        }),
        ..VolumeMountStatus::default()
    };
    Some(list.iter().map(one).collect()).filter(|l: &Vec<_>| !l.is_empty())
}

/// A container that is to be started and cannot be is waiting, with the reason.
fn apply_failure(facts: &Facts<'_>, container: &Container, init: bool, status: &mut ContainerStatus) {
    let run = facts.view.run(&container.name);
    if init {
        if run.is_some_and(|r| r.state == State::Exited && r.exit_code == 0) && !spec::is_sidecar(container) {
            return;
        }
        let is_waiting = status.state.as_ref().is_some_and(|s| s.waiting.is_some());
        if run.is_none() && is_waiting && !spec::is_sidecar(container) && plan::any_regular_created(facts.pod, facts.view) {
            let message =
                "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally";
            let end = ContainerStateTerminated {
                reason: Some("Completed".into()),
                message: Some(message.into()),
                ..ContainerStateTerminated::default()
            };
            status.state = Some(ContainerState { terminated: Some(end), ..ContainerState::default() });
            return;
        }
    }
    if !should_start(facts.pod, container, facts.view) {
        return;
    }
    let Some(failure) = facts.failures.get(&container.name) else { return };
    if status.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
        status.last_state = status.state.take();
    }
    status.state = Some(waiting(&failure.reason, Some(failure.message.as_str()).filter(|m| !m.is_empty())));
}

/// `started` and `ready` of each container.
fn mark_ready(facts: &Facts<'_>, status: &mut PodStatus) {
    for one in status.container_statuses.iter_mut().flatten() {
        if let Some(container) = spec::containers(facts.pod).iter().find(|c| c.name == one.name) {
            mark_one(facts, container, one);
        }
    }
    for one in status.init_container_statuses.iter_mut().flatten() {
        let Some(container) = spec::init_containers(facts.pod).iter().find(|c| c.name == one.name) else { continue };
        if spec::is_sidecar(container) {
            mark_one(facts, container, one);
            continue;
        }
        let state = one.state.as_ref();
        one.ready = state.and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0);
        one.started = Some(state.is_some_and(|s| s.running.is_some()));
    }
    for one in status.ephemeral_container_statuses.iter_mut().flatten() {
        one.started = None;
        one.ready = false;
    }
}

fn mark_one(facts: &Facts<'_>, container: &Container, status: &mut ContainerStatus) {
    let running = status.state.as_ref().is_some_and(|s| s.running.is_some());
    let id = status.container_id.as_deref().and_then(|id| id.split_once("://")).map_or("", |(_, id)| id);
    let started = running
        && match facts.probes.startup.get(id) {
            Some(result) => *result,
            None => container.startup_probe.is_none(),
        };
    status.started = Some(started);
    status.ready = started && facts.probes.readiness.get(id).copied().unwrap_or(container.readiness_probe.is_none());
}

fn addresses(facts: &Facts<'_>, status: &mut PodStatus) {
    let ips: Vec<String> = if spec::host_network(facts.pod) {
        match facts.old.pod_ips.as_deref() {
            Some(ips) if !ips.is_empty() => ips.iter().map(|ip| ip.ip.clone()).collect(),
            _ => facts.host_ips.to_vec(),
        }
    } else if facts.view.ready_sandbox().is_some() {
        facts.view.ips().to_vec()
    } else {
        // A pod that has ended goes on being shown with the address that it had.
        facts.old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect()
    };
    status.pod_ip = ips.first().cloned();
    status.pod_ips = (!ips.is_empty()).then(|| ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect());
    status.host_ip = facts.host_ips.first().cloned();
    status.host_ips = (!facts.host_ips.is_empty()).then(|| facts.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
}

/// The last status of a pod: whatever has no end gets an unknown one, and the phase is terminal.
pub(crate) fn finalize(pod: &Pod, status: &mut PodStatus) {
    if was_initialized(pod, status) {
        for one in status.container_statuses.iter_mut().flatten() {
            end_unknown(one);
        }
    }
    let init = status.init_container_statuses.as_deref_mut().unwrap_or_default();
    let tried = init.iter().rposition(|s| {
        s.state.as_ref().is_none_or(|s| s.waiting.is_none()) || s.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
    });
    let until = tried.map_or(1, |last| last + 1).min(init.len());
    for one in &mut init[..until] {
        end_unknown(one);
    }
    if !spec::is_static(pod) && !status.phase.as_deref().is_some_and(phase::is_terminal) {
        status.phase = Some("Failed".into());
    }
}

fn end_unknown(status: &mut ContainerStatus) {
    if status.state.as_ref().is_none_or(|s| s.terminated.is_none()) {
        status.state = Some(ContainerState { terminated: Some(unknown_end(TERMINATED)), ..ContainerState::default() });
        status.ready = false;
        status.started = Some(false);
    }
}

/// Did the pod ever get past its init containers?
fn was_initialized(pod: &Pod, status: &PodStatus) -> bool {
    let init = spec::init_containers(pod);
    let Some(last) = init.last() else { return true };
    let ended = |s: &ContainerStatus| s.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    let moved = |s: &ContainerStatus| ended(s) || s.state.as_ref().is_none_or(|s| s.waiting.is_none());
    if status.container_statuses.iter().flatten().any(moved) {
        return true;
    }
    let Some(shown) = status.init_container_statuses.iter().flatten().find(|s| s.name == last.name) else { return false };
    if spec::is_sidecar(last) {
        return shown.state.as_ref().is_some_and(|s| s.running.is_some()) && shown.started == Some(true);
    }
    let zero = |s: Option<&ContainerState>| s.and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0);
    zero(shown.last_state.as_ref()) || zero(shown.state.as_ref())
}
