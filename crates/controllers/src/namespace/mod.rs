//! Empties a namespace that is being deleted, then lets it go.
//!
//! Watches Namespaces and Pods; deletes everything; writes the namespace's status and, at last, its finalizers. Pods go first and everything else
//! after the last of them (KEP-5080): what protects a pod (network policies) must outlive it. Conditions say what is left before each round ends.
//!
//! It asks the API server what there is rather than caches: a cache of every kind would be a high price for a rare event, and an empty one no proof.

mod conditions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_base::Clock;
use tiphys_client::{
    Client, ClientError, DeleteOptions, Delta, Informer, ListOptions, ObjectList, Partial, Reconcile, ReconcileError, WorkQueue, gvr_of,
};
use tiphys_meta::Gvr;
use tiphys_types::api::core::v1::{Namespace, NamespaceStatus, Pod};

use crate::Context;
use crate::shared::discovery::{Catalogue, Discovery, Served};
use crate::shared::namespaces;

/// For what no watch tells of: an object of any kind that waits for its finalizers.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

pub(crate) fn start(context: &Context) {
    let (spaces, pods) = (context.informers.of::<Namespace>(), context.informers.of::<Pod>());
    let queue = WorkQueue::new();
    namespaces::each(&spaces, &queue);
    let (going, again) = (spaces.clone(), queue.clone());
    pods.on_change(move |delta| {
        if let Delta::Deleted(pod) = delta {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            if !namespaces::is_active(&going, &namespace) {
                again.add(namespace);
            }
        }
        true
    });
    let emptier = Emptier {
        client: context.client.clone(),
        discovery: context.discovery.clone(),
        spaces: spaces.clone(),
        clock: Arc::clone(&context.config.clock),
    };
    context.run_live("namespace-controller", 5, queue, Arc::new(emptier), async move { spaces.synced().await });
}

struct Emptier {
    client: Client,
    discovery: Discovery,
    spaces: Informer<Namespace>,
    clock: Arc<dyn Clock>,
}

/// What one round found.
#[derive(Default)]
pub(crate) struct Found {
    /// Objects left, by resource.
    remaining: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    failures: Vec<String>,
    discovery: Vec<String>,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.remaining.is_empty() && self.failures.is_empty() && self.discovery.is_empty()
    }

    fn count(&mut self, gvr: &Gvr, objects: &[Partial]) {
        if objects.is_empty() {
            return;
        }
        // Upstream's "pods." for the core group.
        *self.remaining.entry(format!("{}.{}", gvr.resource, gvr.group)).or_default() += objects.len();
        for finalizer in objects.iter().flat_map(|o| o.metadata.finalizers.iter().flatten()) {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
}

#[async_trait]
impl Reconcile for Emptier {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Option<Duration>, ReconcileError> {
        let leaving = self.spaces.get("", name).is_some_and(|n| n.metadata.deletion_timestamp.is_some());
        if !leaving {
            return Ok(None);
        }
        // The cache may lag behind our own status: work on what is.
        let namespace = match self.client.get::<Namespace>("", name).await {
            Ok(namespace) => namespace,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if namespace.metadata.deletion_timestamp.is_none() || finalizers(&namespace).is_empty() {
            return Ok(None);
        }
        let namespace = self.show_terminating(namespace).await?;
        let catalogue = self.discovery.catalogue().await?;
        let found = self.empty(name, &catalogue).await;
        let namespace = self.show(namespace, &found).await?;
        if !found.is_empty() {
            return Ok(Some(LOOK_AGAIN));
        }
        self.let_go(namespace).await?;
        Ok(None)
    }
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default()
}

impl Emptier {
    async fn show_terminating(&self, mut namespace: Namespace) -> Result<Namespace, ClientError> {
        let status = namespace.status.get_or_insert_default();
        if status.phase.as_deref() == Some("Terminating") {
            return Ok(namespace);
        }
        status.phase = Some("Terminating".into());
        self.client.update_status(&namespace).await
    }

    async fn empty(&self, name: &str, catalogue: &Catalogue) -> Found {
        let mut found = Found::default();
        found.discovery.extend(catalogue.failed.iter().map(|(version, error)| format!("{version}: {error}")));
        let pods = gvr_of::<Pod>();
        let (first, rest): (Vec<&Served>, Vec<&Served>) =
            catalogue.preferred(&["list", "delete"]).filter(|s| s.namespaced).partition(|s| s.gvr == pods);
        for served in first {
            self.clear(name, served, &mut found).await;
        }
        if found.remaining.is_empty() {
            for served in rest {
                self.clear(name, served, &mut found).await;
            }
        }
        found
    }

    async fn clear(&self, namespace: &str, served: &Served, found: &mut Found) {
        let gvr = &served.gvr;
        let outcome = async {
            let there = self.list(namespace, gvr).await?;
            if there.is_empty() {
                return Ok(there);
            }
            if served.can("deletecollection") {
                self.client.delete_collection(gvr, namespace, &ListOptions::default(), &DeleteOptions::background()).await?;
            } else {
                self.delete_each(namespace, gvr, &there).await?;
            }
            self.list(namespace, gvr).await
        };
        match outcome.await {
            Ok(left) => found.count(gvr, &left),
            // A resource that is served but cannot be listed holds nothing, and one that was just removed neither.
            Err(error) if error.is_not_found() || error.api().is_some_and(|e| e.code == 405) => {}
            Err(error) => found.failures.push(error.to_string()),
        }
    }

    async fn list(&self, namespace: &str, gvr: &Gvr) -> Result<Vec<Partial>, ClientError> {
        let list: ObjectList<Partial> = self.client.list_as(gvr, namespace, &ListOptions::default()).await?;
        Ok(list.items)
    }

    async fn delete_each(&self, namespace: &str, gvr: &Gvr, objects: &[Partial]) -> Result<(), ClientError> {
        for object in objects.iter().filter(|o| o.metadata.deletion_timestamp.is_none()) {
            let name = object.metadata.name.as_deref().unwrap_or("");
            match self.client.delete_value(gvr, namespace, name, &DeleteOptions::background()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn show(&self, namespace: Namespace, found: &Found) -> Result<Namespace, ClientError> {
        let old = namespace.status.clone().unwrap_or_default();
        let conditions = conditions::next(old.conditions.as_deref().unwrap_or_default(), found, self.clock.now());
        let status = NamespaceStatus { conditions: Some(conditions).filter(|c| !c.is_empty()), ..old.clone() };
        if status == old {
            return Ok(namespace);
        }
        self.client.update_status(&Namespace { status: Some(status), ..namespace }).await
    }

    async fn let_go(&self, mut namespace: Namespace) -> Result<(), ClientError> {
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
            finalizers.retain(|f| f != "kubernetes");
        }
        let value = serde_json::to_value(&namespace).unwrap_or(Value::Null);
        match self.client.update_value(&gvr_of::<Namespace>(), &value, "finalize").await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
