use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tiphys_client::{Action, ClientError, Note, ObjectKey, Plan, controller_of};
use tiphys_meta::LabelSelector;
use tiphys_types::api::apps::v1::{Deployment, ReplicaSet};
use tiphys_types::owners::controller_reference;
use tiphys_types::selector;

use super::observe::Observed;
use super::sets::{self, Fleet};
use super::{recreate, rollback, rolling, scale, status};
use crate::shared::claim::Claim;
use crate::shared::pod::about;

pub(super) fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let deployment = &observed.deployment;
    let chosen = selector::from_typed(deployment.spec.as_ref().map(|s| &s.selector)).unwrap_or(LabelSelector::Nothing);
    if chosen.is_everything() {
        plan.note(Note::warning(
            &about(&**deployment),
            "SelectingAll",
            "This deployment is selecting all pods. A non-empty selector is required.",
        ));
        plan.update_status_if_changed(&**deployment, &status::only_observed(deployment));
        return plan;
    }
    let claim =
        Claim { owner: &deployment.metadata, reference: controller_reference::<Deployment>(&deployment.metadata), selector: &chosen };
    let claimed = claim.sort(observed.candidates.clone(), |_| true);
    plan.burst(claimed.actions);
    let fleet = Fleet::new(Arc::clone(deployment), claimed.objects);
    if deployment.metadata.deletion_timestamp.is_some() {
        plan.update_status_if_changed(&**deployment, &status::counted(&fleet, now));
    } else {
        decide(observed, &fleet, now, &mut plan);
    }
    plan
}

/// One move, and the status as it is before that move shows.
fn decide(observed: &Observed, fleet: &Fleet, now: Timestamp, plan: &mut Plan) {
    let deployment = &fleet.deployment;
    if let Some(changed) = status::paused_or_resumed(deployment, now) {
        return plan.act(Action::update_status(&changed));
    }
    if is_paused(deployment) {
        if !rename(fleet, plan) {
            scale::proportionally(fleet, plan);
            clean_up(fleet, plan);
        }
        return plan.update_status_if_changed(&**deployment, &status::counted(fleet, now));
    }
    if sets::annotation(&deployment.metadata, sets::ROLLBACK_TO).is_some() {
        return rollback::roll_back(fleet, plan);
    }
    if scale::is_scaling(fleet) {
        if !rename(fleet, plan) {
            scale::proportionally(fleet, plan);
        }
        return plan.update_status_if_changed(&**deployment, &status::counted(fleet, now));
    }
    let moved = rename(fleet, plan)
        || if fleet.is_rolling() { rolling::step(observed, fleet, now, plan) } else { recreate::step(observed, fleet, now, plan) };
    if !moved && status::is_complete(fleet, deployment.status.as_ref()) {
        clean_up(fleet, plan);
    }
    roll_out_status(fleet, now, plan);
}

fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false)
}

/// A creation carries its own status; everything else shows how far the roll-out is.
fn roll_out_status(fleet: &Fleet, now: Timestamp, plan: &mut Plan) {
    if plan.actions().any(|a| a.gvr.resource == "deployments" && a.summary().starts_with("update deployments/status")) {
        return;
    }
    let rolled = status::rolled(fleet, now);
    plan.update_status_if_changed(&*fleet.deployment, &rolled.deployment);
    if let Some(delay) = rolled.check_after {
        plan.again_after(delay);
    }
}

/// Annotations of the new ReplicaSet and the Deployment's revision. True where the ReplicaSet had to be written first.
fn rename(fleet: &Fleet, plan: &mut Plan) -> bool {
    if let Some(changed) = fleet.reannotated() {
        plan.act(Action::update(&changed));
        return true;
    }
    if fleet.new.is_some() {
        show_revision(fleet, plan);
    }
    false
}

fn show_revision(fleet: &Fleet, plan: &mut Plan) {
    let Some(revision) = fleet.revision_to_show() else { return };
    if sets::annotation(&fleet.deployment.metadata, sets::REVISION) != Some(&revision) {
        let show = |d: &mut Deployment| drop(d.metadata.annotations.get_or_insert_default().insert(sets::REVISION.into(), revision));
        plan.act(Action::update_with(&*fleet.deployment, show));
    }
}

/// The ReplicaSet of a new template.
pub(super) fn create(observed: &Observed, fleet: &Fleet, replicas: i32, now: Timestamp, plan: &mut Plan) {
    let new = fleet.make(replicas);
    let name = new.metadata.name.clone().unwrap_or_default();
    if observed.neighbours.iter().any(|s| s.metadata.name == new.metadata.name && !is_ours(fleet, s, &new)) {
        // Another template with the same hash: count up, and the name is another.
        return plan.act(Action::update_status(&status::with_collision(&fleet.deployment)));
    }
    let subject = about(&*fleet.deployment);
    let mut action = Action::create(&new).or_settled();
    action.failed = Some(Note::warning(&subject, "ReplicaSetCreateError", format!("Failed to create new replica set {name:?}: {{error}}")));
    if replicas > 0 {
        action.done = Some(Note::normal(&subject, "ScalingReplicaSet", format!("Scaled up replica set {name} from 0 to {replicas}")));
    }
    plan.act(action);
    show_revision(fleet, plan);
    let created = status::created(fleet, &name, now);
    plan.update_status_if_changed(&*fleet.deployment, &created);
    let deployment = Arc::clone(&fleet.deployment);
    plan.if_failed = Some(Box::new(move |error: &ClientError| status::create_failed(&deployment, &name, error, now)));
    plan.again_after(Duration::from_secs(1));
}

fn is_ours(fleet: &Fleet, set: &ReplicaSet, new: &ReplicaSet) -> bool {
    let template = |s: &ReplicaSet| s.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    controller_of(&set.metadata).is_some_and(|r| Some(&r.uid) == fleet.deployment.metadata.uid.as_ref())
        && sets::same_but_hash(&template(set), &template(new))
}

/// Old ReplicaSets beyond `revisionHistoryLimit`, the oldest revisions first; only those that are wholly empty.
pub(super) fn clean_up(fleet: &Fleet, plan: &mut Plan) {
    let Some(limit) = fleet.deployment.spec.as_ref().and_then(|s| s.revision_history_limit).filter(|l| *l < i32::MAX) else { return };
    let mut old: Vec<_> = fleet.old.iter().filter(|s| s.metadata.deletion_timestamp.is_none()).collect();
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.sort_by_key(|s| (sets::revision(&s.metadata), s.metadata.creation_timestamp.as_ref().map(|t| t.0)));
    for set in old.into_iter().take(surplus) {
        let seen = set.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
        if sets::actual(set) == 0 && sets::wanted(set) == 0 && set.metadata.generation.unwrap_or(0) <= seen {
            plan.act(Action::delete(&**set));
        }
    }
}

/// Brings a ReplicaSet to `size`. True where its size changes.
pub(super) fn resize(fleet: &Fleet, set: &Arc<ReplicaSet>, size: i32, force: bool, plan: &mut Plan) -> bool {
    let from = sets::wanted(set);
    if !force && from == size {
        return false;
    }
    let mut changed = ReplicaSet::clone(set);
    changed.spec.get_or_insert_default().replicas = Some(size);
    fleet.annotate_sizes(changed.metadata.annotations.get_or_insert_default());
    if changed == **set {
        return false;
    }
    let mut action = Action::update(&changed);
    if from != size {
        let direction = if from < size { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {from} to {size}", ObjectKey::of(&**set).name);
        action.done = Some(Note::normal(&about(&*fleet.deployment), "ScalingReplicaSet", message));
    }
    plan.act(action);
    from != size
}
