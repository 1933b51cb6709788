use std::collections::HashMap;
use std::sync::Arc;

use tiphys_types::api::core::v1::{Node, Taint};
use tiphys_types::resources;

use super::pod_info::{Labels, PodInfo};
use super::resources::Resources;

/// A node with its pods and their sums.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    pub node: Arc<Node>,
    pub allocatable: Resources,
    pub pods: Vec<Arc<PodInfo>>,
    pub requested: Resources,
    /// CPU and memory as scores count them.
    pub scored_requested: (i64, i64),
    /// How many of the pods have any inter-pod affinity, and required anti-affinity.
    pub with_affinity: usize,
    pub with_anti_affinity: usize,
    /// Bytes by image name.
    pub images: Arc<HashMap<String, i64>>,
}

impl NodeInfo {
    pub fn new(node: Arc<Node>) -> Self {
        let mut info = NodeInfo {
            node: Arc::clone(&node),
            allocatable: Resources::default(),
            pods: Vec::new(),
            requested: Resources::default(),
            scored_requested: (0, 0),
            with_affinity: 0,
            with_anti_affinity: 0,
            images: Arc::default(),
        };
        info.set_node(node);
        info
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        self.allocatable = Resources::from_list(&resources::list(status.and_then(|s| s.allocatable.as_ref())));
        let images = status.into_iter().flat_map(|s| s.images.iter().flatten());
        let sizes = images.flat_map(|i| i.names.iter().flatten().map(|name| (name.clone(), i.size_bytes.unwrap_or(0))));
        self.images = Arc::new(sizes.collect());
        self.node = node;
    }

    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or("")
    }

    pub fn labels(&self) -> Option<&Labels> {
        self.node.metadata.labels.as_ref()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key).map(String::as_str)
    }

    pub fn taints(&self) -> &[Taint] {
        self.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
    }

    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored_requested.0 += pod.scored_requests.0;
        self.scored_requested.1 += pod.scored_requests.1;
        self.with_affinity += usize::from(pod.has_affinity());
        self.with_anti_affinity += usize::from(!pod.required_anti_affinity.is_empty());
        self.pods.push(pod);
    }

    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|p| p.uid() == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.scored_requested.0 -= pod.scored_requests.0;
        self.scored_requested.1 -= pod.scored_requests.1;
        self.with_affinity -= usize::from(pod.has_affinity());
        self.with_anti_affinity -= usize::from(!pod.required_anti_affinity.is_empty());
        Some(pod)
    }
}
