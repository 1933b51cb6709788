use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use tiphys_types::api::core::v1::Node;

use super::cycle_state::CycleState;
use super::node_info::NodeInfo;
use super::pod_info::PodInfo;
use super::snapshot::Snapshot;

pub const MAX_SCORE: i64 = 100;

/// Why a pod cannot go on (to a node, or at all).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// In upstream's words: clients and the e2e suite match on them.
    pub reasons: Vec<Cow<'static, str>>,
    pub plugin: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Unschedulable,
    /// Removing pods would not help.
    Unresolvable,
    /// Something went wrong: the pod is tried again after its back-off, without waiting for an event.
    Error,
}

impl Refusal {
    pub fn unschedulable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Refusal { code: Code::Unschedulable, reasons: vec![reason.into()], plugin }
    }

    pub fn unresolvable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Refusal { code: Code::Unresolvable, reasons: vec![reason.into()], plugin }
    }

    pub fn error(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Refusal { code: Code::Error, reasons: vec![reason.into()], plugin }
    }
}

/// What PreFilter found.
pub enum PreFiltered {
    Ok,
    /// Nothing to filter for this pod: the plugin's Filter is not called.
    Skip,
    /// Only these nodes can do.
    Only(HashSet<String>),
}

/// The extension points that a plugin takes part in (KEP-624).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    PreEnqueue,
    PreFilter,
    Filter,
    PostFilter,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
    PostBind,
}

/// A change of the cluster that may let a waiting pod be scheduled.
#[derive(Debug, Clone)]
pub enum ClusterEvent {
    NodeAdded(Arc<Node>),
    NodeUpdated {
        old: Arc<Node>,
        new: Arc<Node>,
    },
    /// A pod came to stand on a node, or one that stands there changed its labels.
    AssignedPodAdded(Arc<PodInfo>),
    AssignedPodUpdated {
        old: Arc<PodInfo>,
        new: Arc<PodInfo>,
    },
    AssignedPodDeleted(Arc<PodInfo>),
    /// Claims, volumes, storage classes, CSI nodes.
    StorageChanged,
    NamespaceChanged,
    /// The waiting pod itself changed.
    PodChanged {
        old: Arc<PodInfo>,
        new: Arc<PodInfo>,
    },
    /// Asked for by the queue itself, after a long time without any event.
    Forced,
}

/// One rule or preference of scheduling. Up to Permit everything is pure; only binding talks to the API server.
#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn points(&self) -> &'static [Point];

    /// Keeps a pod out of the active queue.
    fn pre_enqueue(&self, _pod: &PodInfo) -> Result<(), Refusal> {
        Ok(())
    }

    fn pre_filter(&self, _state: &mut CycleState, _pod: &PodInfo, _snapshot: &Snapshot) -> Result<PreFiltered, Refusal> {
        Ok(PreFiltered::Ok)
    }

    fn filter(&self, _state: &CycleState, _pod: &PodInfo, _node: &NodeInfo) -> Result<(), Refusal> {
        Ok(())
    }

    /// Prepares scoring; false: nothing to score for this pod. `nodes` are those that passed the filters.
    fn pre_score(&self, _state: &mut CycleState, _pod: &PodInfo, _snapshot: &Snapshot, _nodes: &[Arc<NodeInfo>]) -> bool {
        true
    }

    fn score(&self, _state: &CycleState, _pod: &PodInfo, _node: &NodeInfo) -> i64 {
        0
    }

    /// Brings the raw scores into 0..=100. `nodes` in the order of `scores`.
    fn normalize(&self, _state: &CycleState, _pod: &PodInfo, _nodes: &[Arc<NodeInfo>], _scores: &mut [i64]) {}

    fn weight(&self) -> i64 {
        1
    }

    fn reserve(&self, _state: &mut CycleState, _pod: &PodInfo, _node: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn unreserve(&self, _state: &CycleState, _pod: &PodInfo, _node: &str) {}

    fn permit(&self, _state: &CycleState, _pod: &PodInfo, _node: &str) -> Result<(), Refusal> {
        Ok(())
    }

    async fn pre_bind(&self, _state: &CycleState, _pod: &PodInfo, _node: &str) -> Result<(), Refusal> {
        Ok(())
    }

    /// True: bound, and no other Bind plugin is asked.
    async fn bind(&self, _pod: &PodInfo, _node: &str) -> Result<bool, Refusal> {
        Ok(false)
    }

    fn post_bind(&self, _state: &CycleState, _pod: &PodInfo, _node: &str) {}

    /// Whether this change may mend this plugin's refusal of the pod (KEP-4247). In doubt, yes.
    fn may_help(&self, _event: &ClusterEvent, _pod: &PodInfo) -> bool {
        true
    }
}

/// Scales raw scores to 0..=100 by the highest; `reverse` makes the lowest the best.
pub fn normalize_by_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
