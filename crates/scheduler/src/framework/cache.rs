use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tiphys_types::api::core::v1::{Namespace, Node};

use super::node_info::NodeInfo;
use super::pod_info::{Labels, PodInfo};
use super::snapshot::Snapshot;

/// Nodes with the pods that stand on them, counting those that were decided but whose binding has not been seen yet.
#[derive(Default)]
pub struct Cache {
    nodes: BTreeMap<String, Arc<NodeInfo>>,
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
        let build = || Snapshot::new(self.nodes.values().cloned().collect(), Arc::clone(&self.namespaces));
        self.snapshot.get_or_insert_with(build).clone()
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        self.snapshot = None;
        let name = node.metadata.name.clone().unwrap_or_default();
        match self.nodes.get_mut(&name) {
            Some(info) => Arc::make_mut(info).set_node(node),
            None => {
                let mut info = NodeInfo::new(node);
                for pod in self.homeless.remove(&name).unwrap_or_default() {
                    info.add_pod(pod);
                }
                self.nodes.insert(name, Arc::new(info));
            }
        }
    }

    pub fn remove_node(&mut self, name: &str) {
        self.snapshot = None;
        if let Some(info) = self.nodes.remove(name).filter(|i| !i.pods.is_empty()) {
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
        if let Some(node) = self.nodes.get_mut(&counted.node) {
            Arc::make_mut(node).remove_pod(uid);
        } else if let Some(waiting) = self.homeless.get_mut(&counted.node) {
            waiting.retain(|p| p.uid() != uid);
        }
        Some(counted.info)
    }

    pub fn counts(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    fn place(&mut self, info: Arc<PodInfo>, assumed: bool) {
        self.remove_pod(info.uid());
        self.snapshot = None;
        let node = info.node_name().to_owned();
        match self.nodes.get_mut(&node) {
            Some(found) => Arc::make_mut(found).add_pod(Arc::clone(&info)),
            None => self.homeless.entry(node.clone()).or_default().push(Arc::clone(&info)),
        }
        self.pods.insert(info.uid().to_owned(), Counted { node, info, assumed });
    }
}
