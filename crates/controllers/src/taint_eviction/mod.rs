//! Removes pods from nodes with NoExecute taints that they do not tolerate, or not for so long.
//!
//! Watches Pods and Nodes; writes the DisruptionTarget condition (KEP-3329) and deletes.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tiphys_client::{Action, Delta, Informer, Note, ObjectKey, Patch, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{Node, Pod, Taint, Toleration};
use tiphys_types::metav1::Time;
use tiphys_types::pods;
use tiphys_types::taints::{self, NO_EXECUTE};

use crate::Context;
use crate::shared::nodes;
use crate::shared::pod::about;

pub(crate) fn start(context: &Context) {
    let (pods, all) = (context.informers.of::<Pod>(), context.informers.of::<Node>());
    let queue = WorkQueue::new();
    let by_node = nodes::pods_by_node(&pods);
    let again = queue.clone();
    all.on_change(move |delta| {
        let changed = match delta {
            Delta::Updated { old, new } => nodes::taints(old) != nodes::taints(new),
            Delta::Added(node) => !nodes::taints(node).is_empty(),
            Delta::Deleted(_) => false,
        };
        if changed {
            let name = delta.object().metadata.name.as_deref().unwrap_or("");
            by_node.get(name).iter().for_each(|p| again.add(ObjectKey::of(&**p)));
        }
        true
    });
    let again = queue.clone();
    pods.on_change(move |delta| {
        let matters = match delta {
            Delta::Updated { old, new } => old.spec != new.spec,
            Delta::Added(_) | Delta::Deleted(_) => true,
        };
        if matters {
            again.add(ObjectKey::of(&**delta.object()));
        }
        true
    });
    let executor = context.executor("taint-eviction-controller").reading(pods.clone()).reading(all.clone());
    context.run("taint-eviction-controller", 4, queue, Evictions { pods, nodes: all, since: Mutex::default() }, executor);
}

struct Evictions {
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// By pod: since when its node's taints have been borne.
    since: Mutex<HashMap<ObjectKey, (String, Timestamp)>>,
}

impl Planner for Evictions {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let pod = self.pods.by_key(key).filter(|p| pods::is_active(p) && !pods::node_name(p).is_empty());
        let taints = pod.as_ref().and_then(|p| self.nodes.get("", pods::node_name(p))).map(|n| no_execute(&n)).unwrap_or_default();
        let (Some(pod), false) = (pod, taints.is_empty()) else {
            self.since.lock().remove(key);
            return plan;
        };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let since = {
            let mut since = self.since.lock();
            let entry = since.entry(key.clone()).or_insert_with(|| (uid.clone(), now));
            if entry.0 != uid {
                *entry = (uid, now);
            }
            entry.1
        };
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        match patience(&taints, tolerations) {
            Patience::Forever => {}
            Patience::None => evict(&pod, now, &mut plan),
            Patience::Seconds(seconds) => {
                let left = since.as_second() + seconds - now.as_second();
                if left <= 0 {
                    evict(&pod, now, &mut plan);
                } else {
                    plan.again_after(Duration::from_secs(left as u64));
                }
            }
        }
        plan
    }
}

fn no_execute(node: &std::sync::Arc<Node>) -> Vec<Taint> {
    nodes::taints(node).iter().filter(|t| t.effect == NO_EXECUTE).cloned().collect()
}

#[derive(Debug, PartialEq)]
enum Patience {
    None,
    Seconds(i64),
    Forever,
}

/// The shortest that any taint is tolerated for.
fn patience(taints: &[Taint], tolerations: &[Toleration]) -> Patience {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let Some(toleration) = tolerations.iter().find(|t| taints::tolerates(t, taint)) else { return Patience::None };
        if let Some(seconds) = toleration.toleration_seconds {
            shortest = Some(shortest.map_or(seconds, |s| s.min(seconds)));
        }
    }
    match shortest {
        Some(seconds) if seconds <= 0 => Patience::None,
        Some(seconds) => Patience::Seconds(seconds),
        None => Patience::Forever,
    }
}

fn evict(pod: &Pod, now: Timestamp, plan: &mut Plan) {
    let condition = json!({
        "type": pods::DISRUPTION_TARGET, "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(now), "observedGeneration": pod.metadata.generation,
    });
    let key = ObjectKey::of(pod);
    let marked = Note::normal(&about(pod), "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
    plan.act(Action::patch(pod, "status", Patch::Strategic(patch)).or_settled().say_when_done(marked));
    plan.act(Action::delete(pod));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_shortest_patience_counts() {
        let taint = |key: &str| Taint { key: key.into(), effect: NO_EXECUTE.into(), value: None, time_added: None };
        let bears = |key: &str, seconds: Option<i64>| -> Toleration {
            tiphys_testing::object(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}))
        };
        for (taints, tolerations, expected) in [
            (vec![taint("a")], vec![], Patience::None),
            (vec![taint("a")], vec![bears("a", None)], Patience::Forever),
            (vec![taint("a")], vec![bears("a", Some(0))], Patience::None),
            (vec![taint("a"), taint("b")], vec![bears("a", Some(60)), bears("b", Some(5))], Patience::Seconds(5)),
            (vec![taint("a"), taint("b")], vec![bears("a", Some(60))], Patience::None),
        ] {
            assert_eq!(patience(&taints, &tolerations), expected, "{taints:?} {tolerations:?}");
        }
    }
}
