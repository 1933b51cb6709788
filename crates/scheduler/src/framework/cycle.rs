//! The scheduling cycle, pure: a pod and a snapshot in, a node or the reasons out.

use std::collections::HashSet;
use std::sync::Arc;

use super::cycle_state::CycleState;
use super::node_info::NodeInfo;
use super::plugin::{Code, Point, PreFiltered, Refusal};
use super::pod_info::PodInfo;
use super::profile::Profile;
use super::snapshot::Snapshot;
use super::unfit::Unfit;

/// Pods that preemption made room for, by the node's name: lower or equal ones must not take that room.
pub type Nominated = std::collections::HashMap<String, Vec<Arc<PodInfo>>>;

pub struct Decision {
    pub node: String,
    /// How many nodes were looked at: the next search begins behind them.
    pub examined: usize,
    pub state: CycleState,
}

/// What varies from cycle to cycle without being part of the cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turn {
    /// Where to begin among the nodes, so that large clusters are searched evenly.
    pub start: usize,
    /// Chooses among nodes of equal score.
    pub tie: u64,
}

/// Below this every node is looked at; above, a falling share (upstream's adaptive percentageOfNodesToScore).
const MIN_NODES_TO_FIND: usize = 100;

pub fn schedule(profile: &Profile, snapshot: &Snapshot, pod: &PodInfo, nominated: &Nominated, turn: Turn) -> Result<Decision, Box<Unfit>> {
    let mut unfit = Unfit { total: snapshot.nodes.len(), ..Unfit::default() };
    let mut state = CycleState::default();
    let only = match pre_filter(profile, &mut state, snapshot, pod) {
        Ok(only) => only,
        Err(refusal) => {
            unfit.pre_filter = Some(refusal);
            return Err(Box::new(unfit));
        }
    };
    if let Some(node) = nominated_node_fits(profile, &state, snapshot, pod, nominated) {
        return Ok(Decision { node, state, examined: 0 });
    }
    let feasible = find(profile, &state, snapshot, pod, nominated, turn, only.as_ref(), &mut unfit);
    let node = match feasible.as_slice() {
        [] => return Err(Box::new(unfit)),
        [one] => one.name().to_owned(),
        many => best(profile, &mut state, snapshot, pod, many, turn.tie),
    };
    let examined = feasible.len() + unfit.nodes.len() + unfit.ruled_out.as_ref().map_or(0, |(n, _)| *n);
    Ok(Decision { node, state, examined })
}

/// A pod whose victims are gone is tried on its nominated node first.
fn nominated_node_fits(profile: &Profile, state: &CycleState, snapshot: &Snapshot, pod: &PodInfo, nominated: &Nominated) -> Option<String> {
    let at = *snapshot.by_name.get(pod.nominated_node())?;
    fits(profile, state, snapshot, pod, at, nominated).is_ok().then(|| pod.nominated_node().to_owned())
}

#[expect(clippy::too_many_arguments, reason = "the cycle's whole view, used once")]
fn find(
    profile: &Profile,
    state: &CycleState,
    snapshot: &Snapshot,
    pod: &PodInfo,
    nominated: &Nominated,
    turn: Turn,
    only: Option<&Ruled>,
    unfit: &mut Unfit,
) -> Vec<Arc<NodeInfo>> {
    let total = snapshot.nodes.len();
    let wanted = nodes_to_find(total);
    let mut feasible = Vec::new();
    let mut ruled_out = 0;
    for at in (0..total).map(|n| (n + turn.start) % total) {
        let node = &snapshot.nodes[at];
        if only.is_some_and(|ruled| !ruled.names.contains(node.name())) {
            ruled_out += 1;
            continue;
        }
        match fits(profile, state, snapshot, pod, at, nominated) {
            Ok(()) => feasible.push(Arc::clone(node)),
            Err(refusal) => unfit.nodes.push((at, refusal)),
        }
        if feasible.len() >= wanted {
            break;
        }
    }
    if let (Some(ruled), 1..) = (only, ruled_out) {
        let reason = format!("node(s) didn't satisfy plugin(s) [{}]", ruled.plugins.join(" "));
        unfit.ruled_out = Some((ruled_out, Refusal::unresolvable(ruled.plugins[0], reason)));
    }
    feasible
}

fn nodes_to_find(total: usize) -> usize {
    if total <= MIN_NODES_TO_FIND {
        return total;
    }
    let percent = 50usize.saturating_sub(total / 125).max(5);
    (total * percent / 100).max(MIN_NODES_TO_FIND)
}

/// Nodes that PreFilter left, and whose doing it was.
pub struct Ruled {
    names: HashSet<String>,
    plugins: Vec<&'static str>,
}

pub fn pre_filter(profile: &Profile, state: &mut CycleState, snapshot: &Snapshot, pod: &PodInfo) -> Result<Option<Ruled>, Refusal> {
    state.skip_filter = vec![false; profile.plugins.len()];
    let mut ruled: Option<Ruled> = None;
    for (at, plugin) in profile.at(Point::PreFilter) {
        match plugin.pre_filter(state, pod, snapshot)? {
            PreFiltered::Ok => {}
            PreFiltered::Skip => state.skip_filter[at] = true,
            PreFiltered::Only(names) => {
                let both = match ruled {
                    None => Ruled { names, plugins: vec![plugin.name()] },
                    Some(mut so_far) => {
                        so_far.names.retain(|n| names.contains(n));
                        so_far.plugins.push(plugin.name());
                        so_far
                    }
                };
                if both.names.is_empty() {
                    let names = both.plugins.join(" ");
                    let reason = format!("node(s) didn't satisfy plugin(s) {names} simultaneously");
                    return Err(Refusal::unresolvable(plugin.name(), reason));
                }
                ruled = Some(both);
            }
        }
    }
    Ok(ruled)
}

/// All filters on one node; with pods nominated to it, both with and without them (they may never come, and affinity may count on them).
pub fn fits(
    profile: &Profile,
    state: &CycleState,
    snapshot: &Snapshot,
    pod: &PodInfo,
    at: usize,
    nominated: &Nominated,
) -> Result<(), Refusal> {
    let node = &snapshot.nodes[at];
    let coming = nominated.get(node.name()).map_or(&[][..], Vec::as_slice);
    let coming: Vec<_> = coming.iter().filter(|p| p.priority() >= pod.priority() && p.uid() != pod.uid()).collect();
    if !coming.is_empty() {
        let mut fuller = NodeInfo::clone(node);
        for pod in coming {
            fuller.add_pod(Arc::clone(pod));
        }
        let changed = snapshot.with(at, Arc::new(fuller));
        let mut state = CycleState::default();
        pre_filter(profile, &mut state, &changed, pod)?;
        filter(profile, &state, pod, &changed.nodes[at])?;
    }
    filter(profile, state, pod, node)
}

pub fn filter(profile: &Profile, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
    for (at, plugin) in profile.at(Point::Filter) {
        if !state.skip_filter[at] {
            plugin.filter(state, pod, node)?;
        }
    }
    Ok(())
}

fn best(profile: &Profile, state: &mut CycleState, snapshot: &Snapshot, pod: &PodInfo, nodes: &[Arc<NodeInfo>], tie: u64) -> String {
    let totals = scores(profile, state, snapshot, pod, nodes);
    let highest = totals.iter().copied().max().unwrap_or(0);
    let top: Vec<usize> = (0..nodes.len()).filter(|at| totals[*at] == highest).collect();
    nodes[top[(tie % top.len() as u64) as usize]].name().to_owned()
}

/// The weighted sum of all scores, by node.
pub fn scores(profile: &Profile, state: &mut CycleState, snapshot: &Snapshot, pod: &PodInfo, nodes: &[Arc<NodeInfo>]) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    for (_, plugin) in profile.at(Point::Score) {
        if !plugin.pre_score(state, pod, snapshot, nodes) {
            continue;
        }
        let mut own: Vec<i64> = nodes.iter().map(|node| plugin.score(state, pod, node)).collect();
        plugin.normalize(state, pod, nodes, &mut own);
        for (total, score) in totals.iter_mut().zip(own) {
            *total += score * plugin.weight();
        }
    }
    totals
}

/// Nodes where removing pods might help.
pub fn resolvable(unfit: &Unfit) -> impl Iterator<Item = usize> {
    unfit.nodes.iter().filter(|(_, r)| r.code == Code::Unschedulable).map(|(at, _)| *at)
}
