//! HorizontalPodAutoscalers keep the number of pods in step with what they use.
//!
//! Watches autoscalers and Pods; every 15 s, which the API promises (`--horizontal-pod-autoscaler-sync-period`), asks for the target's `scale` and
//! for what its pods use (`metrics.k8s.io`); writes the scale and its own status.
//!
//! - `calc.rs` from usage to a number · `limits.rs` how fast it may change · `plan.rs` the decision
//!
//! Absent: metrics of the kinds Pods, Object and External (nobody serves their APIs here; the condition says so), scaling from and to zero, and
//! the check that no two autoscalers select the same pods.

mod calc;
mod limits;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::Value;
use tiphys_base::Clock;
use tiphys_client::{Client, Delta, Executor, Informer, ListOptions, ObjectKey, Reconcile, ReconcileError, WorkQueue};
use tiphys_meta::{Gvr, Quantity};
use tiphys_types::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec};
use tiphys_types::api::core::v1::Pod;

use crate::Context;
use crate::shared::discovery::Discovery;
use calc::{Sample, Samples};
use limits::History;
use plan::{Observed, Scale};

const PERIOD: Duration = Duration::from_secs(15);

pub(crate) fn start(context: &Context) {
    let autoscalers = context.informers.of::<HorizontalPodAutoscaler>();
    let queue = WorkQueue::new();
    let again = queue.clone();
    autoscalers.on_change(move |delta| {
        let own_write =
            matches!(delta, Delta::Updated { old, new } if old.spec == new.spec && old.metadata.generation == new.metadata.generation);
        if !own_write {
            again.add(ObjectKey::of(&**delta.object()));
        }
        true
    });
    let pods = context.informers.of::<Pod>();
    let executor = context.executor("horizontal-pod-autoscaler").reading(autoscalers.clone()).reading(pods.clone());
    let scaler = Arc::new(Autoscalers {
        autoscalers,
        pods,
        client: context.client.clone(),
        discovery: context.discovery.clone(),
        executor,
        clock: Arc::clone(&context.config.clock),
        histories: Mutex::default(),
    });
    let ready = Arc::clone(&scaler);
    context.run_live("horizontal-pod-autoscaler-controller", 5, queue, scaler, async move { ready.executor.synced().await });
}

struct Autoscalers {
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    client: Client,
    discovery: Discovery,
    executor: Executor<ObjectKey>,
    clock: Arc<dyn Clock>,
    histories: Mutex<HashMap<ObjectKey, History>>,
}

#[async_trait]
impl Reconcile for Autoscalers {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        self.executor.settle(key).await;
        let Some(autoscaler) = self.autoscalers.by_key(key) else {
            self.histories.lock().remove(key);
            return Ok(None);
        };
        let scale = self.scale(&autoscaler, &key.namespace).await;
        let mut samples = Vec::new();
        for metric in autoscaler.spec.metrics.iter().flatten() {
            let selector = scale.as_ref().map(Scale::selector).unwrap_or_default();
            samples.push(self.samples(metric, &key.namespace, selector).await);
        }
        let observed = Observed { autoscaler, scale, samples, pods: self.pods.list_namespace(&key.namespace) };
        let plan = plan::plan(&observed, self.histories.lock().entry(key.clone()).or_default(), self.clock.now());
        self.executor.execute(key, plan).await?;
        Ok(Some(PERIOD))
    }
}

impl Autoscalers {
    async fn scale(&self, autoscaler: &HorizontalPodAutoscaler, namespace: &str) -> Result<Scale, String> {
        let target = &autoscaler.spec.scale_target_ref;
        let version = target.api_version.as_deref().unwrap_or("v1");
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let catalogue = self.discovery.catalogue().await.map_err(|e| e.to_string())?;
        let by_group = || catalogue.all.iter().find(|s| s.kind == target.kind && s.gvr.group == group);
        let served = catalogue.kind(version, &target.kind).or_else(by_group);
        let gvr = served.map(|s| s.gvr.clone()).ok_or_else(|| {
            let qualified = if group.is_empty() { target.kind.clone() } else { format!("{}.{group}", target.kind) };
            format!("no matches for kind {:?} in group {group:?} ({qualified})", target.kind)
        })?;
        let path = gvr.path(namespace, &target.name) + "/scale";
        let response = self.client.raw(tiphys_client::Request::get(path)).await.map_err(|e| e.to_string())?;
        let object = serde_json::from_slice(&response.body).map_err(|e| e.to_string())?;
        Ok(Scale { gvr, object })
    }

    async fn samples(&self, metric: &MetricSpec, namespace: &str, selector: &str) -> Result<Samples, String> {
        let (resource, container) = match (&metric.resource, &metric.container_resource) {
            (Some(r), _) => (r.name.as_str(), ""),
            (None, Some(c)) => (c.name.as_str(), c.container.as_str()),
            (None, None) if metric.type_ == "External" => return Err("no external metrics API (external.metrics.k8s.io) is served".into()),
            (None, None) => return Err("no custom metrics API (custom.metrics.k8s.io) is served".into()),
        };
        let options = ListOptions { label_selector: selector.to_owned(), ..ListOptions::default() };
        let gvr = Gvr::new("metrics.k8s.io", "v1beta1", "pods");
        let list = self.client.list_value(&gvr, namespace, &options).await;
        let list = list.map_err(|e| format!("unable to fetch metrics from resource metrics API: {e}"))?;
        let samples = read(&list, resource, container);
        if samples.is_empty() {
            return Err("no metrics returned from resource metrics API".into());
        }
        Ok(samples)
    }
}

/// A pod of which a container is missing is as good as unknown.
fn read(list: &Value, resource: &str, container: &str) -> Samples {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| {
            let all = item["containers"].as_array()?;
            let mine = all.iter().filter(|c| container.is_empty() || c["name"] == container);
            let amounts: Option<Vec<i64>> =
                mine.map(|c| c["usage"][resource].as_str().and_then(|t| Quantity::parse(t).ok()).map(|q| q.milli())).collect();
            let amounts = amounts.filter(|a| !a.is_empty())?;
            let at: Timestamp = item["timestamp"].as_str()?.parse().ok()?;
            let window = item["window"].as_str().and_then(tiphys_meta::duration::parse).unwrap_or(0);
            let sample = Sample { value: amounts.iter().sum(), at, window: SignedDuration::from_nanos(window) };
            Some((item["metadata"]["name"].as_str()?.to_owned(), sample))
        })
        .collect()
}

#[cfg(test)]
mod tests;
