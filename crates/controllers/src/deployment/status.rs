use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tiphys_client::{Action, ClientError};
use tiphys_types::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use tiphys_types::metav1::Time;

use super::sets::{self, Fleet};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

pub(super) struct Rolled {
    pub(super) deployment: Deployment,
    /// When the progress deadline may have passed.
    pub(super) check_after: Option<Duration>,
}

/// The status without a look at progress: paused, scaling, leaving.
pub(super) fn counted(fleet: &Fleet, now: Timestamp) -> Deployment {
    with_status(&fleet.deployment, counts(fleet, now))
}

pub(super) fn only_observed(deployment: &Deployment) -> Deployment {
    let status = DeploymentStatus { observed_generation: deployment.metadata.generation, ..deployment.status.clone().unwrap_or_default() };
    with_status(deployment, status)
}

pub(super) fn with_collision(deployment: &Deployment) -> Deployment {
    let mut status = deployment.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    with_status(deployment, status)
}

pub(super) fn created(fleet: &Fleet, name: &str, now: Timestamp) -> Deployment {
    let mut status = counts(fleet, now);
    if deadline(&fleet.deployment).is_some() {
        set(&mut status, condition(PROGRESSING, true, "NewReplicaSetCreated", format!("Created new replica set {name:?}"), now));
    }
    with_status(&fleet.deployment, status)
}

pub(super) fn create_failed(deployment: &Arc<Deployment>, name: &str, error: &ClientError, now: Timestamp) -> Vec<Action> {
    if deadline(deployment).is_none() {
        return Vec::new();
    }
    let mut status = deployment.status.clone().unwrap_or_default();
    let message = format!("Failed to create new replica set {name:?}: {error}");
    set(&mut status, condition(PROGRESSING, false, "ReplicaSetCreateError", message, now));
    let failed = with_status(deployment, status);
    if failed == **deployment { Vec::new() } else { vec![Action::update_status(&failed)] }
}

/// `Progressing` says when a Deployment was paused, so that the pause does not count against its deadline.
pub(super) fn paused_or_resumed(deployment: &Deployment, now: Timestamp) -> Option<Deployment> {
    deadline(deployment)?;
    let mut status = deployment.status.clone().unwrap_or_default();
    let current = find(&status, PROGRESSING);
    if current.is_some_and(|c| c.reason.as_deref() == Some(TIMED_OUT)) {
        return None;
    }
    let paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    let says_paused = current.is_some_and(|c| c.reason.as_deref() == Some("DeploymentPaused"));
    let mut next = match (paused, says_paused) {
        (true, false) => condition(PROGRESSING, true, "DeploymentPaused", "Deployment is paused".into(), now),
        (false, true) => condition(PROGRESSING, true, "DeploymentResumed", "Deployment is resumed".into(), now),
        _ => return None,
    };
    next.status = "Unknown".into();
    set(&mut status, next);
    Some(with_status(deployment, status))
}

pub(super) fn is_complete(fleet: &Fleet, status: Option<&DeploymentStatus>) -> bool {
    let Some(status) = status else { return false };
    let all = fleet.replicas();
    status.updated_replicas.unwrap_or(0) == all
        && status.replicas.unwrap_or(0) == all
        && status.available_replicas.unwrap_or(0) == all
        && status.observed_generation >= fleet.deployment.metadata.generation
}

/// The status of a roll-out, with its progress against the deadline.
pub(super) fn rolled(fleet: &Fleet, now: Timestamp) -> Rolled {
    let deployment = &fleet.deployment;
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = counts(fleet, now);
    let current = find(&old, PROGRESSING).cloned();
    match deadline(deployment) {
        None => remove(&mut status, PROGRESSING),
        Some(seconds) => {
            let finished = current.as_ref().is_some_and(|c| c.reason.as_deref() == Some(NEW_SET_AVAILABLE));
            if !(finished && status.replicas == status.updated_replicas) {
                progress(fleet, &old, &mut status, current.as_ref(), seconds, now);
            }
        }
    }
    match replica_failure(fleet) {
        Some(failure) => set(&mut status, failure),
        None => remove(&mut status, REPLICA_FAILURE),
    }
    let check_after = check_after(fleet, &status, now);
    Rolled { deployment: with_status(deployment, status), check_after }
}

fn progress(
    fleet: &Fleet,
    old: &DeploymentStatus,
    status: &mut DeploymentStatus,
    current: Option<&DeploymentCondition>,
    seconds: i32,
    now: Timestamp,
) {
    let subject = match &fleet.new {
        Some(new) => format!("ReplicaSet {:?}", new.metadata.name.as_deref().unwrap_or("")),
        None => format!("Deployment {:?}", fleet.name()),
    };
    if is_complete(fleet, Some(status)) {
        set(status, condition(PROGRESSING, true, NEW_SET_AVAILABLE, format!("{subject} has successfully progressed."), now));
    } else if is_progressing(old, status) {
        let mut next = condition(PROGRESSING, true, "ReplicaSetUpdated", format!("{subject} is progressing."), now);
        if let Some(current) = current.filter(|c| c.status == "True") {
            next.last_transition_time = current.last_transition_time.clone();
        }
        // Replaced even where nothing but the time moves: the deadline counts from the last progress.
        remove(status, PROGRESSING);
        set(status, next);
    } else if is_timed_out(current, seconds, now) {
        set(status, condition(PROGRESSING, false, TIMED_OUT, format!("{subject} has timed out progressing."), now));
    } else if current.is_none() && fleet.new.is_some() {
        let found = format!("Found new replica set {:?}", fleet.new.as_ref().and_then(|n| n.metadata.name.as_deref()).unwrap_or(""));
        set(status, condition(PROGRESSING, true, "FoundNewReplicaSet", found, now));
    }
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |v: Option<i32>| v.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn is_timed_out(current: Option<&DeploymentCondition>, seconds: i32, now: Timestamp) -> bool {
    let Some(current) = current else { return false };
    match current.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => current.last_update_time.as_ref().is_some_and(|t| t.0.as_second() + i64::from(seconds) < now.as_second()),
    }
}

fn check_after(fleet: &Fleet, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let seconds = deadline(&fleet.deployment)?;
    let current = find(status, PROGRESSING)?;
    if is_complete(fleet, Some(status)) || current.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let due = current.last_update_time.as_ref()?.0.as_second() + i64::from(seconds) - now.as_second();
    Some(Duration::from_secs(u64::try_from(due.max(0)).unwrap_or(0) + 1))
}

fn replica_failure(fleet: &Fleet) -> Option<DeploymentCondition> {
    let failures = fleet.new.iter().chain(&fleet.old).flat_map(|s| s.status.iter().flat_map(|s| s.conditions.iter().flatten()));
    failures.into_iter().find(|c| c.type_ == REPLICA_FAILURE).map(|c| DeploymentCondition {
        type_: c.type_.clone(),
        status: c.status.clone(),
        reason: c.reason.clone(),
        message: c.message.clone(),
        last_transition_time: c.last_transition_time.clone(),
        last_update_time: c.last_transition_time.clone(),
    })
}

fn counts(fleet: &Fleet, now: Timestamp) -> DeploymentStatus {
    let sum = |of: fn(&tiphys_types::api::apps::v1::ReplicaSet) -> i32| fleet.all().map(|s| of(s)).sum::<i32>();
    let available = sum(sets::available);
    let old = fleet.deployment.status.clone().unwrap_or_default();
    let terminating = |s: &tiphys_types::api::apps::v1::ReplicaSet| s.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0);
    let mut status = DeploymentStatus {
        observed_generation: fleet.deployment.metadata.generation,
        replicas: some(sum(sets::actual)),
        updated_replicas: some(fleet.new.as_ref().map_or(0, |s| sets::actual(s))),
        ready_replicas: some(sum(sets::ready)),
        available_replicas: some(available),
        unavailable_replicas: some((sum(sets::wanted) - available).max(0)),
        terminating_replicas: Some(sum(terminating)),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let enough = available >= fleet.replicas() - fleet.max_unavailable();
    let next = if enough {
        condition(AVAILABLE, true, "MinimumReplicasAvailable", "Deployment has minimum availability.".into(), now)
    } else {
        condition(AVAILABLE, false, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.".into(), now)
    };
    set(&mut status, next);
    status
}

/// Zeros are absent in the canonical form.
fn some(count: i32) -> Option<i32> {
    Some(count).filter(|c| *c != 0)
}

fn deadline(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds).filter(|s| *s != i32::MAX)
}

fn with_status(deployment: &Deployment, status: DeploymentStatus) -> Deployment {
    Deployment { status: Some(status), ..deployment.clone() }
}

fn condition(kind: &str, holds: bool, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: if holds { "True" } else { "False" }.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
        last_update_time: Some(Time(now)),
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != kind);
    }
    status.conditions = status.conditions.take().filter(|c| !c.is_empty());
}

/// The same status and reason is no news.
fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(old) = find(status, &condition.type_).filter(|c| c.status == condition.status) {
        if old.reason == condition.reason {
            return;
        }
        condition.last_transition_time = old.last_transition_time.clone();
    }
    remove(status, &condition.type_);
    status.conditions.get_or_insert_default().push(condition);
}
