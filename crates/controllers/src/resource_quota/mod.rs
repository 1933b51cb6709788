//! What is used of each ResourceQuota, counted again: admission adds what comes, this finds what went.
//!
//! Watches ResourceQuotas, and in full Pods, Services, PersistentVolumeClaims and ResourceClaims; of everything else that a quota counts (`count/…`, ConfigMaps,
//! Secrets, …) the metadata, from the moment that some quota asks. Writes the quotas' statuses.
//!
//! Admission charges an object before it is stored, so a count taken just after a charge may miss what was charged. What appears is therefore
//! counted a moment later, and a quota that was charged a moment ago is only ever raised: it is lowered once the charges have rested.

mod count;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tiphys_base::Clock;
use tiphys_client::{
    Client, ClientError, Delta, Informer, Informers, Kube, ObjectKey, Partial, Reconcile, ReconcileError, Stored, WorkQueue,
};
use tiphys_meta::Gvr;
use tiphys_types::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use tiphys_types::api::resource::v1::ResourceClaim;
use tiphys_types::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tiphys_types::pods;
use tiphys_types::resources::{self, ResourceList};
use tokio::time::Instant;

use crate::Context;
use crate::shared::discovery::Discovery;
use count::{Kept, Objects};

/// Until the caches show what admission has charged.
const SETTLING: Duration = Duration::from_secs(1);
/// What is kept with its content, since that is what is counted.
const WHOLE: [(&str, &str); 4] = [("", "pods"), ("", "services"), ("", "persistentvolumeclaims"), ("resource.k8s.io", "resourceclaims")];
/// Kinds of the core group that quotas may name bare.
const SIMPLE: [&str; 4] = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas"];

pub(crate) fn start(context: &Context) {
    let quotas = context.informers.of::<ResourceQuota>();
    let queue = WorkQueue::new();
    let counter = Arc::new(Quotas {
        quotas: quotas.clone(),
        pods: context.informers.of::<Pod>(),
        services: context.informers.of::<Service>(),
        claims: context.informers.of::<PersistentVolumeClaim>(),
        device_claims: context.informers.of::<ResourceClaim>(),
        informers: context.informers.clone(),
        discovery: context.discovery.clone(),
        watched: Mutex::default(),
        charged: Mutex::default(),
        client: context.client.clone(),
        clock: Arc::clone(&context.config.clock),
        queue: queue.clone(),
    });
    counter.count_again_on(&counter.pods, pod_weighs_otherwise);
    counter.count_again_on(&counter.services, |old, new| old.spec != new.spec);
    counter.count_again_on(&counter.claims, |old, new| old.spec != new.spec || old.status != new.status);
    counter.count_again_on(&counter.device_claims, |old, new| old.spec != new.spec);
    counter.count_again_when_kinds_change(context);
    let told = Arc::clone(&counter);
    quotas.on_change(move |delta| {
        told.note_charge(delta);
        let changed = match delta {
            Delta::Added(_) => true,
            Delta::Updated { old, new } => old.spec != new.spec || is_unknown(new),
            Delta::Deleted(_) => false,
        };
        if changed {
            told.queue.add(ObjectKey::of(&**delta.object()));
        }
        true
    });
    let (pods, services, claims) = (counter.pods.clone(), counter.services.clone(), counter.claims.clone());
    let device_claims = counter.device_claims.clone();
    context.run_live("resourcequota-controller", 5, queue, counter, async move {
        pods.synced().await;
        services.synced().await;
        claims.synced().await;
        device_claims.synced().await;
    });
}

/// The status does not answer for the spec.
fn is_unknown(quota: &ResourceQuota) -> bool {
    let hard = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
    quota.status.as_ref().is_none_or(|s| s.hard.as_ref() != hard)
}

/// What a pod is charged for does not change with its binding, nor with most of its status.
fn pod_weighs_otherwise(old: &Pod, new: &Pod) -> bool {
    let of_spec = |p: &Pod| {
        let spec = p.spec.as_ref()?;
        // The deadline moves a pod from one scope to another.
        Some((spec.containers.clone(), spec.init_containers.clone(), spec.resources.clone(), spec.active_deadline_seconds))
    };
    pods::is_terminal(old) != pods::is_terminal(new)
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.metadata.generation != new.metadata.generation && of_spec(old) != of_spec(new)
}

struct Quotas {
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
    device_claims: Informer<ResourceClaim>,
    informers: Informers,
    discovery: Discovery,
    /// Whose metadata has handlers already.
    watched: Mutex<HashSet<Gvr>>,
    /// When each quota's used amounts were last seen to change.
    charged: Mutex<HashMap<ObjectKey, Instant>>,
    client: Client,
    clock: Arc<dyn Clock>,
    queue: WorkQueue<ObjectKey>,
}

#[async_trait]
impl Reconcile for Quotas {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(quota) = self.quotas.by_key(key) else { return Ok(None) };
        let spec = serde_json::to_value(&quota.spec).unwrap_or(Value::Null);
        let (all, complete) = self.everything(&spec, &key.namespace).await;
        let mut again = (!complete).then_some(Duration::from_secs(30));
        let used = count::usage(&spec, &all, self.clock.now());
        let old = quota.status.clone().unwrap_or_default();
        let mut sums = resources::list(old.used.as_ref());
        sums.extend(used);
        let hard = quota.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default();
        sums.retain(|name, _| hard.contains_key(name));
        if let Some(rest) = self.unsettled(key)
            && keep_charges(&mut sums, &resources::list(old.used.as_ref()))
        {
            again = Some(rest);
        }
        if !is_unknown(&quota) && resources::list(old.used.as_ref()) == sums {
            return Ok(again);
        }
        let status = ResourceQuotaStatus { hard: Some(hard), used: Some(resources::to_typed(&sums)) };
        let counted = ResourceQuota { status: Some(status), ..ResourceQuota::clone(&quota) };
        self.client.update_status(&counted).await?;
        Ok(again)
    }
}

/// Raises the sums to what was charged; true if any was lower.
fn keep_charges(sums: &mut ResourceList, charged: &ResourceList) -> bool {
    let mut any = false;
    for (name, sum) in sums {
        if let Some(more) = charged.get(name).filter(|c| **c > *sum) {
            *sum = more.clone();
            any = true;
        }
    }
    any
}

impl Quotas {
    fn note_charge(&self, delta: &Delta<ResourceQuota>) {
        let used = |q: &ResourceQuota| q.status.as_ref().and_then(|s| s.used.clone());
        let key = ObjectKey::of(&**delta.object());
        match delta {
            Delta::Updated { old, new } if used(old) != used(new) => drop(self.charged.lock().insert(key, Instant::now())),
            Delta::Deleted(_) => drop(self.charged.lock().remove(&key)),
            _ => {}
        }
    }

    /// How long the last charge must rest yet.
    fn unsettled(&self, key: &ObjectKey) -> Option<Duration> {
        let since = self.charged.lock().get(key)?.elapsed();
        SETTLING.checked_sub(since).filter(|rest| !rest.is_zero())
    }

    /// False where the API server did not say what it serves, so that something may be missing.
    async fn everything(&self, spec: &Value, namespace: &str) -> (Vec<Kept>, bool) {
        let mut complete = true;
        let mut all = vec![
            kept(WHOLE[0], whole(&self.pods, namespace)),
            kept(WHOLE[1], whole(&self.services, namespace)),
            kept(WHOLE[2], whole(&self.claims, namespace)),
            kept(WHOLE[3], whole(&self.device_claims, namespace)),
        ];
        let names: Vec<&String> = spec["hard"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
        let simple = SIMPLE.iter().filter(|r| names.iter().any(|n| n == *r)).map(|r| ("", *r));
        let counted = names.iter().filter_map(|n| count::counted(n));
        let mut done: HashSet<(&str, &str)> = WHOLE.into();
        for (group, resource) in simple.chain(counted).filter(|r| done.insert(*r)) {
            let gvr = match self.served(group, resource).await {
                Ok(Some(gvr)) => gvr,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(group, resource, %error, "cannot tell whether it is served");
                    complete = false;
                    continue;
                }
            };
            let informer = self.watch(&gvr);
            informer.synced().await;
            let objects = Objects::Number(informer.list_namespace(namespace).len());
            all.push(Kept { group: group.to_owned(), resource: resource.to_owned(), objects });
        }
        (all, complete)
    }

    async fn served(&self, group: &str, resource: &str) -> Result<Option<Gvr>, ClientError> {
        if group.is_empty() && SIMPLE.contains(&resource) {
            return Ok(Some(Gvr::new("", "v1", resource.to_owned())));
        }
        let catalogue = self.discovery.catalogue().await?;
        let found = catalogue.preferred(&["list", "watch"]).find(|s| s.gvr.group == group && s.gvr.resource == resource && s.namespaced);
        Ok(found.map(|s| s.gvr.clone()))
    }

    fn watch(&self, gvr: &Gvr) -> Informer<Partial> {
        let informer = self.informers.metadata(gvr.clone());
        if self.watched.lock().insert(gvr.clone()) {
            self.count_again_on(&informer, |_, _| false);
        }
        informer
    }

    /// What a quota counts may come to be served only later.
    fn count_again_when_kinds_change(&self, context: &Context) {
        let (quotas, queue) = (self.quotas.clone(), self.queue.clone());
        context.informers.of::<CustomResourceDefinition>().on_change(move |_| {
            let counts = |q: &ResourceQuota| q.spec.iter().flat_map(|s| &s.hard).flatten().any(|(name, _)| count::counted(name).is_some());
            quotas.list().iter().filter(|q| counts(q)).for_each(|q| queue.add_after(ObjectKey::of(&**q), SETTLING));
            true
        });
    }

    fn count_again_on<T: Stored>(&self, informer: &Informer<T>, matters: fn(&T, &T) -> bool) {
        let (quotas, queue) = (self.quotas.clone(), self.queue.clone());
        informer.on_change(move |delta| {
            let delay = match delta {
                Delta::Added(_) => SETTLING,
                Delta::Updated { old, new } if !matters(old, new) => return true,
                Delta::Updated { .. } | Delta::Deleted(_) => Duration::ZERO,
            };
            let namespace = delta.object().meta().namespace.as_deref().unwrap_or("");
            quotas.list_namespace(namespace).iter().for_each(|q| queue.add_after(ObjectKey::of(&**q), delay));
            true
        });
    }
}

fn kept((group, resource): (&str, &str), objects: Vec<Value>) -> Kept {
    Kept { group: group.to_owned(), resource: resource.to_owned(), objects: Objects::Whole(objects) }
}

fn whole<K: Kube>(informer: &Informer<K>, namespace: &str) -> Vec<Value> {
    informer.list_namespace(namespace).iter().filter_map(|o| serde_json::to_value(&**o).ok()).collect()
}

#[cfg(test)]
mod tests;
