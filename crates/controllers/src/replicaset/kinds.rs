use tiphys_client::Kube;
use tiphys_meta::LabelSelector;
use tiphys_types::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use tiphys_types::api::core::v1::{PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};
use tiphys_types::metav1::{OwnerReference, Time};
use tiphys_types::owners::controller_reference;
use tiphys_types::selector;

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
        let old = self.status.clone().unwrap_or_default();
        let kept = old.conditions.into_iter().flatten();
        let old_failure = kept.clone().find(|c| c.type_ == "ReplicaFailure");
        let mut conditions: Vec<_> = kept.filter(|c| c.type_ != "ReplicaFailure").collect();
        conditions.extend(failure.map(|f| {
            // The condition keeps its time while it holds, so that a retry is not a change.
            old_failure.filter(|c| c.status == "True" && c.reason.as_deref() == Some(f.reason)).unwrap_or(ReplicaSetCondition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                reason: Some(f.reason.into()),
                message: Some(f.message),
                last_transition_time: Some(f.since),
            })
        }));
        let status = ReplicaSetStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: some(counts.labeled),
            ready_replicas: some(counts.ready),
            available_replicas: some(counts.available),
            terminating_replicas: Some(counts.terminating),
            observed_generation: self.metadata.generation,
            conditions: Some(conditions).filter(|c| !c.is_empty()),
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
        let old = self.status.clone().unwrap_or_default();
        let kept = old.conditions.into_iter().flatten();
        let old_failure = kept.clone().find(|c| c.type_ == "ReplicaFailure");
        let mut conditions: Vec<_> = kept.filter(|c| c.type_ != "ReplicaFailure").collect();
        conditions.extend(failure.map(|f| {
            old_failure.filter(|c| c.status == "True" && c.reason.as_deref() == Some(f.reason)).unwrap_or(ReplicationControllerCondition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                reason: Some(f.reason.into()),
                message: Some(f.message),
                last_transition_time: Some(f.since),
            })
        }));
        let status = ReplicationControllerStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: some(counts.labeled),
            ready_replicas: some(counts.ready),
            available_replicas: some(counts.available),
            observed_generation: self.metadata.generation,
            conditions: Some(conditions).filter(|c| !c.is_empty()),
        };
        ReplicationController { status: Some(status), ..self.clone() }
    }
}

/// Zeros are absent in the canonical form.
fn some(count: i32) -> Option<i32> {
    Some(count).filter(|c| *c != 0)
}
