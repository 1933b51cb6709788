use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tiphys_client::{Action, Note, Patch, Plan};
use tiphys_meta::LabelSelector;
use tiphys_types::api::apps::v1::{ControllerRevision, StatefulSet};
use tiphys_types::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use tiphys_types::metav1::{ObjectMeta, OwnerReference};
use tiphys_types::owners::controller_reference;
use tiphys_types::pods::{self, Availability};
use tiphys_types::selector;

use super::{identity, status};
use crate::shared::claim::Claim;
use crate::shared::history::{self, History};
use crate::shared::pod::about;

const HASH: &str = "controller.kubernetes.io/hash";

pub(super) struct Observed {
    pub(super) set: Arc<StatefulSet>,
    pub(super) candidates: Vec<Arc<Pod>>,
    pub(super) claims: Vec<Arc<PersistentVolumeClaim>>,
    pub(super) revisions: Vec<Arc<ControllerRevision>>,
    pub(super) neighbours: Vec<Arc<ControllerRevision>>,
}

/// A template and the name of its revision.
struct Version {
    name: String,
    template: PodTemplateSpec,
}

struct View<'a> {
    observed: &'a Observed,
    set: &'a StatefulSet,
    current: Version,
    update: Version,
    /// By ordinal.
    pods: BTreeMap<i32, Arc<Pod>>,
    now: Timestamp,
}

pub(super) fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let (set, mut plan) = (&observed.set, Plan::default());
    let chosen = selector::from_typed(set.spec.as_ref().map(|s| &s.selector)).unwrap_or(LabelSelector::Nothing);
    let reference = controller_reference::<StatefulSet>(&set.metadata);
    let claim = Claim { owner: &set.metadata, reference, selector: &chosen };
    let mut claimed = claim.sort(observed.candidates.clone(), |p| identity::ordinal(set, p).is_some());
    plan.burst(std::mem::take(&mut claimed.actions));
    let history = history_of(observed);
    if history.collides {
        let mut next = StatefulSet::clone(set);
        let status = next.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        plan.act(Action::update_status(&next));
        return plan;
    }
    history.actions.iter().cloned().for_each(|a| plan.act(a));
    let view = View::new(observed, &history, &claimed.objects, now);
    if set.metadata.deletion_timestamp.is_none() {
        view.decide(&mut plan);
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let live = |r: &ControllerRevision| {
            let name = r.metadata.name.as_deref().unwrap_or("");
            name == view.current.name || claimed.objects.iter().any(|p| identity::revision_of(p) == name)
        };
        plan.burst(history.surplus(limit, live));
    }
    let next = status::next(set, &claimed.objects, &view.current.name, &view.update.name, now);
    plan.update_status_if_changed(&**set, &StatefulSet { status: Some(next), ..StatefulSet::clone(set) });
    for pod in &claimed.objects {
        if let Availability::In(seconds) = pods::availability(pod, status::min_ready(set), now) {
            plan.again_after(Duration::from_secs(u64::try_from(seconds).unwrap_or(1)));
        }
    }
    plan
}

fn history_of(observed: &Observed) -> History {
    let set = &observed.set;
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let owner = history::Owner {
        meta: &set.metadata,
        reference: controller_reference::<StatefulSet>(&set.metadata),
        template: &template,
        collisions: set.status.as_ref().and_then(|s| s.collision_count),
        label: HASH,
    };
    history::sync(&owner, observed.revisions.clone(), &observed.neighbours)
}

impl<'a> View<'a> {
    fn new(observed: &'a Observed, history: &History, claimed: &[Arc<Pod>], now: Timestamp) -> Self {
        let set = &*observed.set;
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let update = Version { name: history.name().to_owned(), template: template.clone() };
        let wanted = set.status.as_ref().and_then(|s| s.current_revision.as_deref()).unwrap_or("");
        let current = history.old.iter().find(|r| r.metadata.name.as_deref() == Some(wanted));
        let current = current.and_then(|r| Some(Version { name: wanted.to_owned(), template: identity::template_of(r)? }));
        let current = current.unwrap_or_else(|| Version { name: update.name.clone(), template });
        let pods = claimed.iter().filter_map(|p| Some((identity::ordinal(set, p)?, Arc::clone(p)))).collect();
        View { observed, set, current, update, pods, now }
    }

    fn is_ordered(&self) -> bool {
        self.set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref()) != Some("Parallel")
    }

    fn partition(&self) -> Option<i32> {
        let rolling = self.set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref()?;
        Some(rolling.partition.unwrap_or(0))
    }

    fn range(&self) -> std::ops::Range<i32> {
        let first = identity::first_ordinal(self.set);
        first..first + status::replicas(self.set)
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        status::is_healthy(self.set, pod, self.now)
    }

    /// Replicas first, then those beyond the range, then updates: each only when what comes before is settled.
    fn decide(&self, plan: &mut Plan) {
        let mut settled = true;
        for ordinal in self.range() {
            settled &= self.replica(ordinal, plan);
            if self.is_ordered() && !settled {
                return;
            }
        }
        if !settled && !self.is_ordered() && !plan.is_empty() {
            // What is being made now is not replaced in the same breath.
            self.condemned(plan);
            return;
        }
        if self.condemned(plan) && status::is_rolling(self.set) {
            self.update_one(plan);
        }
    }

    /// True where the replica stands as it should.
    fn replica(&self, ordinal: i32, plan: &mut Plan) -> bool {
        let Some(pod) = self.pods.get(&ordinal) else {
            self.create(ordinal, plan);
            return false;
        };
        if pods::is_terminal(pod) {
            if !pods::is_terminating(pod) {
                plan.act(self.delete(pod));
            }
            return false;
        }
        if pods::phase(pod) == "Pending" {
            self.create_claims(ordinal, pod, plan);
        }
        if self.is_ordered() && !self.is_healthy(pod) {
            return false;
        }
        if let Some(labels) = identity::missing_labels(self.set, pod) {
            let patch = json!({"metadata": {"uid": pod.metadata.uid, "labels": labels}});
            plan.act(Action::patch(&**pod, "", Patch::Strategic(patch)).or_settled());
        }
        self.own_claims(ordinal, pod, false, plan);
        true
    }

    fn version_for(&self, ordinal: i32) -> &Version {
        let first = identity::first_ordinal(self.set);
        let on_current = match self.partition() {
            _ if !status::is_rolling(self.set) => false,
            Some(partition) => ordinal < first + partition,
            None => ordinal < first + self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0),
        };
        if on_current { &self.current } else { &self.update }
    }

    fn create(&self, ordinal: i32, plan: &mut Plan) {
        let version = self.version_for(ordinal);
        let new = identity::make(self.set, &version.template, &version.name, ordinal);
        let leaving =
            identity::claims(self.set, ordinal).iter().any(|(_, c)| self.claim(c).is_some_and(|c| c.metadata.deletion_timestamp.is_some()));
        if leaving {
            // The old claim must be gone before a new pod may ask for it; its going wakes no one here.
            return plan.again_after(Duration::from_secs(1));
        }
        self.create_claims(ordinal, &new, plan);
        let (subject, set) = (about(self.set), identity::name_of(self.set));
        let name = new.metadata.name.as_deref().unwrap_or("");
        let made = Note::normal(&subject, "SuccessfulCreate", format!("create Pod {name} in StatefulSet {set} successful"));
        let failed = Note::warning(&subject, "FailedCreate", format!("create Pod {name} in StatefulSet {set} failed error: {{error}}"));
        plan.act(Action::create(&new).say_when_done(made).say_when_failed(failed));
    }

    fn claim(&self, wanted: &PersistentVolumeClaim) -> Option<&Arc<PersistentVolumeClaim>> {
        self.observed.claims.iter().find(|c| c.metadata.name == wanted.metadata.name)
    }

    fn create_claims(&self, ordinal: i32, pod: &Pod, plan: &mut Plan) {
        let (subject, set) = (about(self.set), identity::name_of(self.set));
        let pod = pod.metadata.name.as_deref().unwrap_or("");
        for (_, mut claim) in identity::claims(self.set, ordinal) {
            if self.claim(&claim).is_some() {
                continue;
            }
            if self.retention("whenDeleted") {
                claim.metadata.owner_references = Some(vec![set_reference(self.set)]);
            }
            let name = claim.metadata.name.clone().unwrap_or_default();
            let made = Note::normal(&subject, "SuccessfulCreate", format!("create Claim {name} Pod {pod} in StatefulSet {set} success"));
            let failed = Note::warning(
                &subject,
                "FailedCreate",
                format!("create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {{error}}"),
            );
            plan.act(Action::create(&claim).or_settled().say_when_done(made).say_when_failed(failed));
        }
    }

    /// `persistentVolumeClaimRetentionPolicy` says `Delete` for this occasion.
    fn retention(&self, occasion: &str) -> bool {
        let policy = self.set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
        let value = policy.and_then(|p| if occasion == "whenDeleted" { p.when_deleted.as_deref() } else { p.when_scaled.as_deref() });
        value == Some("Delete")
    }

    /// Claims are owned by the set, or by a condemned pod, where the policy wants them to go with it (KEP-1847).
    fn own_claims(&self, ordinal: i32, pod: &Pod, condemned: bool, plan: &mut Plan) {
        let set_uid = self.set.metadata.uid.as_deref().unwrap_or("");
        let pod_uid = pod.metadata.uid.as_deref().unwrap_or("");
        for (_, wanted) in identity::claims(self.set, ordinal) {
            let Some(claim) = self.claim(&wanted) else { continue };
            let old = claim.metadata.owner_references.clone().unwrap_or_default();
            let mut next: Vec<OwnerReference> = old.iter().filter(|r| r.uid != set_uid && r.uid != pod_uid).cloned().collect();
            if condemned && self.retention("whenScaled") {
                next.push(plain_reference("v1", "Pod", &pod.metadata));
            } else if self.retention("whenDeleted") {
                next.push(set_reference(self.set));
            }
            let uids = |list: &[OwnerReference]| list.iter().map(|r| r.uid.clone()).collect::<std::collections::BTreeSet<_>>();
            if uids(&old) != uids(&next) {
                let references = Some(next).filter(|n| !n.is_empty());
                plan.act(Action::update_with(&**claim, |c| c.metadata.owner_references = references).or_settled());
            }
        }
    }

    /// The highest goes first. True where none is left.
    fn condemned(&self, plan: &mut Plan) -> bool {
        let range = self.range();
        let beyond: Vec<(&i32, &Arc<Pod>)> = self.pods.iter().filter(|(ordinal, _)| !range.contains(ordinal)).rev().collect();
        let first_unhealthy = self.pods.values().find(|p| !self.is_healthy(p)).and_then(|p| p.metadata.uid.as_deref());
        for (ordinal, pod) in &beyond {
            self.own_claims(**ordinal, pod, true, plan);
            if pods::is_terminating(pod) {
                if self.is_ordered() {
                    return false;
                }
                continue;
            }
            // A sick one may go; a healthy one waits until those before it are well.
            if self.is_ordered() && !self.is_healthy(pod) && pod.metadata.uid.as_deref() != first_unhealthy {
                return false;
            }
            plan.act(self.delete(pod));
            if self.is_ordered() {
                return false;
            }
        }
        beyond.is_empty()
    }

    /// From the highest down to the partition, one at a time.
    fn update_one(&self, plan: &mut Plan) {
        let least = identity::first_ordinal(self.set) + self.partition().unwrap_or(0);
        for ordinal in self.range().rev().filter(|o| *o >= least) {
            let Some(pod) = self.pods.get(&ordinal) else { return };
            if identity::revision_of(pod) != self.update.name && !pods::is_terminating(pod) {
                return plan.act(self.delete(pod));
            }
            if !self.is_healthy(pod) {
                return;
            }
        }
    }

    fn delete(&self, pod: &Pod) -> Action {
        let (subject, set, name) = (about(self.set), identity::name_of(self.set), pod.metadata.name.as_deref().unwrap_or(""));
        Action::delete(pod)
            .say_when_done(Note::normal(&subject, "SuccessfulDelete", format!("delete Pod {name} in StatefulSet {set} successful")))
            .say_when_failed(Note::warning(
                &subject,
                "FailedDelete",
                format!("delete Pod {name} in StatefulSet {set} failed error: {{error}}"),
            ))
    }
}

fn set_reference(set: &StatefulSet) -> OwnerReference {
    plain_reference("apps/v1", "StatefulSet", &set.metadata)
}

/// An owner that does not control.
fn plain_reference(api_version: &str, kind: &str, meta: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    }
}
