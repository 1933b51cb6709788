use std::sync::Arc;

use tiphys_client::controller_of;
use tiphys_types::api::apps::v1::{Deployment, ReplicaSet};
use tiphys_types::pods;

use super::Deployments;

pub(super) struct Observed {
    pub(super) deployment: Arc<Deployment>,
    /// ReplicaSets of the Deployment, and those of its namespace that belong to no one.
    pub(super) candidates: Vec<Arc<ReplicaSet>>,
    /// All in the namespace: names that are taken.
    pub(super) neighbours: Vec<Arc<ReplicaSet>>,
    /// By ReplicaSet uid: pods that are not finished.
    pub(super) unfinished_pods: Vec<(String, usize)>,
}

impl Deployments {
    pub(super) fn observe(&self, deployment: Arc<Deployment>) -> Observed {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
        let uid = deployment.metadata.uid.as_deref().unwrap_or("");
        let neighbours = self.sets.list_namespace(namespace);
        let mut candidates = self.sets_of.get(uid);
        candidates.extend(neighbours.iter().filter(|s| controller_of(&s.metadata).is_none()).cloned());
        let count = |uid: &str| self.pods_of.get(uid).iter().filter(|p| !pods::is_terminal(p)).count();
        let uids = candidates.iter().filter_map(|s| s.metadata.uid.clone());
        let unfinished_pods = uids.map(|uid| (uid.clone(), count(&uid))).collect();
        Observed { candidates, neighbours, unfinished_pods, deployment }
    }
}
