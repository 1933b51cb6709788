//! What a worker decides by itself, as pure functions: when a pod's time is up, what a refused pod shows, which resizes go on.

use crate::pod::phase;
use crate::pod::spec;
use crate::pod::status::Verdict;
use crate::pod::view::{ProbeResults, State, View};
use crate::resources::{self, fnv};
use jiff::{SignedDuration, Timestamp};
use tiphys_types::api::core::v1::{Pod, PodCondition, PodStatus};
use tiphys_types::metav1::Time;

pub(super) const DEADLINE_EXCEEDED: &str = "Pod was active on the node longer than the specified deadline";

/// What planning depends on, as a number.
pub(super) fn signature(pod: &Pod, view: &View, probes: &ProbeResults) -> u64 {
    use std::fmt::Write;
    let mut text = String::with_capacity(256);
    // Writing to a String cannot fail.
    let _ = write!(text, "{:?}", pod.metadata.generation);
    for run in &view.runs {
        let _ = write!(text, "{}{:?}{:?}", run.id, run.state, run.resources);
        let _ = write!(text, "{:?}{:?}", probes.liveness.get(&run.id), probes.startup.get(&run.id));
    }
    for sandbox in &view.sandboxes {
        let _ = write!(text, "{}{:?}{:?}", sandbox.id, sandbox.state, sandbox.ips);
    }
    fnv(text.as_bytes())
}

/// Whether a pod that was running has to be ended now.
pub(super) fn is_to_end(pod: &Pod, status: &PodStatus, gone: bool, verdict: Option<&Verdict>) -> bool {
    let terminal = status.phase.as_deref().is_some_and(phase::is_terminal);
    spec::is_deleted(pod) || gone || verdict.is_some() || terminal
}

/// When activeDeadlineSeconds are over; the start is what was shown, else what the API has.
pub(super) fn deadline(pod: &Pod, shown: &PodStatus, api: &PodStatus) -> Option<Timestamp> {
    let seconds = spec::spec(pod).active_deadline_seconds?;
    let start = shown.start_time.as_ref().or(api.start_time.as_ref())?;
    start.0.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// The status of a pod that was refused before anything was started.
pub(super) fn rejection(pod: &Pod, shown: &PodStatus, verdict: Option<&Verdict>, now: Timestamp) -> PodStatus {
    let verdict = verdict.cloned().unwrap_or(Verdict { reason: String::new(), message: String::new() });
    let mut status = pod.status.clone().unwrap_or_default();
    status.phase = Some("Failed".into());
    status.reason = Some(verdict.reason);
    status.message = Some(format!("Pod was rejected: {}", verdict.message));
    status.observed_generation = spec::generation(pod);
    status.start_time = shown.start_time.clone().or(Some(Time(now)));
    status
}

/// PodResizePending as it stands, and PodResizeInProgress while some running container has other resources than its pod says.
pub(super) fn resize_conditions(pod: &Pod, view: &View, pending: Option<&PodCondition>) -> Vec<PodCondition> {
    let goes_on = spec::containers(pod).iter().chain(spec::init_containers(pod)).any(|c| {
        let run = view.run(&c.name).filter(|r| r.state == State::Running);
        run.is_some_and(|r| resources::resize_needed(pod, c, r) != resources::ResizeNeed::None)
    });
    let in_progress = goes_on.then(|| PodCondition {
        type_: "PodResizeInProgress".into(),
        status: "True".into(),
        observed_generation: spec::generation(pod),
        ..PodCondition::default()
    });
    pending.cloned().into_iter().chain(in_progress).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).expect("a status")
    }

    #[test]
    fn a_deadline_counts_from_the_start_that_was_shown() {
        let bounded = pod(json!({"spec": {"containers": [], "activeDeadlineSeconds": 60}}));
        let (none, early) = (PodStatus::default(), status(json!({"startTime": "2026-01-01T00:00:00Z"})));
        let late = status(json!({"startTime": "2026-01-01T00:05:00Z"}));
        let time = |text: &str| text.parse().ok();
        assert_eq!(deadline(&bounded, &none, &none), None);
        assert_eq!(deadline(&bounded, &none, &early), time("2026-01-01T00:01:00Z"));
        assert_eq!(deadline(&bounded, &late, &early), time("2026-01-01T00:06:00Z"));
        assert_eq!(deadline(&pod(json!({"spec": {"containers": []}})), &late, &early), None);
    }

    #[test]
    fn what_ends_a_pod() {
        let live = pod(json!({"metadata": {"name": "p"}}));
        let deleted = pod(json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        let verdict = Verdict { reason: "Evicted".into(), message: String::new() };
        let (running, over) = (status(json!({"phase": "Running"})), status(json!({"phase": "Succeeded"})));
        assert!(!is_to_end(&live, &running, false, None));
        assert!(is_to_end(&deleted, &running, false, None));
        assert!(is_to_end(&live, &over, false, None));
        assert!(is_to_end(&live, &running, true, None));
        assert!(is_to_end(&live, &running, false, Some(&verdict)));
    }

    #[test]
    fn a_refused_pod_keeps_what_others_wrote() {
        let refused = pod(json!({"metadata": {"generation": 3}, "status": {"conditions": [{"type": "PodScheduled", "status": "True"}]}}));
        let verdict = Verdict { reason: "OutOfcpu".into(), message: "no room".into() };
        let shown = rejection(&refused, &PodStatus::default(), Some(&verdict), Timestamp::UNIX_EPOCH);
        assert_eq!(shown.conditions.map(|c| c.len()), Some(1));
        assert_eq!((shown.phase.as_deref(), shown.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
        assert_eq!(shown.message.as_deref(), Some("Pod was rejected: no room"));
        assert_eq!(shown.observed_generation, Some(3));
    }
}
