//! Nodes, their conditions and pods.

use std::sync::Arc;

use tiphys_client::{Index, Informer, WorkQueue};
use tiphys_types::api::core::v1::{Node, NodeCondition, Pod};
use tiphys_types::pods;

pub(crate) fn each(nodes: &Informer<Node>, queue: &WorkQueue<String>) {
    let queue = queue.clone();
    nodes.on_change(move |delta| {
        queue.add(delta.object().metadata.name.clone().unwrap_or_default());
        true
    });
}

pub(crate) fn pods_by_node(pods: &Informer<Pod>) -> Index<Pod> {
    pods.index("node", |pod: &Pod| Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty()).into_iter().collect())
}

pub(crate) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

pub(crate) fn taints(node: &Arc<Node>) -> &[tiphys_types::api::core::v1::Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}
