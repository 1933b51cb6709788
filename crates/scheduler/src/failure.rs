//! What becomes of a pod that was not placed: condition, event, back into the queue; and of the pods that must go for it.

use std::sync::Arc;

use serde_json::{Value, json};
use tiphys_client::{DeleteOptions, Patch};
use tiphys_types::api::core::v1::Pod;
use tiphys_types::metav1::Time;
use tiphys_types::pods;
use tokio::time::Instant;

use crate::driver::Scheduler;
use crate::framework::{Code, PodInfo, Refusal, Unfit};
use crate::plugins::default_preemption::Preemption;

impl Scheduler {
    pub(crate) fn unschedulable(self: &Arc<Self>, pod: &Arc<PodInfo>, unfit: &Unfit, preemption: Option<Preemption>) {
        let message = if unfit.total == 0 { "no nodes available to schedule pods".to_owned() } else { unfit.message() };
        let reason = if unfit.error().is_some() { "SchedulerError" } else { "Unschedulable" };
        self.queue.lock().refuse(pod.uid(), unfit.refused_by(), unfit.error().is_some(), Instant::now());
        let nominated = preemption.as_ref().map(|p| p.node.clone());
        if let Some(node) = &nominated {
            self.nominate(pod, node);
        }
        self.report(pod, reason, message, nominated, preemption);
        self.wake.notify_one();
    }

    /// An error, or a refusal after a node had been chosen.
    pub(crate) fn refused(self: &Arc<Self>, pod: &Arc<PodInfo>, refusal: &Refusal) {
        if self.pods.get(pod.namespace(), pod.name()).is_none_or(|p| !pods::node_name(&p).is_empty()) {
            self.queue.lock().remove(pod.uid());
            return;
        }
        let failed = refusal.code == Code::Error;
        let refused_by = if refusal.plugin.is_empty() { Vec::new() } else { vec![refusal.plugin] };
        self.queue.lock().refuse(pod.uid(), refused_by, failed, Instant::now());
        let reason = if failed { "SchedulerError" } else { "Unschedulable" };
        self.report(pod, reason, refusal.reasons.join(", "), None, None);
        self.wake.notify_one();
    }

    /// Room is kept before the API server knows of it, so that the next cycle does not give it away.
    fn nominate(&self, pod: &PodInfo, node: &str) {
        let mut named = Pod::clone(&pod.pod);
        named.status.get_or_insert_default().nominated_node_name = Some(node.to_owned());
        self.queue.lock().nominate(&Arc::new(PodInfo { pod: Arc::new(named), ..pod.clone() }));
    }

    fn report(
        self: &Arc<Self>,
        pod: &Arc<PodInfo>,
        reason: &'static str,
        message: String,
        node: Option<String>,
        preemption: Option<Preemption>,
    ) {
        self.recorder.warning(&*pod.pod, "FailedScheduling", message.clone());
        let (scheduler, pod) = (Arc::clone(self), Arc::clone(pod));
        self.tasks.spawn("report", async move {
            if let Some(patch) = scheduler.status_patch(&pod, reason, &message, node.as_deref()) {
                scheduler.patch_status(&pod, patch).await;
            }
            if let Some(preemption) = preemption {
                scheduler.preempt(&pod, preemption).await;
            }
        });
    }

    /// None where the status says so already.
    fn status_patch(&self, pod: &PodInfo, reason: &str, message: &str, node: Option<&str>) -> Option<Value> {
        let current = self.pods.get(pod.namespace(), pod.name())?;
        let old = current.status.as_ref().and_then(|s| pods::condition(s, pods::POD_SCHEDULED));
        let same = old.is_some_and(|c| c.status == "False" && c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message));
        let nominated = current.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
        if same && node.is_none_or(|n| nominated == Some(n)) {
            return None;
        }
        let since = old.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
        let since = since.unwrap_or_else(|| Time(self.config.clock.now()));
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastProbeTime": null, "lastTransitionTime": since, "observedGeneration": current.metadata.generation,
        });
        let mut status = json!({"conditions": [condition]});
        if let Some(node) = node {
            status["nominatedNodeName"] = json!(node);
        }
        Some(json!({"metadata": {"uid": pod.uid()}, "status": status}))
    }

    async fn patch_status(&self, pod: &PodInfo, patch: Value) {
        let patched = self.client.patch::<Pod>(pod.namespace(), pod.name(), "status", &Patch::Strategic(patch)).await;
        if let Err(error) = patched {
            tracing::debug!(pod = pod.name(), %error, "status not written");
        }
    }

    async fn preempt(&self, pod: &PodInfo, Preemption { node, victims }: Preemption) {
        self.clear_lower_nominations(pod, &node).await;
        for victim in victims {
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": format!("{}: preempting to accommodate a higher priority pod", self.config.scheduler_name),
                "lastTransitionTime": Time(self.config.clock.now()), "observedGeneration": victim.pod.metadata.generation,
            });
            self.patch_status(&victim, json!({"metadata": {"uid": victim.uid()}, "status": {"conditions": [condition]}})).await;
            let options = DeleteOptions::default().only_uid(victim.uid());
            match self.client.delete::<Pod>(victim.namespace(), victim.name(), &options).await {
                Ok(_) => {
                    self.recorder.normal(&*victim.pod, "Preempted", format!("Preempted by pod {} on node {node}", pod.uid()));
                }
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => tracing::warn!(victim = victim.name(), %error, "cannot preempt"),
            }
        }
    }

    /// Pods of lower priority that wait for the same node look for another.
    async fn clear_lower_nominations(&self, pod: &PodInfo, node: &str) {
        let lower: Vec<Arc<PodInfo>> = {
            let mut queue = self.queue.lock();
            let waiting = queue.nominated().get(node).cloned().unwrap_or_default();
            let lower: Vec<_> = waiting.into_iter().filter(|p| p.priority() < pod.priority()).collect();
            lower.iter().for_each(|p| queue.unnominate(p.uid()));
            lower
        };
        for waiting in lower {
            self.patch_status(&waiting, json!({"status": {"nominatedNodeName": null}})).await;
        }
    }
}
