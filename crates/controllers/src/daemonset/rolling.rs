use std::sync::Arc;

use tiphys_client::{Action, Plan};
use tiphys_meta::intstr::Round;
use tiphys_types::api::apps::v1::DaemonSet;
use tiphys_types::api::core::v1::Pod;
use tiphys_types::apimachinery::pkg::util::intstr::IntOrString;
use tiphys_types::{pods, rollout};

use super::plan::{View, wait_for_ready};
use super::pods_for::{Wanted, pod_for, wanted};
use crate::shared::pod;

/// Replaces old pods as far as `maxUnavailable` or `maxSurge` allow. `OnDelete` waits for the user.
pub(super) fn step(view: &View<'_>, plan: &mut Plan) {
    wait_for_ready(view, plan);
    let strategy = view.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return;
    }
    if surges(view.set) { with_surge(view, plan) } else { without_surge(view, plan) }
}

pub(super) fn surges(set: &DaemonSet) -> bool {
    limit(set, |r| r.max_surge.as_ref(), 100).is_some_and(|n| n > 0)
}

fn limit(
    set: &DaemonSet,
    field: impl Fn(&tiphys_types::api::apps::v1::RollingUpdateDaemonSet) -> Option<&IntOrString>,
    total: i32,
) -> Option<i32> {
    let rolling = set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref()?;
    rollout::scaled(field(rolling)?, total, Round::Up)
}

fn desired(view: &View<'_>) -> i32 {
    view.nodes.iter().filter(|n| wanted(view.set, n) == Wanted::Run).count() as i32
}

/// The old and the new pod of a node; None where there is more than one of a sort, which `manage` will mend.
fn pair<'a>(view: &View<'_>, there: &'a [Arc<Pod>]) -> Option<(Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>)> {
    let (mut old, mut new) = (None, None);
    for pod in there.iter().filter(|p| !pods::is_terminating(p)) {
        let place = if view.is_new(pod) { &mut new } else { &mut old };
        if place.replace(pod).is_some() {
            return None;
        }
    }
    Some((old, new))
}

fn without_surge(view: &View<'_>, plan: &mut Plan) {
    let allowed = limit(view.set, |r| r.max_unavailable.as_ref(), desired(view)).unwrap_or(1).max(1);
    let (mut unavailable, mut broken, mut healthy) = (0, Vec::new(), Vec::new());
    for there in view.by_node.values() {
        match pair(view, there) {
            None | Some((None, None) | (Some(_), Some(_))) => unavailable += 1,
            Some((None, Some(new))) => unavailable += i32::from(!view.is_available(new)),
            // What does not work may be replaced at no price.
            Some((Some(old), None)) if !view.is_available(old) => {
                unavailable += 1;
                broken.push(old);
            }
            Some((Some(old), None)) => healthy.push(old),
        }
    }
    let room = usize::try_from(allowed - unavailable).unwrap_or(0);
    let going = broken.into_iter().chain(healthy.into_iter().take(room));
    let about = pod::about(view.set);
    plan.burst(going.map(|p| pod::delete(p, &about)).collect());
}

fn with_surge(view: &View<'_>, plan: &mut Plan) {
    let allowed = limit(view.set, |r| r.max_surge.as_ref(), desired(view)).unwrap_or(1);
    let (mut surging, mut at_once, mut candidates, mut delete) = (0, Vec::new(), Vec::new(), Vec::new());
    for (node, there) in &view.by_node {
        match pair(view, there) {
            None => surging += 1,
            Some((None, _)) => {}
            Some((Some(old), None)) if !view.is_available(old) => at_once.push(node),
            Some((Some(_), None)) => candidates.push(node),
            Some((Some(old), Some(new))) if view.is_available(new) => delete.push(old),
            Some((Some(_), Some(_))) => surging += 1,
        }
    }
    let about = pod::about(view.set);
    let room = usize::try_from(allowed - surging).unwrap_or(0);
    let nodes = at_once.into_iter().chain(candidates.into_iter().take(room));
    let create: Vec<Action> = nodes.map(|n| pod::create(&pod_for(view.set, n, &view.hash), &about)).collect();
    plan.burst(delete.into_iter().map(|p| pod::delete(p, &about)).collect());
    plan.burst(create);
}
