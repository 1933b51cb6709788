use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use tiphys_types::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use tiphys_types::api::core::v1::Pod;
use tiphys_types::metav1::Time;
use tiphys_types::pods;

use super::indexes::{self, Indexes};
use super::orphans::is_tracked;
use super::policy::{self, Verdict};

const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";

pub(super) fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

pub(super) fn is_finished(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|s| condition(s, "Complete").or(condition(s, "Failed")).is_some())
}

pub(super) fn new_condition(kind: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()).filter(|r: &String| !r.is_empty()),
        message: Some(message.into()).filter(|m: &String| !m.is_empty()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// A job with its pods sorted.
pub(super) struct View {
    pub(super) job: Arc<Job>,
    pub(super) spec: JobSpec,
    pub(super) status: JobStatus,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) active: Vec<Arc<Pod>>,
    pub(super) uncounted: UncountedTerminatedPods,
    pub(super) now: Timestamp,
    /// Of an indexed job.
    pub(super) before: Indexes,
    pub(super) succeeded: Indexes,
    pub(super) failed: Indexes,
    /// Failed pods whose index is to be tried again: kept until their successor is there, for it takes over their count.
    pub(super) delayed: BTreeMap<i32, Arc<Pod>>,
}

impl View {
    pub(super) fn new(job: Arc<Job>, pods: Vec<Arc<Pod>>, now: Timestamp) -> Self {
        let (spec, status) = (job.spec.clone().unwrap_or_default(), job.status.clone().unwrap_or_default());
        let active = pods.iter().filter(|p| pods::is_active(p)).cloned().collect();
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let mut view = View {
            job,
            spec,
            status,
            pods,
            active,
            uncounted,
            now,
            before: Indexes::new(),
            succeeded: Indexes::new(),
            failed: Indexes::new(),
            delayed: BTreeMap::new(),
        };
        if view.is_indexed() {
            view.sort_indexes();
        }
        view
    }

    fn sort_indexes(&mut self) {
        let all = self.completions().unwrap_or(0);
        self.before = indexes::parse(self.status.completed_indexes.as_deref().unwrap_or(""), all);
        self.succeeded = self.before.clone();
        let done = self.pods.iter().filter(|p| pods::phase(p) == "Succeeded" && is_tracked(p)).filter_map(|p| indexes::of_pod(p));
        self.succeeded.extend(done.filter(|i| *i < all));
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        self.failed = indexes::parse(self.status.failed_indexes.as_deref().unwrap_or(""), all);
        let mut retry: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        let failed: Vec<Arc<Pod>> = self.pods.iter().filter(|p| is_tracked(p) && self.is_failed(p)).cloned().collect();
        for pod in &failed {
            let Some(index) = indexes::of_pod(pod).filter(|i| *i < all) else { continue };
            let verdict = policy::judge(self.spec.pod_failure_policy.as_ref(), pod);
            if self.succeeded.contains(&index) {
                continue;
            }
            if verdict == Verdict::FailIndex || (verdict != Verdict::Ignore && failures_before(pod) >= limit) {
                self.failed.insert(index);
            } else if retry.get(&index).is_none_or(|old| failures_before(old) <= failures_before(pod)) {
                retry.insert(index, Arc::clone(pod));
            }
        }
        retry.retain(|index, _| !self.failed.contains(index) && !self.active.iter().any(|p| indexes::of_pod(p) == Some(*index)));
        self.delayed = retry;
    }

    pub(super) fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    pub(super) fn completions(&self) -> Option<i32> {
        self.spec.completions
    }

    pub(super) fn parallelism(&self) -> i32 {
        self.spec.parallelism.unwrap_or(1)
    }

    /// Pods are replaced when they have failed, not already when they are going (KEP-3939).
    pub(super) fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed") || self.spec.pod_failure_policy.is_some()
    }

    pub(super) fn is_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pods::is_terminating(pod) && !self.replaces_failed_only(),
        }
    }

    pub(super) fn terminating(&self) -> i32 {
        self.pods.iter().filter(|p| pods::is_terminating(p) && !pods::is_terminal(p)).count() as i32
    }

    pub(super) fn ready(&self) -> i32 {
        self.active.iter().filter(|p| pods::is_ready(p)).count() as i32
    }

    fn is_uncounted(&self, pod: &Pod) -> bool {
        let uid = pod.metadata.uid.as_deref().unwrap_or("");
        self.uncounted.succeeded.iter().chain(&self.uncounted.failed).flatten().any(|u| u == uid)
    }

    /// All that have succeeded, whether counted already or not.
    pub(super) fn total_succeeded(&self) -> i32 {
        if self.is_indexed() {
            return self.succeeded.len() as i32;
        }
        let fresh = self.pods.iter().filter(|p| is_tracked(p) && pods::phase(p) == "Succeeded" && !self.is_uncounted(p)).count();
        self.status.succeeded.unwrap_or(0) + (fresh + self.uncounted.succeeded.as_ref().map_or(0, Vec::len)) as i32
    }

    pub(super) fn total_failed(&self) -> i32 {
        let fresh = self.pods.iter().filter(|p| is_tracked(p) && self.is_failed(p) && !self.is_uncounted(p));
        let counted = fresh.filter(|p| policy::judge(self.spec.pod_failure_policy.as_ref(), p) != Verdict::Ignore).count();
        self.status.failed.unwrap_or(0) + (counted + self.uncounted.failed.as_ref().map_or(0, Vec::len)) as i32
    }

    /// With `restartPolicy: OnFailure` restarts count towards the limit.
    pub(super) fn restarts_exceed(&self) -> bool {
        let template = self.spec.template.spec.as_ref();
        if template.and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let running = self.pods.iter().filter(|p| matches!(pods::phase(p), "Running" | "Pending"));
        let restarts: i32 = running
            .flat_map(|p| p.status.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten()))
            .map(|c| c.restart_count)
            .sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }
}

/// Failures of the index before this pod.
pub(super) fn failures_before(pod: &Pod) -> i32 {
    pod.metadata.annotations.as_ref().and_then(|a| a.get(FAILURE_COUNT)).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// When the pod's last container ended, as well as can be told.
pub(super) fn ended(pod: &Pod, now: Timestamp) -> Timestamp {
    let status = pod.status.as_ref();
    let containers = status.into_iter().flat_map(|s| s.container_statuses.iter().flatten());
    let finished = containers.filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()).max();
    let unready = status.and_then(|s| pods::condition(s, pods::READY)).and_then(|c| c.last_transition_time.as_ref());
    let meta = &pod.metadata;
    finished.or(unready).or(meta.deletion_timestamp.as_ref()).or(meta.creation_timestamp.as_ref()).map_or(now, |t| t.0)
}

/// Failures in a row, for the back-off between pods: 10 s, doubled up to 10 min.
#[derive(Default)]
pub(super) struct Failures {
    job: String,
    seen: HashSet<String>,
    count: u32,
    last: Option<Timestamp>,
}

const FIRST_BACKOFF: i64 = 10;
const LONGEST_BACKOFF: i64 = 600;

impl Failures {
    pub(super) fn see(&mut self, job: &str, pods: &[Arc<Pod>], now: Timestamp) {
        if self.job != job {
            *self = Failures { job: job.to_owned(), ..Failures::default() };
        }
        let mut fresh: Vec<&Arc<Pod>> = pods.iter().filter(|p| pods::is_terminal(p)).collect();
        fresh.retain(|p| self.seen.insert(p.metadata.uid.clone().unwrap_or_default()));
        fresh.sort_by_key(|p| ended(p, now));
        for pod in fresh {
            if pods::phase(pod) == "Succeeded" {
                (self.count, self.last) = (0, None);
            } else {
                (self.count, self.last) = (self.count + 1, Some(ended(pod, now)));
            }
        }
    }

    /// Seconds until the next pod may be made.
    pub(super) fn wait(&self, now: Timestamp) -> i64 {
        self.last.map_or(0, |last| left(self.count, last, now))
    }
}

pub(super) fn left(failures: u32, last: Timestamp, now: Timestamp) -> i64 {
    if failures == 0 {
        return 0;
    }
    let delay = FIRST_BACKOFF.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_BACKOFF);
    (last.as_second() + delay - now.as_second()).max(0)
}
