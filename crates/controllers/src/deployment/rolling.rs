use std::sync::Arc;

use jiff::Timestamp;
use tiphys_client::Plan;
use tiphys_types::api::apps::v1::ReplicaSet;

use super::observe::Observed;
use super::plan::{create, resize};
use super::sets::{self, Fleet};

/// Up with the new as far as the surge allows, else down with the old as far as availability allows. True where something moved.
pub(super) fn step(observed: &Observed, fleet: &Fleet, now: Timestamp, plan: &mut Plan) -> bool {
    let Some(new) = &fleet.new else {
        create(observed, fleet, size_of_new(fleet, 0), now, plan);
        return true;
    };
    scale_up(fleet, new, plan) || scale_down(fleet, new, plan)
}

fn scale_up(fleet: &Fleet, new: &Arc<ReplicaSet>, plan: &mut Plan) -> bool {
    let (has, wants) = (sets::wanted(new), fleet.replicas());
    if has == wants {
        return false;
    }
    let size = if has > wants { wants } else { size_of_new(fleet, has) };
    resize(fleet, new, size, false, plan)
}

fn size_of_new(fleet: &Fleet, has: i32) -> i32 {
    let total: i32 = fleet.all().map(|s| sets::wanted(s)).sum();
    let room = fleet.replicas() + fleet.max_surge() - total;
    if room <= 0 { has } else { has + room.min(fleet.replicas() - has) }
}

fn scale_down(fleet: &Fleet, new: &ReplicaSet, plan: &mut Plan) -> bool {
    let old: Vec<&Arc<ReplicaSet>> = fleet.old.iter().filter(|s| sets::is_active(s)).collect();
    if old.is_empty() {
        return false;
    }
    let total: i32 = fleet.all().map(|s| sets::wanted(s)).sum();
    let least = fleet.replicas() - fleet.max_unavailable();
    // New pods that are not available yet may not be counted on.
    let mut may_go = total - least - (sets::wanted(new) - sets::available(new));
    if may_go <= 0 {
        return false;
    }
    let mut sizes: Vec<i32> = old.iter().map(|s| sets::wanted(s)).collect();
    // Unhealthy ones first, or a rollout that fails could block itself.
    for (set, size) in old.iter().zip(&mut sizes) {
        let unhealthy = (*size - sets::available(set)).clamp(0, may_go);
        *size -= unhealthy;
        may_go -= unhealthy;
    }
    let available: i32 = old.iter().map(|s| sets::available(s)).sum::<i32>() + sets::available(new);
    let mut healthy = (available - least).max(0);
    for size in &mut sizes {
        let going = healthy.min(*size);
        *size -= going;
        healthy -= going;
    }
    let mut moved = false;
    for (set, size) in old.into_iter().zip(sizes) {
        moved |= resize(fleet, set, size, false, plan);
    }
    moved
}
