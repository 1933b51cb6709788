//! A pod that no job counts must not be held by the finalizer: its job is gone, or it was released.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use tiphys_client::{Action, Informer, ObjectKey, Patch, Plan, Planner, WorkQueue, controller_of};
use tiphys_types::api::batch::v1::Job;
use tiphys_types::api::core::v1::Pod;

use super::{FINALIZER, chosen};
use crate::Context;

pub(super) fn start(context: &Context, jobs: &Informer<Job>, pods: &Informer<Pod>) {
    let queue = WorkQueue::new();
    let again = queue.clone();
    pods.on_change(move |delta| {
        if is_tracked(delta.object()) {
            again.add(ObjectKey::of(&**delta.object()));
        }
        true
    });
    let (again, pods_of) = (queue.clone(), pods.index_by_controller());
    jobs.on_change(move |delta| {
        if let tiphys_client::Delta::Deleted(job) = delta {
            pods_of.get(job.metadata.uid.as_deref().unwrap_or("")).iter().for_each(|p| again.add(ObjectKey::of(&**p)));
        }
        true
    });
    let executor = context.executor("job-controller").reading(jobs.clone()).reading(pods.clone());
    context.run("job-orphans", 1, queue, Orphans { jobs: jobs.clone(), pods: pods.clone() }, executor);
}

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

pub(super) fn untrack(pod: &Arc<Pod>) -> Action {
    let patch = json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
    Action::patch(&**pod, "", Patch::Strategic(patch)).or_settled()
}

struct Orphans {
    jobs: Informer<Job>,
    pods: Informer<Pod>,
}

impl Planner for Orphans {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = self.pods.by_key(key).filter(|p| is_tracked(p)) else { return plan };
        let counted = match controller_of(&pod.metadata) {
            Some(owner) if owner.kind == "Job" => {
                let job = self.jobs.get(&key.namespace, &owner.name);
                job.is_some_and(|j| j.metadata.uid.as_deref() == Some(&owner.uid) && !super::view::is_finished(&j))
            }
            Some(_) => false,
            // One that a job is about to adopt.
            None => self.jobs.list_namespace(&key.namespace).iter().any(|j| chosen(j).matches_map(pod.metadata.labels.as_ref())),
        };
        if !counted {
            plan.act(untrack(&pod));
        }
        plan
    }
}
