//! Jobs run pods until enough of them have succeeded.
//!
//! Watches Jobs and Pods; owns the pods; writes pods and its own status. Each finished pod is counted once, though controllers die and pods vanish:
//! a pod carries a finalizer until its uid stands in `uncountedTerminatedPods`, and is counted when the finalizer is gone (KEP-2307).
//!
//! - `view.rs` a job with its pods sorted · `plan.rs` the decision · `track.rs` the counting · `policy.rs` `indexes.rs` · `orphans.rs` finalizers of
//!   pods whose job is gone

mod indexes;
mod orphans;
mod plan;
mod policy;
mod track;
mod view;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tiphys_client::{Informer, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_meta::LabelSelector;
use tiphys_types::api::batch::v1::Job;
use tiphys_types::api::core::v1::Pod;
use tiphys_types::owners::controller_reference;
use tiphys_types::{pods, selector};

use crate::Context;
use crate::shared::claim::Claim;
use crate::shared::watch::{self, PodsOf};
use view::{Failures, View};

const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

pub(crate) fn start(context: &Context) {
    let (jobs, pods) = (context.informers.of::<Job>(), context.informers.of::<Pod>());
    let queue = WorkQueue::new();
    watch::own(&jobs, &queue);
    watch::owned(&pods, "Job", &queue);
    watch::orphaned_pods(&pods, &jobs, &queue, chosen);
    orphans::start(context, &jobs, &pods);
    let executor = context.executor("job-controller").reading(jobs.clone()).reading(pods.clone());
    context.run("job-controller", 5, queue, Jobs { pods_of: PodsOf::new(&pods), jobs, failures: Mutex::default() }, executor);
}

fn chosen(job: &Job) -> LabelSelector {
    let selector = job.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.map_or(LabelSelector::Nothing, |s| selector::from_typed(Some(s)).unwrap_or(LabelSelector::Nothing))
}

struct Jobs {
    jobs: Informer<Job>,
    pods_of: PodsOf,
    /// By job: its recent failures, for the back-off.
    failures: Mutex<HashMap<ObjectKey, Failures>>,
}

impl Planner for Jobs {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(job) = self.jobs.by_key(key).filter(|j| !view::is_finished(j) && !is_foreign(j)) else {
            self.failures.lock().remove(key);
            return plan;
        };
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let selector = chosen(&job);
        let claim = Claim { owner: &job.metadata, reference: controller_reference::<Job>(&job.metadata), selector: &selector };
        let claimed = claim.sort(self.pods_of.candidates(&job.metadata), pods::is_active);
        plan.burst(claimed.actions);
        let mut failures = self.failures.lock();
        let failures = failures.entry(key.clone()).or_default();
        failures.see(&uid, &claimed.objects, now);
        let view = View::new(Arc::clone(&job), claimed.objects, now);
        plan::decide(&view, failures, &mut plan);
        plan
    }
}

/// Another controller's, by `spec.managedBy` (KEP-4368).
fn is_foreign(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|s| s.managed_by.as_deref());
    manager.is_some_and(|m| m != "kubernetes.io/job-controller")
}

#[cfg(test)]
mod tests;
