//! A pod that was marked as about to be disrupted, and then was not: after two minutes the mark is taken back (KEP-3329).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tiphys_client::{Action, Delta, Informer, ObjectKey, Patch, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::Pod;
use tiphys_types::metav1::Time;
use tiphys_types::pods;

use crate::Context;

const STALE: SignedDuration = SignedDuration::from_secs(120);

pub(super) fn start(context: &Context) {
    let pods = context.informers.of::<Pod>();
    let queue = WorkQueue::new();
    let again = queue.clone();
    pods.on_change(move |delta| {
        let pod = delta.object();
        if !matches!(delta, Delta::Deleted(_)) && is_marked(pod) {
            again.add(ObjectKey::of(&**pod));
        }
        true
    });
    let executor = context.executor("disruption-controller").reading(pods.clone());
    context.run("disruption-controller", 1, queue, Marks { pods }, executor);
}

struct Marks {
    pods: Informer<Pod>,
}

/// The kubelet's own marks stay: it may take long until such a pod is deleted.
fn is_marked(pod: &Pod) -> bool {
    let condition = pod.status.as_ref().and_then(|s| pods::condition(s, pods::DISRUPTION_TARGET));
    let marked = condition.is_some_and(|c| c.status == "True" && c.reason.as_deref() != Some("TerminationByKubelet"));
    marked && !pods::is_terminating(pod) && !pods::is_terminal(pod)
}

impl Planner for Marks {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = self.pods.by_key(key).filter(|p| is_marked(p)) else { return plan };
        let since =
            pod.status.as_ref().and_then(|s| pods::condition(s, pods::DISRUPTION_TARGET)).and_then(|c| c.last_transition_time.clone());
        let left = since.map_or(SignedDuration::ZERO, |t| t.0.duration_since(now) + STALE);
        if left.is_positive() {
            plan.again_after(left.unsigned_abs() + Duration::from_millis(10));
            return plan;
        }
        let condition = json!({
            "type": pods::DISRUPTION_TARGET, "status": "False", "reason": null, "message": null, "lastTransitionTime": Time(now),
            "observedGeneration": pod.metadata.generation,
        });
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        plan.act(Action::patch(&*pod, "status", Patch::Strategic(patch)).or_settled());
        plan
    }
}
