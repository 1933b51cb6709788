//! Taking new versions of a pod: other resources are given only when the node has them (KEP-1287).

use super::{Stage, Worker};
use crate::admission;
use crate::pod::spec;
use crate::resources;
use std::sync::Arc;
use tiphys_types::api::core::v1::{Container, Pod, PodCondition};

impl Worker {
    /// Takes a new version of the pod; other resources only if the node has them to give.
    pub(super) fn allocate(&mut self, wanted: Arc<Pod>) {
        let before = self.pending.take();
        self.wanted = None;
        let kept = if self.stage == Stage::Running && !spec::is_deleted(&wanted) {
            resources::with_resources_of(&wanted, &self.pod)
        } else {
            None
        };
        let Some(kept) = kept else {
            self.pod = wanted;
            return;
        };
        let generation = spec::generation(&wanted);
        match admission::resize(&self.agent, &wanted) {
            Ok(()) => {
                self.agent.events.normal(&wanted, None, "ResizeStarted", &resize_message("Pod resize started", &wanted));
                self.pod = wanted;
            }
            Err(refusal) => {
                let condition = PodCondition {
                    type_: "PodResizePending".into(),
                    status: "True".into(),
                    reason: Some(refusal.reason.clone()),
                    message: Some(refusal.message),
                    observed_generation: generation,
                    ..PodCondition::default()
                };
                if before.and_then(|b| b.reason).as_deref() != Some(&refusal.reason) {
                    let (reason, words) = (format!("Resize{}", refusal.reason), format!("Pod resize {}", refusal.reason));
                    self.agent.events.warning(&wanted, None, &reason, &resize_message(&words, &wanted));
                }
                self.pending = Some(condition);
                self.pod = Arc::new(kept);
                self.wanted = Some(wanted);
            }
        }
    }
}

/// Upstream's words for events of resizes: a summary as JSON.
fn resize_message(words: &str, pod: &Pod) -> String {
    let one = |c: &Container| serde_json::json!({"name": c.name, "resources": c.resources});
    let containers: Vec<_> = spec::containers(pod).iter().map(one).collect();
    let summary = serde_json::json!({"containers": containers, "generation": spec::generation(pod)});
    format!("{words}: {summary}")
}
