//! Claims to devices (KEP-4381): makes those that pods ask for by template, gives back what no pod uses any more.
//!
//! Watches Pods, ResourceClaims and ResourceClaimTemplates; owns the claims that it makes; writes claims, their status, and which claim each of a
//! pod's entries got (`status.resourceClaimStatuses`).
//!
//! Absent: reservations for pods that were placed past the scheduler, claims of pod groups (alpha), extended resources backed by claims.

mod release;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use tiphys_client::{Action, Delta, Index, Informer, Note, ObjectKey, Patch, Plan, Planner, WorkQueue, controller_of};
use tiphys_types::api::core::v1::{Pod, PodResourceClaim};
use tiphys_types::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use tiphys_types::metav1::ObjectMeta;
use tiphys_types::owners::{controller_reference, is_controlled_by};
use tiphys_types::pods;

use crate::Context;
use crate::shared::pod::about;

const FOR_ENTRY: &str = "resource.kubernetes.io/pod-claim-name";

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Pod(ObjectKey),
    Claim(ObjectKey),
}

pub(crate) fn start(context: &Context) {
    let (pods, claims) = (context.informers.of::<Pod>(), context.informers.of::<ResourceClaim>());
    let templates = context.informers.of::<ResourceClaimTemplate>();
    let queue = WorkQueue::new();
    let by_consumer = claims.index("reserved-for", |c: &ResourceClaim| reserved_uids(c).map(str::to_owned).collect());
    let of_pod = claims.index_by_controller();
    watch_pods(&pods, &by_consumer, &of_pod, &queue);
    watch_claims(&claims, &queue);
    watch_templates(&templates, &pods, &queue);
    let executor = context.executor("resource_claim").reading(pods.clone()).reading(claims.clone()).reading(templates.clone());
    context.run("resourceclaim-controller", 10, queue, Claims { pods, claims, templates, of_pod }, executor);
}

fn reserved_uids(claim: &ResourceClaim) -> impl Iterator<Item = &str> {
    claim.status.iter().flat_map(|s| s.reserved_for.iter().flatten()).map(|r| r.uid.as_str())
}

fn watch_pods(pods: &Informer<Pod>, by_consumer: &Index<ResourceClaim>, of_pod: &Index<ResourceClaim>, queue: &WorkQueue<Key>) {
    let (by_consumer, of_pod, queue) = (by_consumer.clone(), of_pod.clone(), queue.clone());
    pods.on_change(move |delta| {
        let pod = delta.object();
        if entries(pod).is_empty() {
            return true;
        }
        queue.add(Key::Pod(ObjectKey::of(&**pod)));
        if matches!(delta, Delta::Deleted(_)) || is_done(pod) {
            let uid = pod.metadata.uid.as_deref().unwrap_or("");
            for claim in by_consumer.get(uid).iter().chain(&of_pod.get(uid)) {
                queue.add(Key::Claim(ObjectKey::of(&**claim)));
            }
        }
        true
    });
}

/// A claim's change is its own work, and its pod's: the pod's status names it.
fn watch_claims(claims: &Informer<ResourceClaim>, queue: &WorkQueue<Key>) {
    let queue = queue.clone();
    claims.on_change(move |delta| {
        let claim = delta.object();
        queue.add(Key::Claim(ObjectKey::of(&**claim)));
        if let Some(owner) = controller_of(&claim.metadata).filter(|o| o.kind == "Pod") {
            queue.add(Key::Pod(ObjectKey::new(claim.metadata.namespace.as_deref().unwrap_or(""), &owner.name)));
        }
        true
    });
}

/// Pods may have been made before the template that they name.
fn watch_templates(templates: &Informer<ResourceClaimTemplate>, pods: &Informer<Pod>, queue: &WorkQueue<Key>) {
    let (pods, queue) = (pods.clone(), queue.clone());
    templates.on_change(move |delta| {
        if let Delta::Added(template) = delta {
            let waiting = pods.list_namespace(template.metadata.namespace.as_deref().unwrap_or(""));
            let names = |p: &Pod| entries(p).iter().any(|e| e.resource_claim_template_name == template.metadata.name);
            waiting.iter().filter(|p| names(p)).for_each(|p| queue.add(Key::Pod(ObjectKey::of(&**p))));
        }
        true
    });
}

fn entries(pod: &Pod) -> &[PodResourceClaim] {
    pod.spec.as_ref().and_then(|s| s.resource_claims.as_deref()).unwrap_or_default()
}

/// It will not run any more: finished, or deleted before it was placed.
fn is_done(pod: &Pod) -> bool {
    pods::is_terminal(pod) || (pod.metadata.deletion_timestamp.is_some() && pods::node_name(pod).is_empty())
}

struct Claims {
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
    of_pod: Index<ResourceClaim>,
}

impl Planner for Claims {
    type Key = Key;

    fn plan(&self, key: &Key, _: Timestamp) -> Plan {
        match key {
            Key::Pod(key) => self.pods.by_key(key).filter(|p| !is_done(p)).map(|p| self.provide(&p)).unwrap_or_default(),
            Key::Claim(key) => self.claims.by_key(key).map(|c| release::plan(&c, &self.pods)).unwrap_or_default(),
        }
    }
}

impl Claims {
    /// A claim for each entry that names a template, and the claims' names in the pod's status.
    fn provide(&self, pod: &Arc<Pod>) -> Plan {
        let mut plan = Plan::default();
        let mut told = Vec::new();
        for entry in entries(pod) {
            let Some(template) = &entry.resource_claim_template_name else { continue };
            match self.made_for(pod, entry) {
                Some(claim) if !says(pod, entry, &claim) => {
                    told.push(json!({"name": entry.name, "resourceClaimName": claim.metadata.name}))
                }
                Some(_) => {}
                None => self.make(pod, entry, template, &mut plan),
            }
        }
        if !told.is_empty() {
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"resourceClaimStatuses": told}});
            plan.act(Action::patch(&**pod, "status", Patch::Strategic(patch)).or_settled());
        }
        plan
    }

    fn made_for(&self, pod: &Pod, entry: &PodResourceClaim) -> Option<Arc<ResourceClaim>> {
        let mine = self.of_pod.get(pod.metadata.uid.as_deref()?);
        let entry_of = |c: &ResourceClaim| c.metadata.annotations.as_ref()?.get(FOR_ENTRY).cloned();
        mine.into_iter().find(|c| is_controlled_by(&c.metadata, &pod.metadata) && entry_of(c).as_deref() == Some(&entry.name))
    }

    fn make(&self, pod: &Pod, entry: &PodResourceClaim, template: &str, plan: &mut Plan) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let me = about(pod);
        let failed = |why: String| Note::warning(&me, "FailedResourceClaimCreation", format!("PodResourceClaim {}: {why}", entry.name));
        let Some(found) = self.templates.get(namespace, template) else {
            return plan.note(failed(format!(
                "resource claim template {template:?}: resourceclaimtemplate.resource.k8s.io {template:?} not found"
            )));
        };
        let from = found.spec.metadata.clone().unwrap_or_default();
        let mut annotations = from.annotations.unwrap_or_default();
        annotations.insert(FOR_ENTRY.to_owned(), entry.name.clone());
        let metadata = ObjectMeta {
            namespace: pod.metadata.namespace.clone(),
            generate_name: Some(format!("{}-{}-", pod.metadata.name.as_deref().unwrap_or(""), entry.name)),
            labels: from.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference::<Pod>(&pod.metadata)]),
            ..Default::default()
        };
        let claim = ResourceClaim { metadata, spec: found.spec.spec.clone(), status: None };
        plan.act(Action::create(&claim).say_when_failed(failed("{error}".into())));
    }
}

fn says(pod: &Pod, entry: &PodResourceClaim, claim: &ResourceClaim) -> bool {
    let statuses = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
    statuses.into_iter().any(|s| s.name == entry.name && s.resource_claim_name == claim.metadata.name)
}
