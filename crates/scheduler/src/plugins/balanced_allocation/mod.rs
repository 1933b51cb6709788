//! Prefers nodes where the pod brings the used shares of CPU and memory nearer to each other. Pods that request nothing are left out, or they
//! would all gather on one node.

use std::sync::Arc;

use crate::framework::plugin::MAX_SCORE;
use crate::framework::{CycleState, NodeInfo, Plugin, PodInfo, Point, Snapshot};

pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Score]
    }

    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot, _: &[Arc<NodeInfo>]) -> bool {
        pod.requests.milli_cpu > 0 || pod.requests.memory > 0
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let used = (node.requested.milli_cpu, node.requested.memory);
        let with = balance(node, used.0 + pod.requests.milli_cpu, used.1 + pod.requests.memory);
        let without = balance(node, used.0, used.1);
        // Both lie in 50..=100; the gain moves the middle of 75 up or down.
        MAX_SCORE / 2 + (MAX_SCORE / 2 + with - without) / 2
    }
}

/// 100 less the deviation of the used shares.
fn balance(node: &NodeInfo, milli_cpu: i64, memory: i64) -> i64 {
    let shares = [(milli_cpu, node.allocatable.milli_cpu), (memory, node.allocatable.memory)];
    let known: Vec<f64> = shares.iter().filter(|(_, has)| *has > 0).map(|(used, has)| (*used as f64 / *has as f64).min(1.0)).collect();
    let deviation = match known.as_slice() {
        [one, two] => ((one - two) / 2.0).abs(),
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}
