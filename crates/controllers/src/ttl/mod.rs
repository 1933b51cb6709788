//! Tells kubelets for how many seconds they may keep Secrets and ConfigMaps before asking again: longer in larger clusters.
//!
//! Watches Nodes; writes their annotation `node.alpha.kubernetes.io/ttl`.

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tiphys_client::{Action, Informer, Patch, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::Node;

use crate::Context;
use crate::shared::nodes;

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// From and to how many nodes a step holds, and its seconds. The steps overlap, so that a cluster at a border does not go back and forth.
const STEPS: [(usize, usize, u32); 6] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, 10_000, 300), (9000, usize::MAX, 600)];

pub(crate) fn start(context: &Context) {
    let all = context.informers.of::<Node>();
    let queue = WorkQueue::new();
    nodes::each(&all, &queue);
    let executor = context.executor("ttl-controller").reading(all.clone());
    context.run("ttl-controller", 1, queue, Ttl { nodes: all, step: Mutex::new(0) }, executor);
}

struct Ttl {
    nodes: Informer<Node>,
    step: Mutex<usize>,
}

/// The step for this many nodes, coming from another.
fn next(mut step: usize, nodes: usize) -> usize {
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    step
}

impl Planner for Ttl {
    type Key = String;

    fn plan(&self, name: &String, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = self.nodes.get("", name).filter(|n| n.metadata.deletion_timestamp.is_none()) else { return plan };
        let seconds = {
            let mut step = self.step.lock();
            *step = next(*step, self.nodes.len());
            STEPS[*step].2
        };
        let said = node.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION)).and_then(|v| v.parse::<u32>().ok());
        if said != Some(seconds) {
            let patch = json!({"metadata": {"uid": node.metadata.uid, "annotations": {ANNOTATION: seconds.to_string()}}});
            plan.act(Action::patch(&*node, "", Patch::Merge(patch)).or_settled());
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_client::gvr_of;

    use super::*;
    use crate::shared::test::Rig;

    #[test]
    fn steps_overlap() {
        for (from, nodes, to) in [(0, 100, 0), (0, 101, 1), (1, 95, 1), (1, 89, 0), (0, 5000, 4), (5, 8999, 4), (5, 10, 0)] {
            assert_eq!(next(from, nodes), to, "{nodes} nodes from step {from}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_node_is_told() {
        let rig = Rig::start(&[start]);
        rig.api.insert(&gvr_of::<Node>(), json!({"metadata": {"name": "n"}}));
        rig.settles().await;
        let node = rig.api.get(&gvr_of::<Node>(), "", "n").unwrap_or_default();
        assert_eq!(node["metadata"]["annotations"][ANNOTATION], "0");
    }
}
