//! Affinity and anti-affinity between pods. Anti-affinity holds both ways: a pod that is there may keep a new one away.

use std::collections::HashMap;
use std::sync::Arc;

use crate::framework::plugin::MAX_SCORE;
use crate::framework::{AffinityTerm, ClusterEvent, CycleState, NodeInfo, Plugin, PodInfo, Point, PreFiltered, Refusal, Snapshot};

pub struct InterPodAffinity;

/// How many by (topology key, value).
type Pairs = HashMap<(String, String), i64>;

struct Hard {
    existing_anti: Pairs,
    affinity: Pairs,
    anti: Pairs,
    /// The pod's own affinity terms all speak of the pod itself.
    wants_own_kind: bool,
}

struct Soft(Pairs);

fn count(pairs: &mut Pairs, node: &NodeInfo, key: &str, by: i64) {
    if let Some(value) = node.label(key) {
        *pairs.entry((key.to_owned(), value.to_owned())).or_insert(0) += by;
    }
}

fn matches(term: &AffinityTerm, pod: &PodInfo, snapshot: &Snapshot) -> bool {
    term.matches(&pod.pod, snapshot.namespace_labels(pod.namespace()))
}

fn hard(pod: &PodInfo, snapshot: &Snapshot) -> Hard {
    let wants_own_kind = pod.required_affinity.iter().all(|t| matches(t, pod, snapshot));
    let mut hard = Hard { existing_anti: Pairs::new(), affinity: Pairs::new(), anti: Pairs::new(), wants_own_kind };
    for node in snapshot.nodes.iter().filter(|n| n.with_anti_affinity > 0) {
        for term in node.pods.iter().flat_map(|p| &p.required_anti_affinity).filter(|t| matches(t, pod, snapshot)) {
            count(&mut hard.existing_anti, node, &term.topology_key, 1);
        }
    }
    if pod.required_affinity.is_empty() && pod.required_anti_affinity.is_empty() {
        return hard;
    }
    for node in &snapshot.nodes {
        for other in &node.pods {
            // Affinity wants pods that all terms speak of.
            if !pod.required_affinity.is_empty() && pod.required_affinity.iter().all(|t| matches(t, other, snapshot)) {
                for term in &pod.required_affinity {
                    count(&mut hard.affinity, node, &term.topology_key, 1);
                }
            }
            for term in pod.required_anti_affinity.iter().filter(|t| matches(t, other, snapshot)) {
                count(&mut hard.anti, node, &term.topology_key, 1);
            }
        }
    }
    hard
}

fn has(pairs: &Pairs, key: &str, value: &str) -> bool {
    pairs.get(&(key.to_owned(), value.to_owned())).is_some_and(|n| *n > 0)
}

fn affinity_holds(hard: &Hard, pod: &PodInfo, node: &NodeInfo) -> bool {
    let mut there = true;
    for term in &pod.required_affinity {
        let Some(value) = node.label(&term.topology_key) else { return false };
        there &= has(&hard.affinity, &term.topology_key, value);
    }
    // The first of a group that wants its own kind must be let in somewhere.
    there || (hard.affinity.is_empty() && hard.wants_own_kind)
}

fn anti_affinity_holds(hard: &Hard, pod: &PodInfo, node: &NodeInfo) -> bool {
    !pod.required_anti_affinity.iter().any(|t| node.label(&t.topology_key).is_some_and(|v| has(&hard.anti, &t.topology_key, v)))
}

fn others_allow(hard: &Hard, node: &NodeInfo) -> bool {
    hard.existing_anti.is_empty() || !node.labels().into_iter().flatten().any(|(k, v)| has(&hard.existing_anti, k, v))
}

fn weigh(pairs: &mut Pairs, node: &NodeInfo, pod: &PodInfo, other: &PodInfo, snapshot: &Snapshot) {
    // hardPodAffinityWeight 1, as upstream's default.
    let required = other.required_affinity.iter().map(|t| (1, t));
    let preferred = other.preferred_affinity.iter().map(|(w, t)| (*w, t));
    let avoided = other.preferred_anti_affinity.iter().map(|(w, t)| (-*w, t));
    for (weight, term) in required.chain(preferred).chain(avoided).filter(|(_, t)| matches(t, pod, snapshot)) {
        count(pairs, node, &term.topology_key, weight);
    }
    let own = pod.preferred_affinity.iter().map(|(w, t)| (*w, t)).chain(pod.preferred_anti_affinity.iter().map(|(w, t)| (-*w, t)));
    for (weight, term) in own.filter(|(_, t)| matches(t, other, snapshot)) {
        count(pairs, node, &term.topology_key, weight);
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter, Point::Score]
    }

    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot) -> Result<PreFiltered, Refusal> {
        let hard = hard(pod, snapshot);
        if hard.existing_anti.is_empty() && pod.required_affinity.is_empty() && pod.required_anti_affinity.is_empty() {
            return Ok(PreFiltered::Skip);
        }
        state.put(hard);
        Ok(PreFiltered::Ok)
    }

    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let Some(hard) = state.get::<Hard>() else { return Ok(()) };
        if !pod.required_affinity.is_empty() && !affinity_holds(hard, pod, node) {
            return Err(Refusal::unresolvable(self.name(), "node(s) didn't match pod affinity rules"));
        }
        if !anti_affinity_holds(hard, pod, node) {
            return Err(Refusal::unschedulable(self.name(), "node(s) didn't match pod anti-affinity rules"));
        }
        if !others_allow(hard, node) {
            return Err(Refusal::unschedulable(self.name(), "node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, _: &[Arc<NodeInfo>]) -> bool {
        let own = !(pod.preferred_affinity.is_empty() && pod.preferred_anti_affinity.is_empty());
        let mut pairs = Pairs::new();
        for node in snapshot.nodes.iter().filter(|n| own || n.with_affinity > 0) {
            for other in node.pods.iter().filter(|p| own || p.has_affinity()) {
                weigh(&mut pairs, node, pod, other, snapshot);
            }
        }
        let any = !pairs.is_empty();
        state.put(Soft(pairs));
        any
    }

    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Soft(pairs)) = state.get::<Soft>() else { return 0 };
        pairs.iter().filter(|((key, value), _)| node.label(key) == Some(value)).map(|(_, n)| n).sum()
    }

    fn normalize(&self, _: &CycleState, _: &PodInfo, _: &[Arc<NodeInfo>], scores: &mut [i64]) {
        let (low, high) = (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores {
            *score = if high > low { MAX_SCORE * (*score - low) / (high - low) } else { 0 };
        }
    }

    fn weight(&self) -> i64 {
        2
    }

    fn may_help(&self, event: &ClusterEvent, _: &PodInfo) -> bool {
        match event {
            ClusterEvent::NodeUpdated { old, new } => old.metadata.labels != new.metadata.labels,
            ClusterEvent::StorageChanged => false,
            _ => true,
        }
    }
}
