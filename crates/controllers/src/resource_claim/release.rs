//! What becomes of a claim whose users go: their reservations are taken off; with the last of them the devices are free again; a claim that was
//! made for a pod goes when that pod is done, though the pod itself may stay for a while.

use std::time::Duration;

use serde_json::{Value, json};
use tiphys_client::{Action, Informer, Patch, Plan, controller_of};
use tiphys_types::api::core::v1::Pod;
use tiphys_types::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};

use super::is_done;

/// What the scheduler puts on a claim before it allocates devices to it.
pub(super) const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

pub(super) fn plan(claim: &ResourceClaim, pods: &Informer<Pod>) -> Plan {
    let mut plan = Plan::default();
    let reserved = claim.status.as_ref().and_then(|s| s.reserved_for.as_deref()).unwrap_or_default();
    let mut remaining = Vec::new();
    for consumer in reserved {
        match user(claim, consumer, pods) {
            User::Gone => {}
            User::Here => remaining.push(consumer.clone()),
            User::Unknown => {
                plan.again_after(Duration::from_secs(5));
                remaining.push(consumer.clone());
            }
        }
    }
    let is_ours = claim.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    let freed = remaining.len() < reserved.len();
    let leaving = claim.metadata.deletion_timestamp.is_some();
    let last = remaining.is_empty();
    if freed || (leaving && last && is_ours) {
        release(claim, remaining, is_ours && last, &mut plan);
    }
    if last && !leaving && made_in_vain(claim, pods) {
        plan.act(Action::delete(claim));
    }
    plan
}

enum User {
    Here,
    Gone,
    /// The cache of pods may be older than the claim.
    Unknown,
}

fn user(claim: &ResourceClaim, consumer: &ResourceClaimConsumerReference, pods: &Informer<Pod>) -> User {
    if consumer.api_group.as_deref().is_some_and(|g| !g.is_empty()) || consumer.resource != "pods" {
        return User::Here;
    }
    let namespace = claim.metadata.namespace.as_deref().unwrap_or("");
    let version: u64 = claim.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
    match pods.get(namespace, &consumer.name) {
        Some(pod) if pod.metadata.uid.as_deref() == Some(&consumer.uid) => {
            if is_done(&pod) {
                User::Gone
            } else {
                User::Here
            }
        }
        Some(_) => User::Gone,
        None if pods.revision() >= version => User::Gone,
        None => User::Unknown,
    }
}

/// Status first, so that nobody finds a claim allocated and unprotected.
fn release(claim: &ResourceClaim, remaining: Vec<ResourceClaimConsumerReference>, free: bool, plan: &mut Plan) {
    let mut next = claim.clone();
    if let Some(status) = next.status.as_mut() {
        status.reserved_for = Some(remaining).filter(|r| !r.is_empty());
        if free {
            status.allocation = None;
        }
    }
    if next.status != claim.status {
        plan.act(Action::update_status(&next));
    }
    if free {
        let rest: Vec<&String> = claim.metadata.finalizers.iter().flatten().filter(|f| *f != FINALIZER).collect();
        let rest = if rest.is_empty() { Value::Null } else { json!(rest) };
        let patch = json!({"metadata": {"uid": claim.metadata.uid, "finalizers": rest}});
        plan.act(Action::patch(claim, "", Patch::Merge(patch)).or_settled());
    }
}

/// For a pod that will not use it. Where the pod is not known, the garbage collector decides.
fn made_in_vain(claim: &ResourceClaim, pods: &Informer<Pod>) -> bool {
    let Some(owner) = controller_of(&claim.metadata).filter(|o| o.kind == "Pod") else { return false };
    let pod = pods.get(claim.metadata.namespace.as_deref().unwrap_or(""), &owner.name);
    pod.is_some_and(|p| p.metadata.uid.as_deref() != Some(&owner.uid) || is_done(&p))
}
