//! Which pods a pod without constraints of its own is spread among: those that its Services and its controller select.

use std::sync::Arc;

use tiphys_client::{Informer, Informers, controller_of};
use tiphys_meta::LabelSelector;
use tiphys_meta::selector::Requirement;
use tiphys_types::api::apps::v1::{ReplicaSet, StatefulSet};
use tiphys_types::api::core::v1::{ReplicationController, Service};
use tiphys_types::{selector, services};

use crate::framework::PodInfo;

#[derive(Clone)]
pub struct Companions {
    services: Informer<Service>,
    controllers: Informer<ReplicationController>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
}

impl Companions {
    pub fn new(informers: &Informers) -> Self {
        Companions { services: informers.of(), controllers: informers.of(), replica_sets: informers.of(), stateful_sets: informers.of() }
    }

    pub async fn synced(&self) {
        tokio::join!(self.services.synced(), self.controllers.synced(), self.replica_sets.synced(), self.stateful_sets.synced());
    }

    /// None where nobody selects the pod.
    pub(super) fn selector(&self, pod: &PodInfo) -> Option<LabelSelector> {
        let mut all = Vec::new();
        for service in self.services.list_namespace(pod.namespace()).iter().filter(|s| services::selects(s, &pod.pod)) {
            let labels = service.spec.iter().flat_map(|s| s.selector.iter().flatten());
            add(&mut all, &LabelSelector::from_labels(labels.map(|(k, v)| (k.as_str(), v.as_str()))));
        }
        if let Some(own) = self.of_controller(pod) {
            add(&mut all, &own);
        }
        (!all.is_empty()).then(|| LabelSelector::from_requirements(all))
    }

    fn of_controller(&self, pod: &PodInfo) -> Option<LabelSelector> {
        let owner = controller_of(&pod.pod.metadata)?;
        let namespace = pod.namespace();
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let set: Arc<ReplicaSet> = self.replica_sets.get(namespace, &owner.name)?;
                selector::from_typed(set.spec.as_ref().map(|s| &s.selector)).ok()
            }
            "StatefulSet" => {
                let set: Arc<StatefulSet> = self.stateful_sets.get(namespace, &owner.name)?;
                selector::from_typed(set.spec.as_ref().map(|s| &s.selector)).ok()
            }
            "ReplicationController" => {
                let controller = self.controllers.get(namespace, &owner.name)?;
                let labels = controller.spec.as_ref()?.selector.as_ref()?;
                Some(LabelSelector::from_labels(labels.iter().map(|(k, v)| (k.as_str(), v.as_str()))))
            }
            _ => None,
        }
    }
}

fn add(all: &mut Vec<Requirement>, more: &LabelSelector) {
    if let LabelSelector::Requirements(more) = more {
        all.extend_from_slice(more);
    }
}
