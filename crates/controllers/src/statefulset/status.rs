use std::sync::Arc;

use jiff::Timestamp;
use tiphys_types::api::apps::v1::{StatefulSet, StatefulSetStatus};
use tiphys_types::api::core::v1::Pod;
use tiphys_types::pods;

use super::identity::revision_of;

pub(super) fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(super) fn min_ready(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
}

pub(super) fn is_running_and_ready(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

pub(super) fn is_healthy(set: &StatefulSet, pod: &Pod, now: Timestamp) -> bool {
    is_running_and_ready(pod) && !pods::is_terminating(pod) && pods::is_available(pod, min_ready(set), now)
}

pub(super) fn is_rolling(set: &StatefulSet) -> bool {
    set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|s| s.type_.as_deref()) != Some("OnDelete")
}

pub(super) fn next(set: &StatefulSet, pods: &[Arc<Pod>], current: &str, update: &str, now: Timestamp) -> StatefulSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let there = || pods.iter().filter(|p| !pods::phase(p).is_empty());
    let count = |of: &dyn Fn(&Pod) -> bool| there().filter(|p| of(p)).count() as i32;
    let total = there().count() as i32;
    let ready = count(&is_running_and_ready);
    let mut on_current = count(&|p| !pods::is_terminating(p) && revision_of(p) == current);
    let updated = count(&|p| !pods::is_terminating(p) && revision_of(p) == update);
    let mut current = current;
    let all = replicas(set);
    if is_rolling(set) && updated == all && ready == all && total == all {
        (current, on_current) = (update, updated);
    }
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: total,
        ready_replicas: some(ready),
        available_replicas: Some(count(&|p| is_running_and_ready(p) && pods::is_available(p, min_ready(set), now))),
        current_replicas: some(on_current),
        updated_replicas: some(updated),
        current_revision: Some(current.to_owned()),
        update_revision: Some(update.to_owned()),
        collision_count: Some(old.collision_count.unwrap_or(0)),
        conditions: old.conditions,
    }
}

/// Zeros are absent in the canonical form.
fn some(count: i32) -> Option<i32> {
    Some(count).filter(|c| *c != 0)
}
