use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;
use tiphys_client::{Client, ClientError, DeleteOptions, Partial, Patch, Propagation, Reconcile, ReconcileError, WorkQueue};
use tiphys_types::metav1::{ObjectMeta, OwnerReference};

use super::graph::{FOREGROUND, Graph, ORPHAN, Object};
use crate::shared::discovery::{Catalogue, Discovery};

pub(super) struct Collector {
    pub(super) client: Client,
    pub(super) discovery: Discovery,
    pub(super) graph: Arc<Mutex<Graph>>,
    pub(super) queue: WorkQueue<String>,
}

/// What an owner reference points to, by the API server's word.
enum Owner {
    /// There, and staying (or leaving without waiting for dependents).
    Solid,
    /// Being deleted in the foreground: waits for this dependent.
    Waiting,
    Absent,
}

#[async_trait]
impl Reconcile for Collector {
    type Key = String;

    async fn reconcile(&self, uid: &String) -> Result<Option<Duration>, ReconcileError> {
        let Some(object) = self.graph.lock().get(uid) else { return Ok(None) };
        let live: Partial = match self.client.get_as(&object.gvr, &object.namespace, &object.name).await {
            Ok(live) => live,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if live.metadata.uid.as_deref() != Some(uid) {
            return Ok(None);
        }
        if live.metadata.deletion_timestamp.is_some() {
            self.see_off(uid, &object, &live.metadata).await?;
        } else {
            self.check_owners(uid, &object, &live.metadata).await?;
        }
        Ok(None)
    }
}

fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == name)
}

impl Collector {
    /// An object that is being deleted and waits for us.
    async fn see_off(&self, uid: &str, object: &Object, meta: &ObjectMeta) -> Result<(), ClientError> {
        if has_finalizer(meta, ORPHAN) {
            let dependents = self.graph.lock().dependents_of(uid);
            for dependent in dependents {
                self.orphan(&dependent, uid).await?;
            }
            return self.remove_finalizer(object, meta, ORPHAN).await;
        }
        if has_finalizer(meta, FOREGROUND) {
            let blocking = self.graph.lock().blocking(uid);
            if blocking.is_empty() {
                return self.remove_finalizer(object, meta, FOREGROUND).await;
            }
            for dependent in blocking {
                let leaving = self.graph.lock().get(&dependent).is_none_or(|d| d.is_foreground());
                if !leaving {
                    self.queue.add(dependent);
                }
            }
        }
        Ok(())
    }

    async fn check_owners(&self, uid: &str, object: &Object, meta: &ObjectMeta) -> Result<(), ClientError> {
        let references = meta.owner_references.as_deref().unwrap_or_default();
        if references.is_empty() {
            return Ok(());
        }
        let catalogue = self.discovery.catalogue().await?;
        let (mut solid, mut waiting, mut absent) = (0, Vec::new(), Vec::new());
        for reference in references {
            match self.owner(&catalogue, object, reference).await? {
                Owner::Solid => solid += 1,
                Owner::Waiting => waiting.push(reference.uid.clone()),
                Owner::Absent => absent.push(reference.uid.clone()),
            }
        }
        if solid > 0 {
            absent.extend(waiting);
            return if absent.is_empty() { Ok(()) } else { self.drop_references(object, meta, &absent).await };
        }
        let has_dependents = !self.graph.lock().dependents_of(uid).is_empty();
        let policy = if has_finalizer(meta, ORPHAN) {
            Propagation::Orphan
        } else if has_finalizer(meta, FOREGROUND) || (!waiting.is_empty() && has_dependents) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        if policy == Propagation::Foreground && !waiting.is_empty() && self.closes_a_circle(uid) {
            // A dependent that waits in the foreground itself waits, in the end, for this very object: it must not block any more.
            self.unblock(object, meta).await?;
            let options = DeleteOptions { propagation_policy: Some(policy), ..Default::default() }.only_uid(uid);
            return ignore_gone(self.client.delete_value(&object.gvr, &object.namespace, &object.name, &options).await);
        }
        self.delete(uid, object, meta, policy).await
    }

    fn closes_a_circle(&self, uid: &str) -> bool {
        let graph = self.graph.lock();
        graph.dependents_of(uid).iter().any(|d| graph.get(d).is_some_and(|d| d.is_foreground()))
    }

    async fn unblock(&self, object: &Object, meta: &ObjectMeta) -> Result<(), ClientError> {
        let mut references = meta.owner_references.clone().unwrap_or_default();
        references.iter_mut().for_each(|r| r.block_owner_deletion = Some(false));
        self.patch_meta(object, meta, json!({"ownerReferences": references})).await
    }

    async fn owner(&self, catalogue: &Catalogue, object: &Object, reference: &OwnerReference) -> Result<Owner, ClientError> {
        let Some(served) = catalogue.kind(&reference.api_version, &reference.kind) else {
            // A kind that is not served now may be served again (its definition is being replaced): nothing is deleted on such grounds.
            self.discovery.forget().await;
            tracing::debug!(kind = reference.kind, "an owner of a kind that is not served");
            return Ok(Owner::Solid);
        };
        if served.namespaced && object.namespace.is_empty() {
            tracing::warn!(object = object.name, owner = reference.name, "a cluster-wide object cannot be owned by a namespaced one");
            return Ok(Owner::Solid);
        }
        let namespace = if served.namespaced { object.namespace.as_str() } else { "" };
        match self.client.get_as::<Partial>(&served.gvr, namespace, &reference.name).await {
            Ok(owner) if owner.metadata.uid.as_deref() != Some(&reference.uid) => Ok(Owner::Absent),
            Ok(owner) if owner.metadata.deletion_timestamp.is_some() && has_finalizer(&owner.metadata, FOREGROUND) => Ok(Owner::Waiting),
            Ok(_) => Ok(Owner::Solid),
            Err(error) if error.is_not_found() => Ok(Owner::Absent),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, uid: &str, object: &Object, meta: &ObjectMeta, policy: Propagation) -> Result<(), ClientError> {
        // The version too: owners may have been given to it since it was read.
        let options = DeleteOptions { propagation_policy: Some(policy), ..Default::default() }
            .only_uid(uid)
            .only_version(meta.resource_version.clone().unwrap_or_default());
        ignore_gone(self.client.delete_value(&object.gvr, &object.namespace, &object.name, &options).await)
    }

    async fn orphan(&self, dependent: &str, owner: &str) -> Result<(), ClientError> {
        let Some(object) = self.graph.lock().get(dependent) else { return Ok(()) };
        let live: Partial = match self.client.get_as(&object.gvr, &object.namespace, &object.name).await {
            Ok(live) => live,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        if !live.metadata.owner_references.iter().flatten().any(|r| r.uid == owner) {
            return Ok(());
        }
        self.drop_references(&object, &live.metadata, &[owner.to_owned()]).await
    }

    async fn drop_references(&self, object: &Object, meta: &ObjectMeta, uids: &[String]) -> Result<(), ClientError> {
        let left: Vec<_> = meta.owner_references.iter().flatten().filter(|r| !uids.contains(&r.uid)).collect();
        let left = if left.is_empty() { serde_json::Value::Null } else { json!(left) };
        self.patch_meta(object, meta, json!({"ownerReferences": left})).await
    }

    async fn remove_finalizer(&self, object: &Object, meta: &ObjectMeta, name: &str) -> Result<(), ClientError> {
        let left: Vec<_> = meta.finalizers.iter().flatten().filter(|f| *f != name).collect();
        let left = if left.is_empty() { serde_json::Value::Null } else { json!(left) };
        self.patch_meta(object, meta, json!({"finalizers": left})).await
    }

    /// Merge patches replace lists, so each carries the version that it was made from.
    async fn patch_meta(&self, object: &Object, meta: &ObjectMeta, mut change: serde_json::Value) -> Result<(), ClientError> {
        change["resourceVersion"] = json!(meta.resource_version);
        change["uid"] = json!(meta.uid);
        let patch = Patch::Merge(json!({"metadata": change}));
        match self.client.patch_value(&object.gvr, &object.namespace, &object.name, "", &patch).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn ignore_gone(outcome: Result<serde_json::Value, ClientError>) -> Result<(), ClientError> {
    match outcome {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}
