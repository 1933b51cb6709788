//! The phase of a pod, from the statuses of its containers.

use super::spec;
use tiphys_types::api::core::v1::{ContainerStatus, Pod, PodStatus};

pub(crate) fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

#[derive(Default)]
struct Counts {
    pending_init: usize,
    pending_sidecars: usize,
    failed_init: usize,
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
}

/// `terminal`: nothing will be started again, whatever the policy. `started`: regular containers of this sandbox exist.
pub(crate) fn phase(pod: &Pod, status: &PodStatus, terminal: bool, started: bool) -> &'static str {
    let counts = count(pod, status);
    if counts.failed_init > 0 {
        return "Failed";
    }
    if counts.pending_init > 0 || (counts.pending_sidecars > 0 && !started) || counts.waiting > 0 {
        return "Pending";
    }
    if counts.running > 0 && counts.unknown == 0 {
        return "Running";
    }
    if counts.running > 0 || counts.stopped == 0 || counts.unknown > 0 {
        return "Pending";
    }
    let over = (terminal && !spec::is_static(pod)) || counts.stopped == counts.stopped_for_good;
    match (over, counts.stopped == counts.succeeded) {
        (true, true) => "Succeeded",
        (true, false) => "Failed",
        (false, _) => "Running",
    }
}

fn find<'a>(list: &'a Option<Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    list.as_deref().unwrap_or_default().iter().find(|s| s.name == name)
}

fn last_exit(status: &ContainerStatus) -> Option<i32> {
    status.last_state.as_ref()?.terminated.as_ref().map(|t| t.exit_code)
}

fn count(pod: &Pod, status: &PodStatus) -> Counts {
    let mut counts = Counts::default();
    for container in spec::init_containers(pod) {
        let shown = find(&status.init_container_statuses, &container.name);
        if spec::is_sidecar(container) {
            count_sidecar(shown, &mut counts);
        } else {
            count_init(pod, container, shown, &mut counts);
        }
    }
    for container in spec::containers(pod) {
        count_regular(pod, container, find(&status.container_statuses, &container.name), &mut counts);
    }
    counts
}

fn count_init(pod: &Pod, container: &tiphys_types::api::core::v1::Container, shown: Option<&ContainerStatus>, counts: &mut Counts) {
    let state = shown.and_then(|s| s.state.as_ref());
    let ended = match (shown, state) {
        (_, Some(state)) if state.terminated.is_some() => state.terminated.as_ref().map(|t| t.exit_code),
        (Some(shown), Some(state)) if state.waiting.is_some() => last_exit(shown),
        _ => None,
    };
    match ended {
        None => counts.pending_init += 1,
        Some(0) => {}
        Some(code) => {
            let again = spec::should_restart(container, pod, code);
            counts.failed_init += usize::from(!again);
        }
    }
}

fn count_sidecar(shown: Option<&ContainerStatus>, counts: &mut Counts) {
    let Some(shown) = shown else {
        counts.unknown += 1;
        return;
    };
    let state = shown.state.clone().unwrap_or_default();
    if state.running.is_some() {
        counts.pending_sidecars += usize::from(shown.started != Some(true));
        counts.running += 1;
    } else if state.terminated.is_some() {
    } else if state.waiting.is_some() {
        if last_exit(shown).is_none() {
            counts.pending_sidecars += 1;
            counts.waiting += 1;
        }
    } else {
        counts.pending_sidecars += 1;
        counts.unknown += 1;
    }
}

fn count_regular(pod: &Pod, container: &tiphys_types::api::core::v1::Container, shown: Option<&ContainerStatus>, counts: &mut Counts) {
    let Some(shown) = shown else {
        counts.unknown += 1;
        return;
    };
    let state = shown.state.clone().unwrap_or_default();
    let mut stop = |code: i32| {
        counts.stopped += 1;
        counts.stopped_for_good += usize::from(!spec::should_restart(container, pod, code));
    };
    if state.running.is_some() {
        counts.running += 1;
    } else if let Some(end) = &state.terminated {
        stop(end.exit_code);
        counts.succeeded += usize::from(end.exit_code == 0);
    } else if state.waiting.is_some() {
        match last_exit(shown) {
            Some(code) => stop(code),
            None => counts.waiting += 1,
        }
    } else {
        counts.unknown += 1;
    }
}
