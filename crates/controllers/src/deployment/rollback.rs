//! `deprecated.deployment.rollback.to`, which clients of the old API group still set.

use tiphys_client::{Action, Note, Plan};
use tiphys_types::api::apps::v1::Deployment;

use super::sets::{self, Fleet};
use crate::shared::pod::about;

pub(super) fn roll_back(fleet: &Fleet, plan: &mut Plan) {
    let deployment = &fleet.deployment;
    let asked: i64 = sets::annotation(&deployment.metadata, sets::ROLLBACK_TO).and_then(|r| r.parse().ok()).unwrap_or(0);
    let mut revisions: Vec<i64> = fleet.all().map(|s| sets::revision(&s.metadata)).collect();
    revisions.sort_unstable();
    // 0 means the one before the last.
    let wanted = if asked == 0 { revisions.iter().rev().nth(1).copied().unwrap_or(0) } else { asked };
    let target = fleet.all().find(|s| wanted != 0 && sets::revision(&s.metadata) == wanted);
    let forget = Action::update_with(&**deployment, |d| drop(d.metadata.annotations.get_or_insert_default().remove(sets::ROLLBACK_TO)));
    let say = |note: Note| forget.clone().say_when_done(note);
    let subject = about(&**deployment);
    let Some(target) = target else {
        return plan.act(say(Note::warning(&subject, "DeploymentRollbackRevisionNotFound", "Unable to find the revision to rollback to.")));
    };
    let template = target.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    if sets::same_but_hash(&template, &sets::template(deployment)) {
        let same = "The rollback revision contains the same template as current deployment";
        return plan.act(say(Note::warning(&subject, "DeploymentRollbackTemplateUnchanged", format!("{same} {:?}", fleet.name()))));
    }
    let mut back = Deployment::clone(deployment);
    let spec = back.spec.get_or_insert_default();
    spec.template = template;
    if let Some(labels) = spec.template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(sets::HASH);
    }
    back.metadata.annotations.get_or_insert_default().remove(sets::ROLLBACK_TO);
    let message = format!("Rolled back deployment {:?} to revision {wanted}", fleet.name());
    plan.act(Action::update(&back).say_when_done(Note::normal(&subject, "DeploymentRollback", message)));
}
