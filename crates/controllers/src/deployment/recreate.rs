use jiff::Timestamp;
use tiphys_client::Plan;

use super::observe::Observed;
use super::plan::{create, resize};
use super::sets::{self, Fleet};

/// All old pods go, and are gone, before the first new one comes. True where something moved.
pub(super) fn step(observed: &Observed, fleet: &Fleet, now: Timestamp, plan: &mut Plan) -> bool {
    let mut moved = false;
    for set in fleet.old.iter().filter(|s| sets::is_active(s)) {
        moved |= resize(fleet, set, 0, false, plan);
    }
    if moved || old_pods_remain(observed, fleet) {
        return moved;
    }
    match &fleet.new {
        None => {
            create(observed, fleet, fleet.replicas(), now, plan);
            true
        }
        Some(new) => resize(fleet, new, fleet.replicas(), false, plan),
    }
}

/// Pods that are being deleted count: two templates may not run at once.
fn old_pods_remain(observed: &Observed, fleet: &Fleet) -> bool {
    let old = |uid: &str| fleet.old.iter().any(|s| s.metadata.uid.as_deref() == Some(uid));
    observed.unfinished_pods.iter().any(|(uid, count)| *count > 0 && old(uid))
}
