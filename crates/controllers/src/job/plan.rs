use std::sync::Arc;
use std::time::Duration;

use tiphys_client::{Action, Note, Plan};
use tiphys_types::api::batch::v1::{Job, JobCondition};
use tiphys_types::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, ObjectReference, Pod};
use tiphys_types::metav1::Time;
use tiphys_types::owners::controller_reference;
use tiphys_types::pods;

use super::indexes::{self, INDEX};
use super::policy::{self, Verdict};
use super::view::{Failures, View, condition, ended, failures_before, left, new_condition};
use super::{FINALIZER, track};
use crate::shared::pod;

const BURST: usize = 500;
const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What one round makes of the job, beside the counting.
pub(super) struct Round {
    /// `FailureTarget` or `SuccessCriteriaMet`: how the job ends, once its pods have.
    pub(super) end: Option<JobCondition>,
    pub(super) active: i32,
    pub(super) ready: i32,
    pub(super) terminating: i32,
    /// The condition `Suspended`, where it changes.
    pub(super) suspended: Option<(bool, &'static str, &'static str)>,
    pub(super) start_time: Option<Time>,
}

pub(super) fn decide(view: &View, failures: &Failures, plan: &mut Plan) {
    let mut round = Round {
        end: None,
        active: view.active.len() as i32,
        ready: view.ready(),
        terminating: view.terminating(),
        suspended: None,
        start_time: view.status.start_time.clone().or_else(|| (!view.is_suspended()).then(|| Time(view.now))),
    };
    let mut actions = Vec::new();
    round.end = end_of(view, &round, plan);
    if round.end.is_some() {
        remove(view, &view.active, &mut round, &mut actions);
    } else {
        if view.job.metadata.deletion_timestamp.is_none() {
            manage(view, failures, &mut round, &mut actions, plan);
            round.suspended = suspension(view);
        }
        if is_complete(view, &round) {
            let message = "Reached expected number of succeeded pods";
            round.end = Some(new_condition("SuccessCriteriaMet", "CompletionsReached", message, view.now));
        }
    }
    if let Some((suspended, ..)) = round.suspended {
        let about = pod::about(&*view.job);
        let (reason, message) = if suspended { ("Suspended", "Job suspended") } else { ("Resumed", "Job resumed") };
        plan.note(Note::normal(&about, reason, message));
        if !suspended {
            round.start_time = Some(Time(view.now));
        }
    }
    track::count(view, &round, actions, plan);
}

/// How the job ends, if it does.
fn end_of(view: &View, round: &Round, plan: &mut Plan) -> Option<JobCondition> {
    if let Some(known) = condition(&view.status, "SuccessCriteriaMet").or(condition(&view.status, "FailureTarget")) {
        return Some(known.clone());
    }
    let fail = |reason: &str, message: &str| Some(new_condition("FailureTarget", reason, message, view.now));
    let verdicts = view.pods.iter().filter(|p| pods::phase(p) == "Failed").map(|p| policy::judge(view.spec.pod_failure_policy.as_ref(), p));
    if let Some(why) = verdicts.into_iter().find_map(|v| if let Verdict::FailJob(why) = v { Some(why) } else { None }) {
        return fail("PodFailurePolicy", &why);
    }
    if view.total_failed() > view.spec.backoff_limit.unwrap_or(6) || view.restarts_exceed() {
        return fail("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if let (Some(limit), Some(start), false) = (view.spec.active_deadline_seconds, &round.start_time, view.is_suspended()) {
        let left = start.0.as_second() + limit - view.now.as_second();
        if left <= 0 && view.status.start_time.is_some() {
            return fail("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        plan.again_after(Duration::from_secs(left.max(1) as u64));
    }
    end_of_indexed(view)
}

fn end_of_indexed(view: &View) -> Option<JobCondition> {
    let completions = view.completions().filter(|_| view.is_indexed())?;
    let fail = |reason: &str, message: &str| Some(new_condition("FailureTarget", reason, message, view.now));
    if view.spec.backoff_limit_per_index.is_some() {
        if view.spec.max_failed_indexes.is_some_and(|most| view.failed.len() as i32 > most) {
            return fail("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes");
        }
        if !view.failed.is_empty() && (view.failed.len() + view.succeeded.len()) as i32 >= completions {
            return fail("FailedIndexes", "Job has failed indexes");
        }
    }
    let met = policy::success(view.spec.success_policy.as_ref(), completions, &view.succeeded)?;
    Some(new_condition("SuccessCriteriaMet", "SuccessPolicy", &met, view.now))
}

fn is_complete(view: &View, round: &Round) -> bool {
    match view.completions() {
        None => view.total_succeeded() > 0 && round.active == 0,
        Some(wanted) => view.total_succeeded() >= wanted && round.active == 0,
    }
}

fn suspension(view: &View) -> Option<(bool, &'static str, &'static str)> {
    let current = view.status.conditions.iter().flatten().find(|c| c.type_ == "Suspended");
    match (view.is_suspended(), current.map(|c| c.status == "True")) {
        (true, None | Some(false)) => Some((true, "JobSuspended", "Job suspended")),
        (false, Some(true)) => Some((false, "JobResumed", "Job resumed")),
        _ => None,
    }
}

fn manage(view: &View, failures: &Failures, round: &mut Round, actions: &mut Vec<Action>, plan: &mut Plan) {
    let active = view.active.len() as i32;
    let wanted = if view.is_suspended() { 0 } else { wanted(view, active) };
    if active > wanted {
        let mut ranked: Vec<(Arc<Pod>, usize)> = view.active.iter().map(|p| (Arc::clone(p), 0)).collect();
        pod::sort_for_deletion(&mut ranked, view.now);
        let going: Vec<Arc<Pod>> = ranked.into_iter().map(|(p, _)| p).take(((active - wanted) as usize).min(BURST)).collect();
        return remove(view, &going, round, actions);
    }
    let leaving = if view.replaces_failed_only() { view.terminating() } else { 0 };
    let missing = usize::try_from(wanted - active - leaving).unwrap_or(0).min(BURST);
    if missing == 0 {
        return;
    }
    let per_index = view.spec.backoff_limit_per_index.is_some();
    let wait = if per_index { 0 } else { failures.wait(view.now) };
    if wait > 0 {
        return plan.again_after(Duration::from_secs(wait as u64));
    }
    let new: Vec<Pod> = if view.is_indexed() {
        free_indexes(view, missing, plan).into_iter().map(|index| indexed_pod(view, index)).collect()
    } else {
        vec![plain_pod(view); missing]
    };
    round.active += new.len() as i32;
    let about = pod::about(&*view.job);
    actions.extend(new.iter().map(|p| pod::create(p, &about)));
}

fn wanted(view: &View, active: i32) -> i32 {
    match view.completions() {
        None if view.total_succeeded() > 0 => active,
        None => view.parallelism(),
        Some(completions) => (completions - view.total_succeeded() - view.failed.len() as i32).clamp(0, view.parallelism()),
    }
}

fn remove(view: &View, going: &[Arc<Pod>], round: &mut Round, actions: &mut Vec<Action>) {
    let about = pod::about(&*view.job);
    actions.extend(going.iter().map(|p| pod::delete(p, &about)));
    round.active -= going.len() as i32;
    round.terminating += going.len() as i32;
    round.ready -= going.iter().filter(|p| pods::is_ready(p)).count() as i32;
}

/// The lowest indexes without a pod, a success or a final failure; one that has failed waits out its own back-off.
fn free_indexes(view: &View, many: usize, plan: &mut Plan) -> Vec<i32> {
    let busy = |index: &i32| {
        view.active.iter().any(|p| indexes::of_pod(p) == Some(*index))
            || view.succeeded.contains(index)
            || view.failed.contains(index)
            || (view.replaces_failed_only()
                && view.pods.iter().any(|p| pods::is_terminating(p) && !pods::is_terminal(p) && indexes::of_pod(p) == Some(*index)))
    };
    let mut free: Vec<i32> = (0..view.completions().unwrap_or(0)).filter(|i| !busy(i)).take(many).collect();
    free.retain(|index| match view.delayed.get(index) {
        Some(failed) => {
            let failures = u32::try_from(failures_before(failed) + 1).unwrap_or(1);
            let wait = left(failures, ended(failed, view.now), view.now);
            if wait > 0 {
                plan.again_after(Duration::from_secs(wait as u64));
            }
            wait == 0
        }
        None => true,
    });
    free
}

fn plain_pod(view: &View) -> Pod {
    let meta = &view.job.metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
    let mut new = pod::from_template(&view.spec.template, namespace, name, controller_reference::<Job>(meta));
    let finalizers = new.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    new
}

fn indexed_pod(view: &View, index: i32) -> Pod {
    let mut new = plain_pod(view);
    let name = view.job.metadata.name.as_deref().unwrap_or("");
    new.metadata.generate_name = Some(format!("{name}-{index}-"));
    new.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    let annotations = new.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index.to_string());
    if view.spec.backoff_limit_per_index.is_some() {
        let old = view.delayed.get(&index);
        let ignored = old.is_some_and(|p| policy::judge(view.spec.pod_failure_policy.as_ref(), p) == Verdict::Ignore);
        let count = old.map_or(0, |p| failures_before(p) + i32::from(!ignored));
        annotations.insert(FAILURE_COUNT.into(), count.to_string());
        if ignored {
            let before = old.and_then(|p| p.metadata.annotations.as_ref()?.get(IGNORED_COUNT)?.parse::<i32>().ok()).unwrap_or(0);
            annotations.insert(IGNORED_COUNT.into(), (before + 1).to_string());
        }
    }
    if let Some(spec) = &mut new.spec {
        spec.hostname = Some(format!("{name}-{index}"));
        spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(add_index_variable);
    }
    new
}

fn add_index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|v| v.name == "JOB_COMPLETION_INDEX") {
        return;
    }
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..Default::default() };
    let source = EnvVarSource { field_ref: Some(field), ..Default::default() };
    variables.push(EnvVar { name: "JOB_COMPLETION_INDEX".into(), value: None, value_from: Some(source) });
}

/// What is said of a job that has ended.
pub(super) fn end_note(about: &ObjectReference, end: &JobCondition) -> Note {
    if end.type_ == "Complete" {
        return Note::normal(about, "Completed", "Job completed");
    }
    let reason = ["PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded", "MaxFailedIndexesExceeded", "FailedIndexes"];
    let reason = reason.into_iter().find(|r| end.reason.as_deref() == Some(r)).unwrap_or("Failed");
    Note::warning(about, reason, end.message.clone().unwrap_or_default())
}
