use std::sync::Arc;

use tiphys_client::Plan;
use tiphys_types::api::apps::v1::ReplicaSet;

use super::plan::resize;
use super::sets::{self, Fleet};

/// The Deployment's size is not the one that its ReplicaSets were last scaled for.
pub(super) fn is_scaling(fleet: &Fleet) -> bool {
    let differs = |s: &Arc<ReplicaSet>| number(s, sets::DESIRED).is_some_and(|n| n != fleet.replicas());
    fleet.all().filter(|s| sets::is_active(s)).any(differs)
}

fn number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    sets::annotation(&set.metadata, annotation)?.parse().ok().filter(|n| *n >= 0)
}

/// Spreads a change of size over the ReplicaSets of an unfinished roll-out by their shares.
pub(super) fn proportionally(fleet: &Fleet, plan: &mut Plan) {
    if let Some(only) = active_or_latest(fleet) {
        resize(fleet, only, fleet.replicas(), false, plan);
        return;
    }
    if fleet.new.as_ref().is_some_and(|new| is_saturated(fleet, new)) {
        for old in fleet.old.iter().filter(|s| sets::is_active(s)) {
            resize(fleet, old, 0, false, plan);
        }
        return;
    }
    if !fleet.is_rolling() {
        return;
    }
    let mut active: Vec<&Arc<ReplicaSet>> = fleet.all().filter(|s| sets::is_active(s)).collect();
    let total: i32 = active.iter().map(|s| sets::wanted(s)).sum();
    let allowed = if fleet.replicas() > 0 { fleet.replicas() + fleet.max_surge() } else { 0 };
    let to_add = allowed - total;
    // The biggest first; of equals the newest when growing, the oldest when shrinking.
    let age = |s: &Arc<ReplicaSet>| s.metadata.creation_timestamp.as_ref().map(|t| t.0);
    active.sort_by(|a, b| {
        let by_age = if to_add > 0 { age(b).cmp(&age(a)) } else { age(a).cmp(&age(b)) };
        sets::wanted(b).cmp(&sets::wanted(a)).then(by_age)
    });
    let mut sizes = Vec::with_capacity(active.len());
    let mut added = 0;
    for set in &active {
        let share = proportion(fleet, set, to_add, added);
        sizes.push(sets::wanted(set) + share);
        added += share;
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (set, size) in active.into_iter().zip(sizes) {
        resize(fleet, set, size, true, plan);
    }
}

/// The one ReplicaSet that has pods, or where none has, the newest; None where several have.
fn active_or_latest(fleet: &Fleet) -> Option<&Arc<ReplicaSet>> {
    let mut active = fleet.all().filter(|s| sets::is_active(s));
    match (active.next(), active.next()) {
        (None, _) => fleet.new.as_ref().or(fleet.old.last()),
        (Some(only), None) => Some(only),
        (Some(_), Some(_)) => None,
    }
}

fn is_saturated(fleet: &Fleet, set: &ReplicaSet) -> bool {
    let all = fleet.replicas();
    number(set, sets::DESIRED) == Some(all) && sets::wanted(set) == all && sets::available(set) == all
}

fn proportion(fleet: &Fleet, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if sets::wanted(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let (share, left) = (fraction(fleet, set), to_add - added);
    // No more than what is left, in either direction.
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

fn fraction(fleet: &Fleet, set: &ReplicaSet) -> i32 {
    if fleet.replicas() == 0 {
        return -sets::wanted(set);
    }
    let before = number(set, sets::MAX).filter(|n| *n > 0).or(fleet.deployment.status.as_ref().and_then(|s| s.replicas)).unwrap_or(0);
    if before == 0 {
        return 0;
    }
    let now = f64::from(fleet.replicas() + fleet.max_surge());
    (f64::from(sets::wanted(set)) * now / f64::from(before)).round() as i32 - sets::wanted(set)
}
