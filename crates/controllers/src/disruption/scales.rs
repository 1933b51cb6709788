//! How many pods the owner of a pod means to have.

use std::sync::Arc;

use serde_json::Value;
use tiphys_client::{Client, Informer, Kube, Request, controller_of};
use tiphys_types::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use tiphys_types::api::core::v1::{Pod, ReplicationController};
use tiphys_types::metav1::OwnerReference;

use super::plan::Owner;
use crate::shared::discovery::Discovery;

pub(super) struct Scales {
    pub(super) sets: Informer<ReplicaSet>,
    pub(super) deployments: Informer<Deployment>,
    pub(super) stateful: Informer<StatefulSet>,
    pub(super) controllers: Informer<ReplicationController>,
    pub(super) client: Client,
    pub(super) discovery: Discovery,
}

impl Scales {
    /// `Owner::Unknown` where the owner is gone or no longer the same; an error text where it cannot be scaled at all.
    pub(super) async fn of(&self, pod: &Pod) -> Result<Owner, String> {
        let Some(owner) = controller_of(&pod.metadata) else { return Ok(Owner::None) };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let known = match (group, owner.kind.as_str()) {
            ("apps" | "extensions", "ReplicaSet") => self.of_replica_set(namespace, owner),
            ("apps", "StatefulSet") => by_reference(&self.stateful, namespace, owner)
                .map(|s| Owner::Scale { uid: owner.uid.clone(), replicas: s.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1) }),
            ("", "ReplicationController") => by_reference(&self.controllers, namespace, owner)
                .map(|c| Owner::Scale { uid: owner.uid.clone(), replicas: c.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1) }),
            _ => return self.of_any(namespace, owner).await,
        };
        Ok(known.unwrap_or(Owner::Unknown))
    }

    fn of_replica_set(&self, namespace: &str, owner: &OwnerReference) -> Option<Owner> {
        let set = by_reference(&self.sets, namespace, owner)?;
        match controller_of(&set.metadata).filter(|o| o.kind == "Deployment") {
            None => Some(Owner::Scale { uid: owner.uid.clone(), replicas: set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1) }),
            Some(above) => {
                let deployment = by_reference(&self.deployments, namespace, above)?;
                let replicas = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                Some(Owner::Scale { uid: above.uid.clone(), replicas })
            }
        }
    }

    async fn of_any(&self, namespace: &str, owner: &OwnerReference) -> Result<Owner, String> {
        let catalogue = self.discovery.catalogue().await.map_err(|e| e.to_string())?;
        let no_match = || format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version);
        let served = catalogue.kind(&owner.api_version, &owner.kind).ok_or_else(no_match)?;
        let path = served.gvr.path(namespace, &owner.name) + "/scale";
        let resource = if served.gvr.group.is_empty() {
            served.gvr.resource.to_string()
        } else {
            format!("{}.{}", served.gvr.resource, served.gvr.group)
        };
        let response = match self.client.raw(Request::get(path)).await {
            Ok(response) => response,
            Err(error) if error.is_not_found() => {
                // Either it is gone, or its kind cannot be scaled.
                let there = self.client.get_value(&served.gvr, namespace, &owner.name).await;
                return match there {
                    Ok(_) => Err(format!("{resource} does not implement the scale subresource")),
                    Err(_) => Ok(Owner::Unknown),
                };
            }
            Err(error) => return Err(error.to_string()),
        };
        let scale: Value = serde_json::from_slice(&response.body).map_err(|e| e.to_string())?;
        if scale["metadata"]["uid"].as_str() != Some(&owner.uid) {
            return Ok(Owner::Unknown);
        }
        let replicas = scale["spec"]["replicas"].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
        Ok(Owner::Scale { uid: owner.uid.clone(), replicas })
    }
}

fn by_reference<K: Kube>(informer: &Informer<K>, namespace: &str, owner: &OwnerReference) -> Option<Arc<K>> {
    informer.get(namespace, &owner.name).filter(|o| o.metadata().uid.as_ref() == Some(&owner.uid))
}
