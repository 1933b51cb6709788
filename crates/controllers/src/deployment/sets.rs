//! The ReplicaSets of a Deployment: which is the new one, their revisions and annotations.

use std::collections::BTreeMap;
use std::sync::Arc;

use tiphys_types::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use tiphys_types::api::core::v1::PodTemplateSpec;
use tiphys_types::metav1::{LabelSelector, ObjectMeta};
use tiphys_types::owners::controller_reference;
use tiphys_types::rollout;

use crate::shared::pod::by_age;

pub(super) const HASH: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
pub(super) const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const NOT_COPIED: [&str; 6] = [LAST_APPLIED, REVISION, HISTORY, DESIRED, MAX, ROLLBACK_TO];
/// Upstream's bound for the list of earlier revisions.
const HISTORY_LENGTH: usize = 2000;

/// A Deployment with its ReplicaSets told apart.
pub(super) struct Fleet {
    pub(super) deployment: Arc<Deployment>,
    pub(super) new: Option<Arc<ReplicaSet>>,
    /// Oldest first.
    pub(super) old: Vec<Arc<ReplicaSet>>,
}

impl Fleet {
    pub(super) fn new(deployment: Arc<Deployment>, mut sets: Vec<Arc<ReplicaSet>>) -> Self {
        by_age(&mut sets);
        let wanted = template(&deployment);
        let new =
            sets.iter().find(|s| same_but_hash(&s.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default(), &wanted)).cloned();
        sets.retain(|s| new.as_ref().is_none_or(|n| n.metadata.uid != s.metadata.uid));
        Fleet { deployment, new, old: sets }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    pub(super) fn replicas(&self) -> i32 {
        spec_replicas_of(&self.deployment)
    }

    pub(super) fn name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or("")
    }

    pub(super) fn is_rolling(&self) -> bool {
        strategy_type(&self.deployment) != "Recreate"
    }

    /// `(surge, unavailable)`, both 0 for Recreate.
    fn fences(&self) -> (i32, i32) {
        let rolling = self.deployment.spec.as_ref().and_then(|s| s.strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
        if !self.is_rolling() {
            return (0, 0);
        }
        let (surge, unavailable) = (rolling.and_then(|r| r.max_surge.as_ref()), rolling.and_then(|r| r.max_unavailable.as_ref()));
        rollout::resolve_fenceposts(surge, unavailable, self.replicas()).unwrap_or((0, 1))
    }

    pub(super) fn max_surge(&self) -> i32 {
        self.fences().0
    }

    pub(super) fn max_unavailable(&self) -> i32 {
        if self.replicas() == 0 { 0 } else { self.fences().1.min(self.replicas()) }
    }

    /// One more than the highest among the old ones.
    fn next_revision(&self) -> i64 {
        self.old.iter().map(|s| revision(&s.metadata)).max().unwrap_or(0) + 1
    }

    /// The new ReplicaSet as it should be annotated; None where it is so.
    pub(super) fn reannotated(&self) -> Option<ReplicaSet> {
        let set = self.new.as_ref()?;
        let mut changed = ReplicaSet::clone(set);
        self.annotate(&mut changed.metadata, true);
        let min_ready = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        if let Some(spec) = &mut changed.spec {
            spec.min_ready_seconds = min_ready;
        }
        (changed != **set).then_some(changed)
    }

    /// The revision that the Deployment should show.
    pub(super) fn revision_to_show(&self) -> Option<String> {
        match &self.new {
            Some(set) => set.metadata.annotations.as_ref().and_then(|a| a.get(REVISION).cloned()),
            None => Some(self.next_revision().to_string()),
        }
    }

    fn annotate(&self, meta: &mut ObjectMeta, exists: bool) {
        let annotations = meta.annotations.get_or_insert_default();
        for (key, value) in self.deployment.metadata.annotations.iter().flatten() {
            if !NOT_COPIED.contains(&key.as_str()) {
                annotations.insert(key.clone(), value.clone());
            }
        }
        let next = self.next_revision();
        let own = annotations.get(REVISION).cloned();
        let number = own.as_deref().map_or(Some(0), |o| o.parse::<i64>().ok());
        if number.is_some_and(|n| n < next) {
            annotations.insert(REVISION.into(), next.to_string());
            if let Some(own) = own {
                remember(annotations, own);
            }
        }
        if !exists {
            self.annotate_sizes(annotations);
        }
    }

    pub(super) fn annotate_sizes(&self, annotations: &mut BTreeMap<String, String>) {
        annotations.insert(DESIRED.into(), self.replicas().to_string());
        annotations.insert(MAX.into(), (self.replicas() + self.max_surge()).to_string());
    }

    /// A ReplicaSet for the template as it is now.
    pub(super) fn make(&self, replicas: i32) -> ReplicaSet {
        let spec = self.deployment.spec.clone().unwrap_or_default();
        let collisions = self.deployment.status.as_ref().and_then(|s| s.collision_count);
        let hash = rollout::template_hash(&spec.template, collisions);
        let mut template = spec.template;
        let labels = {
            let meta = template.metadata.get_or_insert_default();
            meta.labels.get_or_insert_default().insert(HASH.into(), hash.clone());
            meta.labels.clone()
        };
        let mut selector: LabelSelector = spec.selector;
        selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.clone());
        let mut metadata = ObjectMeta {
            name: Some(format!("{}-{hash}", self.name())),
            namespace: self.deployment.metadata.namespace.clone(),
            labels,
            owner_references: Some(vec![controller_reference::<Deployment>(&self.deployment.metadata)]),
            ..Default::default()
        };
        self.annotate(&mut metadata, false);
        let spec =
            ReplicaSetSpec { replicas: Some(replicas), min_ready_seconds: spec.min_ready_seconds, selector, template: Some(template) };
        ReplicaSet { metadata, spec: Some(spec), status: None }
    }
}

/// Adds to the list of revisions that a ReplicaSet has had before, dropping the oldest where it grows too long.
fn remember(annotations: &mut BTreeMap<String, String>, revision: String) {
    let history = annotations.get(HISTORY).cloned().unwrap_or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
    revisions.push(&revision);
    while revisions.len() > 1 && revisions.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_LENGTH + 1 {
        revisions.remove(0);
    }
    let joined = revisions.join(",");
    annotations.insert(HISTORY.into(), joined);
}

pub(super) fn template(deployment: &Deployment) -> PodTemplateSpec {
    deployment.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default()
}

/// Both were defaulted by the server, so equal means equal.
pub(super) fn same_but_hash(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    without_hash(a) == without_hash(b)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH);
    }
    if let Some(meta) = template.metadata.as_mut() {
        meta.creation_timestamp = None;
        meta.labels = meta.labels.take().filter(|l| !l.is_empty());
    }
    if template.metadata == Some(ObjectMeta::default()) {
        template.metadata = None;
    }
    template
}

pub(super) fn strategy_type(deployment: &Deployment) -> &str {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate")
}

pub(super) fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

pub(super) fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

fn spec_replicas_of(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(super) fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(super) fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |s| s.replicas)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

pub(super) fn ready(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
}

pub(super) fn is_active(set: &ReplicaSet) -> bool {
    wanted(set) > 0
}
