use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tiphys_client::{Action, ClientError, Plan};
use tiphys_types::api::core::v1::Pod;
use tiphys_types::metav1::Time;
use tiphys_types::pods::{self, Availability};
use tiphys_types::services::has_all;

use super::kinds::{Counts, Failure, Replicated};
use crate::shared::claim::Claim;
use crate::shared::pod;

/// No plan makes or removes more pods at once.
const BURST: usize = 500;

pub(super) struct Observed<K> {
    pub(super) set: Arc<K>,
    /// Its pods, and those of its namespace that belong to no one.
    pub(super) candidates: Vec<Arc<Pod>>,
    pub(super) crowd: HashMap<String, usize>,
}

pub(super) fn plan<K: Replicated>(observed: &Observed<K>, now: Timestamp) -> Plan {
    let set = &observed.set;
    let selector = set.selector();
    let claim = Claim { owner: set.metadata(), reference: set.reference(), selector: &selector };
    let claimed = claim.sort(observed.candidates.clone(), pods::is_active);
    let mut plan = Plan::default();
    plan.burst(claimed.actions);
    let active: Vec<Arc<Pod>> = claimed.objects.iter().filter(|p| pods::is_active(p)).cloned().collect();
    let terminating = claimed.objects.iter().filter(|p| pods::is_terminating(p) && !pods::is_terminal(p)).count();
    let counts = count(&**set, &active, terminating, now);
    let diff = active.len() as i64 - i64::from(set.replicas());
    if set.metadata().deletion_timestamp.is_none() && diff != 0 {
        manage(observed, &active, diff, now, &mut plan);
        let (set, since) = (Arc::clone(set), Time(now));
        let reason = if diff < 0 { "FailedCreate" } else { "FailedDelete" };
        plan.if_failed = Some(Box::new(move |error| failed_status(&*set, counts, reason, error, since)));
    }
    plan.update_status_if_changed(&**set, &set.with_status(counts, None));
    for delay in active.iter().filter_map(|p| match pods::availability(p, set.min_ready_seconds(), now) {
        Availability::In(seconds) => u64::try_from(seconds).ok(),
        _ => None,
    }) {
        plan.again_after(Duration::from_secs(delay));
    }
    plan
}

fn count<K: Replicated>(set: &K, active: &[Arc<Pod>], terminating: usize, now: Timestamp) -> Counts {
    let template = set.template();
    let labels = template.metadata.and_then(|m| m.labels).unwrap_or_default();
    let number = |of: &dyn Fn(&Pod) -> bool| active.iter().filter(|p| of(p)).count() as i32;
    Counts {
        replicas: active.len() as i32,
        labeled: number(&|p| has_all(p.metadata.labels.as_ref(), &labels)),
        ready: number(&pods::is_ready),
        available: number(&|p| pods::is_available(p, set.min_ready_seconds(), now)),
        terminating: terminating as i32,
    }
}

fn manage<K: Replicated>(observed: &Observed<K>, active: &[Arc<Pod>], diff: i64, now: Timestamp, plan: &mut Plan) {
    let set = &*observed.set;
    let about = pod::about(set);
    let many = (diff.unsigned_abs() as usize).min(BURST);
    if diff < 0 {
        let meta = set.metadata();
        let (namespace, name) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
        let new = pod::from_template(&set.template(), namespace, name, set.reference());
        plan.burst(vec![pod::create(&new, &about); many]);
        return;
    }
    let crowded = |p: &Arc<Pod>| observed.crowd.get(pods::node_name(p)).copied().unwrap_or(0);
    let mut ranked: Vec<_> = active.iter().map(|p| (Arc::clone(p), crowded(p))).collect();
    pod::sort_for_deletion(&mut ranked, now);
    plan.burst(ranked.iter().take(many).map(|(p, _)| pod::delete(p, &about)).collect());
}

fn failed_status<K: Replicated>(set: &K, counts: Counts, reason: &'static str, error: &ClientError, since: Time) -> Vec<Action> {
    let failed = set.with_status(counts, Some(Failure { reason, message: error.to_string(), since }));
    if failed == *set { Vec::new() } else { vec![Action::update_status(&failed)] }
}
