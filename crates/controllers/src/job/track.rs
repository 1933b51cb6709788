//! The counting of finished pods, and the status.

use std::collections::HashSet;
use std::sync::Arc;

use tiphys_client::{Action, Plan};
use tiphys_types::api::batch::v1::{Job, JobCondition, JobStatus, UncountedTerminatedPods};
use tiphys_types::api::core::v1::Pod;
use tiphys_types::metav1::Time;
use tiphys_types::pods;

use super::indexes;
use super::orphans::{is_tracked, untrack};
use super::plan::{Round, end_note};
use super::policy::{self, Verdict};
use super::view::{View, condition, new_condition};
use crate::shared::pod;

/// No more are noted as uncounted at once: the status has to stay small.
const MOST_UNCOUNTED: usize = 500;

/// Order matters: first the status that names the pods, then their finalizers; what makes and removes pods in between, for a refused creation
/// must not keep finished pods from being counted.
pub(super) fn count(view: &View, round: &Round, actions: Vec<Action>, plan: &mut Plan) {
    let mut status = view.status.clone();
    let tracked: HashSet<&str> = view.pods.iter().filter(|p| is_tracked(p)).filter_map(|p| p.metadata.uid.as_deref()).collect();
    let mut uncounted = settle(&mut status, view.uncounted.clone(), &tracked);
    let (done, whole) = take_note(view, round, &mut uncounted);
    if view.is_indexed() {
        status.succeeded = some(view.succeeded.len() as i32);
        status.completed_indexes = Some(indexes::format(&view.succeeded)).filter(|t| !t.is_empty());
        status.failed_indexes = view.spec.backoff_limit_per_index.map(|_| indexes::format(&view.failed));
    }
    status.active = some(round.active);
    status.ready = Some(round.ready);
    status.terminating = Some(round.terminating);
    status.start_time = round.start_time.clone();
    if let Some((holds, reason, message)) = round.suspended {
        let mut next = new_condition("Suspended", reason, message, view.now);
        next.status = if holds { "True" } else { "False" }.into();
        set(&mut status, next);
    }
    let nothing_open = whole && is_empty(&uncounted);
    status.uncounted_terminated_pods = Some(uncounted);
    conclude(view, round, nothing_open, &mut status, plan);
    let next = Job { status: Some(status), ..Job::clone(&view.job) };
    plan.update_status_if_changed(&*view.job, &next);
    plan.burst(done.iter().map(untrack).collect());
    plan.burst(actions);
}

fn is_empty(uncounted: &UncountedTerminatedPods) -> bool {
    uncounted.succeeded.as_ref().is_none_or(Vec::is_empty) && uncounted.failed.as_ref().is_none_or(Vec::is_empty)
}

/// Pods that were noted and have lost their finalizer since move into the counters.
fn settle(status: &mut JobStatus, uncounted: UncountedTerminatedPods, tracked: &HashSet<&str>) -> UncountedTerminatedPods {
    let split = |uids: Option<Vec<String>>| uids.unwrap_or_default().into_iter().partition::<Vec<_>, _>(|u| tracked.contains(u.as_str()));
    let (succeeded, newly_succeeded) = split(uncounted.succeeded);
    let (failed, newly_failed) = split(uncounted.failed);
    status.succeeded = some(status.succeeded.unwrap_or(0) + newly_succeeded.len() as i32);
    status.failed = some(status.failed.unwrap_or(0) + newly_failed.len() as i32);
    let list = |uids: Vec<String>| Some(uids).filter(|u| !u.is_empty());
    UncountedTerminatedPods { succeeded: list(succeeded), failed: list(failed) }
}

/// Notes the pods that have finished; answers those whose finalizer may go, and whether that were all.
fn take_note(view: &View, round: &Round, uncounted: &mut UncountedTerminatedPods) -> (Vec<Arc<Pod>>, bool) {
    let mut done = Vec::new();
    for pod in view.pods.iter().filter(|p| is_tracked(p) && may_go(view, round, p)) {
        let open = uncounted.succeeded.as_ref().map_or(0, Vec::len) + uncounted.failed.as_ref().map_or(0, Vec::len);
        if open >= MOST_UNCOUNTED {
            return (done, false);
        }
        done.push(Arc::clone(pod));
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let known = uncounted.succeeded.iter().chain(&uncounted.failed).flatten().any(|u| *u == uid);
        if known {
            continue;
        }
        let failing = round.end.as_ref().is_some_and(|e| e.type_ != "SuccessCriteriaMet");
        if pods::phase(pod) == "Succeeded" {
            // Of an indexed job the index says it.
            if !view.is_indexed() {
                uncounted.succeeded.get_or_insert_default().push(uid);
            }
        } else if (view.is_failed(pod) || failing) && counts_as_failure(view, pod) {
            uncounted.failed.get_or_insert_default().push(uid);
        }
    }
    (done, true)
}

fn counts_as_failure(view: &View, pod: &Pod) -> bool {
    let in_range = !view.is_indexed() || indexes::of_pod(pod).is_some_and(|i| i < view.completions().unwrap_or(0));
    in_range && policy::judge(view.spec.pod_failure_policy.as_ref(), pod) != Verdict::Ignore
}

fn may_go(view: &View, round: &Round, pod: &Pod) -> bool {
    if view.job.metadata.deletion_timestamp.is_some() || pods::phase(pod) == "Succeeded" {
        return true;
    }
    if round.end.is_some() {
        // A pod that is still going is counted when it is gone.
        return view.is_failed(pod);
    }
    let waits = indexes::of_pod(pod).and_then(|i| view.delayed.get(&i)).is_some_and(|d| d.metadata.uid == pod.metadata.uid);
    view.is_failed(pod) && !waits
}

/// First the condition that says how the job will end; the last one when all pods are gone and counted.
fn conclude(view: &View, round: &Round, nothing_open: bool, status: &mut JobStatus, plan: &mut Plan) {
    let Some(end) = &round.end else { return };
    if condition(status, &end.type_).is_none() {
        set(status, end.clone());
    }
    if !nothing_open || round.terminating > 0 || round.active > 0 {
        return;
    }
    let kind = if end.type_ == "SuccessCriteriaMet" { "Complete" } else { "Failed" };
    let last = new_condition(kind, end.reason.as_deref().unwrap_or(""), end.message.as_deref().unwrap_or(""), view.now);
    if kind == "Complete" {
        status.completion_time = Some(Time(view.now));
    }
    plan.note(end_note(&pod::about(&*view.job), &last));
    set(status, last);
}

fn set(status: &mut JobStatus, next: JobCondition) {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == next.type_) {
        Some(old) => *old = next,
        None => conditions.push(next),
    }
}

/// Zeros are absent in the canonical form.
fn some(count: i32) -> Option<i32> {
    Some(count).filter(|c| *c != 0)
}
