use std::collections::HashMap;
use std::sync::Arc;

use super::node_info::NodeInfo;
use super::pod_info::Labels;

/// The cluster at one moment. Nodes are shared with the cache and copied there only when they change, so a snapshot costs one pointer per node.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub nodes: Vec<Arc<NodeInfo>>,
    pub by_name: Arc<HashMap<String, usize>>,
    pub namespaces: Arc<HashMap<String, Labels>>,
}

impl Snapshot {
    pub fn new(nodes: Vec<Arc<NodeInfo>>, namespaces: Arc<HashMap<String, Labels>>) -> Self {
        Snapshot { by_name: Arc::new(Snapshot::places(&nodes)), nodes, namespaces }
    }

    pub(super) fn places(nodes: &[Arc<NodeInfo>]) -> HashMap<String, usize> {
        nodes.iter().enumerate().map(|(at, n)| (n.name().to_owned(), at)).collect()
    }

    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.nodes.get(*self.by_name.get(name)?)
    }

    /// The same moment with one node changed.
    pub fn with(&self, at: usize, node: Arc<NodeInfo>) -> Snapshot {
        let mut changed = self.clone();
        changed.nodes[at] = node;
        changed
    }

    pub fn namespace_labels(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace)
    }
}
