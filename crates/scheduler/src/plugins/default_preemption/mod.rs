//! Makes room for a pod by removing pods of lower priority, as few and as unimportant as can be: on each node where it might help, all lower
//! ones are taken off, then given back one by one, those protected by a disruption budget first, as long as the pod still fits. The best node
//! is then chosen. Pure: the driver deletes the victims.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use tiphys_types::api::policy::v1::PodDisruptionBudget;
use tiphys_types::jiff::Timestamp;
use tiphys_types::{pods, selector};

use crate::framework::cycle::{self, Nominated};
use crate::framework::{Code, CycleState, NodeInfo, PodInfo, Profile, Refusal, Snapshot, Unfit};

pub struct Preemption {
    pub node: String,
    pub victims: Vec<Arc<PodInfo>>,
}

struct Candidate {
    node: usize,
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Upstream's minCandidateNodesPercentage and minCandidateNodesAbsolute.
const CANDIDATE_PERCENT: usize = 10;
const MIN_CANDIDATES: usize = 100;

pub struct World<'a> {
    pub profile: &'a Profile,
    pub snapshot: &'a Snapshot,
    pub nominated: &'a Nominated,
    pub budgets: &'a [Arc<PodDisruptionBudget>],
    /// Where to begin among the nodes.
    pub start: usize,
}

/// Or the sentence that is added to the pod's message.
pub fn find(world: &World<'_>, pod: &PodInfo, unfit: &Unfit) -> Result<Preemption, String> {
    eligible(world, pod, unfit)?;
    let mut nodes: Vec<usize> = cycle::resolvable(unfit).collect();
    if !nodes.is_empty() {
        let start = world.start % nodes.len();
        nodes.rotate_left(start);
    }
    let enough = (nodes.len() * CANDIDATE_PERCENT / 100).max(MIN_CANDIDATES);
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut refused = Unfit { total: world.snapshot.nodes.len(), ..Unfit::default() };
    for node in nodes {
        match victims_on(world, pod, node) {
            Ok(candidate) => candidates.push(candidate),
            Err(refusal) => refused.nodes.push((node, refusal)),
        }
        if candidates.len() >= enough && candidates.iter().any(|c| c.violations == 0) {
            break;
        }
    }
    match choose(candidates) {
        Some(best) => Ok(Preemption { node: world.snapshot.nodes[best.node].name().to_owned(), victims: best.victims }),
        None => {
            let unasked = refused.total - refused.nodes.len();
            if unasked > 0 {
                refused.ruled_out = Some((unasked, Refusal::unresolvable("", "Preemption is not helpful for scheduling")));
            }
            Err(format!("preemption: {}", refused.message()))
        }
    }
}

fn eligible(world: &World<'_>, pod: &PodInfo, unfit: &Unfit) -> Result<(), String> {
    if pod.spec().and_then(|s| s.preemption_policy.as_deref()) == Some("Never") {
        return Err("preemption: not eligible due to preemptionPolicy=Never.".into());
    }
    let Some(at) = world.snapshot.by_name.get(pod.nominated_node()) else { return Ok(()) };
    let hopeless = unfit.nodes.iter().any(|(n, r)| n == at && r.code == Code::Unresolvable);
    let leaving = |p: &Arc<PodInfo>| p.priority() < pod.priority() && is_being_preempted(p);
    if !hopeless && world.snapshot.nodes[*at].pods.iter().any(leaving) {
        return Err("preemption: not eligible due to a terminating pod on the nominated node.".into());
    }
    Ok(())
}

fn is_being_preempted(pod: &PodInfo) -> bool {
    let condition = pod.pod.status.as_ref().and_then(|s| pods::condition(s, pods::DISRUPTION_TARGET));
    pod.pod.metadata.deletion_timestamp.is_some()
        && condition.is_some_and(|c| c.status == "True" && c.reason.as_deref() == Some("PreemptionByScheduler"))
}

fn victims_on(world: &World<'_>, pod: &PodInfo, at: usize) -> Result<Candidate, Refusal> {
    let mut node = NodeInfo::clone(&world.snapshot.nodes[at]);
    let mut lower: Vec<Arc<PodInfo>> = node.pods.iter().filter(|p| p.priority() < pod.priority()).cloned().collect();
    if lower.is_empty() {
        return Err(Refusal::unresolvable("", "No preemption victims found for incoming pod"));
    }
    for victim in &lower {
        node.remove_pod(victim.uid());
    }
    fits(world, pod, at, &node)?;
    lower.sort_by_key(|p| importance(p));
    let (protected, free) = split_by_budgets(lower, world.budgets);
    let (mut victims, mut violations) = (Vec::new(), 0);
    for (candidate, is_protected) in protected.into_iter().map(|p| (p, true)).chain(free.into_iter().map(|p| (p, false))) {
        node.add_pod(Arc::clone(&candidate));
        if fits(world, pod, at, &node).is_err() {
            node.remove_pod(candidate.uid());
            victims.push(candidate);
            violations += usize::from(is_protected);
        }
    }
    if victims.is_empty() {
        return Err(Refusal::error("", format!("expected at least one victim pod on node {:?}", node.name())));
    }
    victims.sort_by_key(|p| importance(p));
    Ok(Candidate { node: at, victims, violations })
}

fn fits(world: &World<'_>, pod: &PodInfo, at: usize, node: &NodeInfo) -> Result<(), Refusal> {
    let changed = world.snapshot.with(at, Arc::new(node.clone()));
    let mut state = CycleState::default();
    cycle::pre_filter(world.profile, &mut state, &changed, pod)?;
    cycle::fits(world.profile, &state, &changed, pod, at, world.nominated)
}

fn started(pod: &PodInfo) -> Timestamp {
    pod.pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(Timestamp::MAX, |t| t.0)
}

/// Most important first: by priority, then by age.
fn importance(pod: &PodInfo) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority()), started(pod))
}

/// Those whose removal would break a budget, given that all before them are removed too, and the others.
fn split_by_budgets(pods: Vec<Arc<PodInfo>>, budgets: &[Arc<PodDisruptionBudget>]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut allowed: BTreeMap<usize, i32> = BTreeMap::new();
    pods.into_iter().partition(|pod| {
        let mut violated = false;
        for (at, budget) in budgets.iter().enumerate().filter(|(_, b)| covers(b, pod)) {
            let left = allowed.entry(at).or_insert_with(|| budget.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0));
            *left -= 1;
            violated |= *left < 0;
        }
        violated
    })
}

fn covers(budget: &PodDisruptionBudget, pod: &PodInfo) -> bool {
    let labels = pod.pod.metadata.labels.as_ref().filter(|l| !l.is_empty());
    let known = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref()).is_some_and(|d| d.contains_key(pod.name()));
    if labels.is_none() || known || budget.metadata.namespace != pod.pod.metadata.namespace {
        return false;
    }
    let chosen = selector::from_typed(budget.spec.as_ref().and_then(|s| s.selector.as_ref()));
    chosen.is_ok_and(|s| !s.is_everything() && s.matches_map(labels))
}

/// Fewest budgets broken; then the least important of the most important victims; then the lowest sum of priorities; then the fewest victims;
/// then those whose most important victim started last; then the first.
fn choose(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().min_by_key(|c| {
        let highest = c.victims.first().map_or(0, |v| v.priority());
        let sum: i64 = c.victims.iter().map(|v| i64::from(v.priority()) + i64::from(i32::MAX) + 1).sum();
        let earliest = c.victims.iter().filter(|v| v.priority() == highest).map(|v| started(v)).min().unwrap_or(Timestamp::MAX);
        (c.violations, highest, sum, c.victims.len(), Reverse(earliest))
    })
}
