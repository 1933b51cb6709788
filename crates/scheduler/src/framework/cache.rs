use std::collections::HashMap;
use std::sync::Arc;

use tiphys_types::api::core::v1::{Namespace, Node};

use super::node_info::NodeInfo;
use super::pod_info::{Labels, PodInfo};
use super::snapshot::Snapshot;

/// Nodes with the pods that stand on them, counting those that were decided but whose binding has not been seen yet.
#[derive(Default)]
pub struct Cache {
    /// In order of their names.
    nodes: Vec<Arc<NodeInfo>>,
    /// Their places; made anew when a node comes or goes, which is rare beside pods.
    places: Option<Arc<HashMap<String, usize>>>,
    /// By uid: where the pod is counted.
    pods: HashMap<String, Counted>,
    /// Pods seen before their node.
    homeless: HashMap<String, Vec<Arc<PodInfo>>>,
    namespaces: Arc<HashMap<String, Labels>>,
    snapshot: Option<Snapshot>,
}

struct Counted {
    node: String,
    info: Arc<PodInfo>,
    assumed: bool,
}

impl Cache {
    pub fn snapshot(&mut self) -> Snapshot {
        let nodes = &self.nodes;
        let places = self.places.get_or_insert_with(|| Arc::new(Snapshot::places(nodes)));
        let build = || Snapshot { nodes: nodes.clone(), by_name: Arc::clone(places), namespaces: Arc::clone(&self.namespaces) };
        self.snapshot.get_or_insert_with(build).clone()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|n| n.name().cmp(name))
    }

    fn node_mut(&mut self, name: &str) -> Option<&mut NodeInfo> {
        let at = self.find(name).ok()?;
        self.nodes.get_mut(at).map(Arc::make_mut)
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        self.snapshot = None;
        let name = node.metadata.name.clone().unwrap_or_default();
        match self.find(&name) {
            Ok(at) => Arc::make_mut(&mut self.nodes[at]).set_node(node),
            Err(at) => {
                let mut info = NodeInfo::new(node);
                for pod in self.homeless.remove(&name).unwrap_or_default() {
                    info.add_pod(pod);
                }
                self.nodes.insert(at, Arc::new(info));
                self.places = None;
            }
        }
    }

    pub fn remove_node(&mut self, name: &str) {
        self.snapshot = None;
        let Ok(at) = self.find(name) else { return };
        let info = self.nodes.remove(at);
        self.places = None;
        if !info.pods.is_empty() {
            self.homeless.insert(name.to_owned(), info.pods.clone());
        }
    }

    pub fn set_namespace(&mut self, namespace: &Namespace) {
        self.snapshot = None;
        let name = namespace.metadata.name.clone().unwrap_or_default();
        Arc::make_mut(&mut self.namespaces).insert(name, namespace.metadata.labels.clone().unwrap_or_default());
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.snapshot = None;
        Arc::make_mut(&mut self.namespaces).remove(name);
    }

    /// Counts a pod on its node as the API server shows it: confirms an assumed one, or corrects it.
    pub fn set_pod(&mut self, info: Arc<PodInfo>) {
        self.place(info, false);
    }

    /// Counts a pod on the node that was chosen, before the API server knows.
    pub fn assume(&mut self, info: Arc<PodInfo>) {
        self.place(info, true);
    }

    /// Takes an assumed pod off again, unless the API server has shown it bound meanwhile.
    pub fn forget(&mut self, uid: &str) {
        if self.pods.get(uid).is_some_and(|c| c.assumed) {
            self.remove_pod(uid);
        }
    }

    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let counted = self.pods.remove(uid)?;
        self.snapshot = None;
        if let Some(node) = self.node_mut(&counted.node) {
            node.remove_pod(uid);
        } else if let Some(waiting) = self.homeless.get_mut(&counted.node) {
            waiting.retain(|p| p.uid() != uid);
        }
        Some(counted.info)
    }

    pub fn counts(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    pub fn has_node(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    fn place(&mut self, info: Arc<PodInfo>, assumed: bool) {
        self.remove_pod(info.uid());
        self.snapshot = None;
        let node = info.node_name().to_owned();
        match self.node_mut(&node) {
            Some(found) => found.add_pod(Arc::clone(&info)),
            None => self.homeless.entry(node.clone()).or_default().push(Arc::clone(&info)),
        }
        self.pods.insert(info.uid().to_owned(), Counted { node, info, assumed });
    }
}
