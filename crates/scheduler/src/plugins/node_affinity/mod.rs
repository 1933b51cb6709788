//! `nodeSelector` and node affinity: required terms filter, preferred ones score.

use std::collections::HashSet;
use std::sync::Arc;

use tiphys_types::api::core::v1::{NodeAffinity as Spec, NodeSelectorTerm, PreferredSchedulingTerm};
use tiphys_types::node_affinity;

use crate::framework::plugin::normalize_by_max;
use crate::framework::{ClusterEvent, CycleState, NodeInfo, Plugin, PodInfo, Point, PreFiltered, Refusal, Snapshot};

pub struct NodeAffinity;

fn spec(pod: &PodInfo) -> Option<&Spec> {
    pod.spec()?.affinity.as_ref()?.node_affinity.as_ref()
}

fn preferred(pod: &PodInfo) -> &[PreferredSchedulingTerm] {
    spec(pod).and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
}

/// The nodes that a term names by `metadata.name`, as DaemonSet pods do; None: it names none.
fn named(term: &NodeSelectorTerm) -> Option<HashSet<String>> {
    let fields = term.match_fields.iter().flatten().filter(|f| f.key == "metadata.name" && f.operator == "In");
    fields.map(|f| f.values.iter().flatten().cloned().collect::<HashSet<_>>()).reduce(|a, b| &a & &b)
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter, Point::Score]
    }

    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> Result<PreFiltered, Refusal> {
        let required = spec(pod).and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        if required.is_none() && pod.spec().is_none_or(|s| s.node_selector.as_ref().is_none_or(|m| m.is_empty())) {
            return Ok(PreFiltered::Skip);
        }
        // Only when every term names nodes can the others be left out (terms are alternatives).
        let terms = required.map_or(&[][..], |r| &r.node_selector_terms);
        let names: Option<Vec<_>> = terms.iter().map(named).collect();
        match names {
            Some(sets) if !sets.is_empty() => {
                let all: HashSet<String> = sets.into_iter().flatten().collect();
                if all.is_empty() {
                    return Err(Refusal::unresolvable(self.name(), "pod affinity terms conflict"));
                }
                Ok(PreFiltered::Only(all))
            }
            _ => Ok(PreFiltered::Ok),
        }
    }

    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        if node_affinity::required_matches(&pod.pod, &node.node) {
            return Ok(());
        }
        Err(Refusal::unresolvable(self.name(), "node(s) didn't match Pod's node affinity/selector"))
    }

    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot, _: &[Arc<NodeInfo>]) -> bool {
        !preferred(pod).is_empty()
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        node_affinity::preferred_score(preferred(pod), &node.node)
    }

    fn normalize(&self, _: &CycleState, _: &PodInfo, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        normalize_by_max(scores, false);
    }

    fn weight(&self) -> i64 {
        2
    }

    fn may_help(&self, event: &ClusterEvent, pod: &PodInfo) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => node_affinity::required_matches(&pod.pod, node),
            ClusterEvent::NodeUpdated { old, new } => {
                !node_affinity::required_matches(&pod.pod, old) && node_affinity::required_matches(&pod.pod, new)
            }
            ClusterEvent::PodChanged { .. } | ClusterEvent::Forced => true,
            _ => false,
        }
    }
}
