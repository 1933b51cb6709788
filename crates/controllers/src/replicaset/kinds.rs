use tiphys_client::Kube;
use tiphys_meta::LabelSelector;
use tiphys_types::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use tiphys_types::api::core::v1::{PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};
use tiphys_types::metav1::{OwnerReference, Time};
use tiphys_types::owners::controller_reference;
use tiphys_types::selector;

const FAILURE: &str = "ReplicaFailure";

/// The numbers of a status, whichever kind it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) replicas: i32,
    pub(crate) labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) terminating: i32,
}

/// `ReplicaFailure`: reason and message.
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) since: Time,
}

pub(crate) trait Replicated: Kube + PartialEq {
    fn replicas(&self) -> i32;
    fn min_ready_seconds(&self) -> i32;
    /// A selector that cannot be read matches nothing.
    fn selector(&self) -> LabelSelector;
    fn template(&self) -> PodTemplateSpec;
    fn reference(&self) -> OwnerReference;
    /// The object with a new status.
    #[must_use]
    fn with_status(&self, counts: Counts, failure: Option<Failure>) -> Self;
}

/// The conditions without or with the failure. The types of the two kinds differ in their names alone.
macro_rules! conditions {
    ($condition:ident, $old:expr, $failure:expr) => {{
        let old: &[$condition] = $old;
        let mut next: Vec<$condition> = old.iter().filter(|c| c.type_ != FAILURE).cloned().collect();
        next.extend($failure.map(|f: Failure| {
            // The condition keeps its time while it holds, so that a retry is not a change.
            let held = old.iter().find(|c| c.type_ == FAILURE && c.status == "True" && c.reason.as_deref() == Some(f.reason));
            held.cloned().unwrap_or($condition {
                type_: FAILURE.into(),
                status: "True".into(),
                reason: Some(f.reason.into()),
                message: Some(f.message),
                last_transition_time: Some(f.since),
            })
        }));
        Some(next).filter(|c| !c.is_empty())
    }};
}

impl Replicated for ReplicaSet {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> LabelSelector {
        selector::from_typed(self.spec.as_ref().map(|s| &s.selector)).unwrap_or(LabelSelector::Nothing)
    }

    fn template(&self) -> PodTemplateSpec {
        self.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default()
    }

    fn reference(&self) -> OwnerReference {
        controller_reference::<ReplicaSet>(&self.metadata)
    }

    fn with_status(&self, counts: Counts, failure: Option<Failure>) -> Self {
        let old = self.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let conditions = conditions!(ReplicaSetCondition, old, failure);
        let status = ReplicaSetStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: some(counts.labeled),
            ready_replicas: some(counts.ready),
            available_replicas: some(counts.available),
            terminating_replicas: Some(counts.terminating),
            observed_generation: self.metadata.generation,
            conditions,
        };
        ReplicaSet { status: Some(status), ..self.clone() }
    }
}

impl Replicated for ReplicationController {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> LabelSelector {
        let labels = self.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty());
        labels.map_or(LabelSelector::Nothing, |l| LabelSelector::from_labels(l.iter().map(|(k, v)| (k.as_str(), v.as_str()))))
    }

    fn template(&self) -> PodTemplateSpec {
        self.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default()
    }

    fn reference(&self) -> OwnerReference {
        controller_reference::<ReplicationController>(&self.metadata)
    }

    fn with_status(&self, counts: Counts, failure: Option<Failure>) -> Self {
        let old = self.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let conditions = conditions!(ReplicationControllerCondition, old, failure);
        let status = ReplicationControllerStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: some(counts.labeled),
            ready_replicas: some(counts.ready),
            available_replicas: some(counts.available),
            observed_generation: self.metadata.generation,
            conditions,
        };
        ReplicationController { status: Some(status), ..self.clone() }
    }
}

/// Zeros are absent in the canonical form.
fn some(count: i32) -> Option<i32> {
    Some(count).filter(|c| *c != 0)
}
