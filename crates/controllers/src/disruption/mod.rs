//! How many of the pods that a PodDisruptionBudget protects may be evicted now.
//!
//! Watches budgets, Pods and the kinds that commonly own pods (others are asked for their `scale`); writes the budgets' statuses, which the
//! eviction subresource reads and charges. When the count fails nothing may be evicted, and the condition says why. `stale.rs` takes back marks
//! on pods that were not disrupted after all.

mod plan;
mod scales;
mod stale;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tiphys_base::Clock;
use tiphys_client::{Delta, Executor, Informer, ObjectKey, Reconcile, ReconcileError, WorkQueue};
use tiphys_types::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use tiphys_types::api::core::v1::{Pod, ReplicationController};
use tiphys_types::api::policy::v1::PodDisruptionBudget;
use tiphys_types::{pods, selector};

use crate::Context;
use crate::shared::watch;
use plan::Observed;
use scales::Scales;

pub(crate) fn start(context: &Context) {
    let (budgets, pods) = (context.informers.of::<PodDisruptionBudget>(), context.informers.of::<Pod>());
    let queue = WorkQueue::new();
    watch::own(&budgets, &queue);
    of_pods(&pods, &budgets, &queue);
    let scales = Scales {
        sets: context.informers.of::<ReplicaSet>(),
        deployments: context.informers.of::<Deployment>(),
        stateful: context.informers.of::<StatefulSet>(),
        controllers: context.informers.of::<ReplicationController>(),
        client: context.client.clone(),
        discovery: context.discovery.clone(),
    };
    rescaled(&scales.deployments, |d: &Deployment| d.spec.as_ref().and_then(|s| s.replicas), &budgets, &queue);
    rescaled(&scales.sets, |s: &ReplicaSet| s.spec.as_ref().and_then(|s| s.replicas), &budgets, &queue);
    rescaled(&scales.stateful, |s: &StatefulSet| s.spec.as_ref().and_then(|s| s.replicas), &budgets, &queue);
    rescaled(&scales.controllers, |c: &ReplicationController| c.spec.as_ref().and_then(|s| s.replicas), &budgets, &queue);
    let executor = context
        .executor("controllermanager")
        .reading(budgets.clone())
        .reading(pods.clone())
        .reading(scales.sets.clone())
        .reading(scales.deployments.clone())
        .reading(scales.stateful.clone())
        .reading(scales.controllers.clone());
    let watched = Arc::new(Budgets { budgets, pods, scales, executor, clock: Arc::clone(&context.config.clock) });
    let ready = Arc::clone(&watched);
    context.run_live("disruption-controller", 2, queue, watched, async move { ready.executor.synced().await });
    stale::start(context);
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = selector::from_typed(budget.spec.as_ref().and_then(|s| s.selector.as_ref()));
    budget.metadata.namespace == pod.metadata.namespace && selector.is_ok_and(|s| s.matches_map(pod.metadata.labels.as_ref()))
}

/// What counts of a pod is whether it is there, ready and staying, and whose it is.
fn matters(old: &Pod, new: &Pod) -> bool {
    let seen = |p: &Pod| (pods::is_ready(p), pods::is_terminating(p), p.metadata.labels.clone(), p.metadata.owner_references.clone());
    seen(old) != seen(new)
}

fn of_pods(pods: &Informer<Pod>, budgets: &Informer<PodDisruptionBudget>, queue: &WorkQueue<ObjectKey>) {
    let (budgets, queue) = (budgets.clone(), queue.clone());
    pods.on_change(move |delta| {
        let seen = match delta {
            Delta::Updated { old, new } if !matters(old, new) => return true,
            Delta::Updated { old, new } => vec![old, new],
            Delta::Added(pod) | Delta::Deleted(pod) => vec![pod],
        };
        for budget in budgets.list_namespace(delta.object().metadata.namespace.as_deref().unwrap_or("")) {
            if seen.iter().any(|pod| selects(&budget, pod)) {
                queue.add(ObjectKey::of(&*budget));
            }
        }
        true
    });
}

/// A new scale is work for all budgets of its namespace that count by scales. (Upstream waits for the pods to follow.)
fn rescaled<K: tiphys_client::Kube>(
    informer: &Informer<K>,
    replicas: fn(&K) -> Option<i32>,
    budgets: &Informer<PodDisruptionBudget>,
    queue: &WorkQueue<ObjectKey>,
) {
    let (budgets, queue) = (budgets.clone(), queue.clone());
    informer.on_change(move |delta| {
        let Delta::Updated { old, new } = delta else { return true };
        if replicas(old) != replicas(new) {
            let there = budgets.list_namespace(new.metadata().namespace.as_deref().unwrap_or(""));
            there.iter().filter(|b| plan::needs_owners(b)).for_each(|b| queue.add(ObjectKey::of(&**b)));
        }
        true
    });
}

struct Budgets {
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    scales: Scales,
    executor: Executor<ObjectKey>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Reconcile for Budgets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        self.executor.settle(key).await;
        let Some(budget) = self.budgets.by_key(key) else { return Ok(None) };
        let pods: Vec<Arc<Pod>> = self.pods.list_namespace(&key.namespace).into_iter().filter(|p| selects(&budget, p)).collect();
        let owners = if plan::needs_owners(&budget) {
            join_all(pods.iter().map(|p| self.scales.of(p))).await.into_iter().collect()
        } else {
            Ok(Vec::new())
        };
        let plan = plan::plan(&Observed { budget, pods, owners }, self.clock.now());
        Ok(self.executor.execute(key, plan).await?)
    }
}

#[cfg(test)]
mod tests;
