//! Topology spread constraints: `DoNotSchedule` ones filter by skew, `ScheduleAnyway` ones score.
//!
//! A pod without constraints gets upstream's system defaults (spread over hosts and zones, soft) among its companions (`defaults.rs`).

mod defaults;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tiphys_meta::LabelSelector;
use tiphys_types::api::core::v1::TopologySpreadConstraint;
use tiphys_types::taints::{self, NO_EXECUTE, NO_SCHEDULE};
use tiphys_types::{node_affinity, selector};

use crate::framework::plugin::MAX_SCORE;
use crate::framework::{ClusterEvent, CycleState, NodeInfo, Plugin, PodInfo, Point, PreFiltered, Refusal, Snapshot};

pub use defaults::Companions;

pub struct PodTopologySpread {
    companions: Companions,
}

const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

struct Constraint {
    max_skew: i64,
    key: String,
    /// Which pods count.
    selector: LabelSelector,
    min_domains: usize,
    honor_affinity: bool,
    honor_taints: bool,
}

struct Hard {
    constraints: Vec<Constraint>,
    /// Per constraint: matching pods by the key's value.
    found: Vec<HashMap<String, i64>>,
}

struct Soft {
    constraints: Vec<Constraint>,
    found: Vec<HashMap<String, i64>>,
    weights: Vec<f64>,
    ignored: HashSet<String>,
}

impl Constraint {
    fn read(spec: &TopologySpreadConstraint, pod: &PodInfo) -> Option<Self> {
        let mut chosen = selector::from_typed(spec.label_selector.as_ref()).ok()?;
        let own = pod.pod.metadata.labels.as_ref();
        let keys = spec.match_label_keys.iter().flatten().filter_map(|k| Some((k.as_str(), own?.get(k)?.as_str())));
        if let (LabelSelector::Requirements(mut more), LabelSelector::Requirements(own)) = (LabelSelector::from_labels(keys), &chosen)
            && !more.is_empty()
        {
            more.extend_from_slice(own);
            chosen = LabelSelector::from_requirements(more);
        }
        Some(Constraint {
            max_skew: spec.max_skew.into(),
            key: spec.topology_key.clone(),
            selector: chosen,
            min_domains: usize::try_from(spec.min_domains.unwrap_or(1)).unwrap_or(1),
            honor_affinity: spec.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: spec.node_taints_policy.as_deref() == Some("Honor"),
        })
    }

    fn counts_pod(&self, pod: &PodInfo) -> bool {
        !self.selector.is_everything() && self.selector.matches_map(pod.pod.metadata.labels.as_ref())
    }

    fn count(&self, node: &NodeInfo, namespace: &str) -> i64 {
        let here = node.pods.iter().filter(|p| p.pod.metadata.deletion_timestamp.is_none() && p.namespace() == namespace);
        here.filter(|p| self.counts_pod(p)).count() as i64
    }

    fn includes(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        (!self.honor_affinity || node_affinity::required_matches(&pod.pod, &node.node))
            && (!self.honor_taints || taints::untolerated(node.taints(), pod.tolerations(), &[NO_SCHEDULE, NO_EXECUTE]).is_none())
    }
}

fn constraints(pod: &PodInfo, action: &str) -> Vec<Constraint> {
    let all = pod.spec().and_then(|s| s.topology_spread_constraints.as_deref()).unwrap_or_default();
    all.iter().filter(|c| c.when_unsatisfiable == action).filter_map(|c| Constraint::read(c, pod)).collect()
}

fn has_own(pod: &PodInfo) -> bool {
    pod.spec().is_some_and(|s| s.topology_spread_constraints.as_ref().is_some_and(|c| !c.is_empty()))
}

fn system_defaults(selector: Option<LabelSelector>) -> Vec<Constraint> {
    let Some(selector) = selector else { return Vec::new() };
    let soft = |key: &str, max_skew| Constraint {
        max_skew,
        key: key.to_owned(),
        selector: selector.clone(),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    };
    vec![soft(HOSTNAME, 3), soft(ZONE, 5)]
}

fn has_all_keys(constraints: &[Constraint], node: &NodeInfo) -> bool {
    constraints.iter().all(|c| node.label(&c.key).is_some())
}

impl PodTopologySpread {
    pub fn new(companions: Companions) -> Self {
        PodTopologySpread { companions }
    }
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter, Point::Score]
    }

    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot) -> Result<PreFiltered, Refusal> {
        let constraints = constraints(pod, "DoNotSchedule");
        if constraints.is_empty() {
            return Ok(PreFiltered::Skip);
        }
        let mut found = vec![HashMap::new(); constraints.len()];
        for node in snapshot.nodes.iter().filter(|n| has_all_keys(&constraints, n)) {
            for (constraint, found) in constraints.iter().zip(&mut found) {
                if constraint.includes(pod, node) {
                    let value = node.label(&constraint.key).unwrap_or("").to_owned();
                    *found.entry(value).or_insert(0) += constraint.count(node, pod.namespace());
                }
            }
        }
        state.put(Hard { constraints, found });
        Ok(PreFiltered::Ok)
    }

    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let Some(hard) = state.get::<Hard>() else { return Ok(()) };
        for (constraint, found) in hard.constraints.iter().zip(&hard.found) {
            let Some(value) = node.label(&constraint.key) else { return Err(Refusal::unresolvable(self.name(), NO_LABEL)) };
            let least = if found.len() < constraint.min_domains { 0 } else { found.values().copied().min().unwrap_or(i64::from(i32::MAX)) };
            let here = found.get(value).copied().unwrap_or(0) + i64::from(constraint.counts_pod(pod));
            if here - least > constraint.max_skew {
                return Err(Refusal::unschedulable(self.name(), MISMATCH));
            }
        }
        Ok(())
    }

    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot, nodes: &[Arc<NodeInfo>]) -> bool {
        let own = has_own(pod);
        let constraints = if own { constraints(pod, "ScheduleAnyway") } else { system_defaults(self.companions.selector(pod)) };
        if constraints.is_empty() {
            return false;
        }
        state.put(soft(constraints, own, pod, snapshot, nodes));
        true
    }

    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(soft) = state.get::<Soft>().filter(|s| !s.ignored.contains(node.name())) else { return 0 };
        let mut score = 0.0;
        for (at, constraint) in soft.constraints.iter().enumerate() {
            let Some(value) = node.label(&constraint.key) else { continue };
            let count = if constraint.key == HOSTNAME {
                constraint.count(node, pod.namespace())
            } else {
                soft.found[at].get(value).copied().unwrap_or(0)
            };
            score += count as f64 * soft.weights[at] + (constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, state: &CycleState, _: &PodInfo, nodes: &[Arc<NodeInfo>], scores: &mut [i64]) {
        let Some(soft) = state.get::<Soft>() else { return };
        let ignored: Vec<bool> = nodes.iter().map(|n| soft.ignored.contains(n.name())).collect();
        let counted = || scores.iter().zip(&ignored).filter(|(_, ignored)| !**ignored).map(|(s, _)| *s);
        let (low, high) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
        for (score, ignored) in scores.iter_mut().zip(&ignored) {
            *score = match (ignored, high) {
                (true, _) => 0,
                (false, 0) => MAX_SCORE,
                (false, _) => MAX_SCORE * (high + low - *score) / high,
            };
        }
    }

    fn weight(&self) -> i64 {
        2
    }

    fn may_help(&self, event: &ClusterEvent, pod: &PodInfo) -> bool {
        match event {
            ClusterEvent::AssignedPodAdded(other) | ClusterEvent::AssignedPodDeleted(other) => other.namespace() == pod.namespace(),
            ClusterEvent::AssignedPodUpdated { new, .. } => new.namespace() == pod.namespace(),
            ClusterEvent::NodeUpdated { old, new } => old.metadata.labels != new.metadata.labels || old.spec != new.spec,
            ClusterEvent::NodeAdded(_) | ClusterEvent::PodChanged { .. } | ClusterEvent::Forced => true,
            ClusterEvent::StorageChanged | ClusterEvent::NamespaceChanged => false,
        }
    }
}

fn soft(constraints: Vec<Constraint>, own: bool, pod: &PodInfo, snapshot: &Snapshot, nodes: &[Arc<NodeInfo>]) -> Soft {
    let ignored: HashSet<String> = nodes.iter().filter(|n| own && !has_all_keys(&constraints, n)).map(|n| n.name().to_owned()).collect();
    let scored = || nodes.iter().filter(|n| !ignored.contains(n.name()));
    let mut found: Vec<HashMap<String, i64>> = Vec::new();
    for constraint in &constraints {
        let values = scored().filter(|_| constraint.key != HOSTNAME).map(|n| (n.label(&constraint.key).unwrap_or("").to_owned(), 0));
        found.push(values.collect());
    }
    let sizes = constraints.iter().zip(&found).map(|(c, f)| if c.key == HOSTNAME { scored().count() } else { f.len() });
    let weights = sizes.map(|size| (size as f64 + 2.0).ln()).collect();
    for node in snapshot.nodes.iter().filter(|n| !own || has_all_keys(&constraints, n)) {
        for (constraint, found) in constraints.iter().zip(&mut found) {
            if let Some(count) = found.get_mut(node.label(&constraint.key).unwrap_or(""))
                && constraint.includes(pod, node)
            {
                *count += constraint.count(node, pod.namespace());
            }
        }
    }
    Soft { constraints, found, weights, ignored }
}
