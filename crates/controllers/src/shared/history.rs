//! ControllerRevisions: the templates that a DaemonSet or StatefulSet has had.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tiphys_client::{Action, controller_of};
use tiphys_types::api::apps::v1::ControllerRevision;
use tiphys_types::api::core::v1::PodTemplateSpec;
use tiphys_types::apimachinery::pkg::runtime::RawExtension;
use tiphys_types::metav1::{ObjectMeta, OwnerReference};
use tiphys_types::rollout;

pub(crate) const HASH: &str = "controller-revision-hash";

pub(crate) struct Owner<'a> {
    pub(crate) meta: &'a ObjectMeta,
    pub(crate) reference: OwnerReference,
    pub(crate) template: &'a PodTemplateSpec,
    pub(crate) collisions: Option<i32>,
    /// The label that carries the hash: StatefulSets have their own.
    pub(crate) label: &'static str,
}

/// The revision of the template as it is now, and what makes it so. Sorted: oldest first.
pub(crate) struct History {
    pub(crate) current: ControllerRevision,
    /// Revisions that are not the current one.
    pub(crate) old: Vec<Arc<ControllerRevision>>,
    pub(crate) actions: Vec<Action>,
    /// The name that the current one should have is taken by a stranger.
    pub(crate) collides: bool,
}

/// As upstream keeps it: a patch that puts the template back.
pub(crate) fn data_of(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or(Value::Null);
    if let Value::Object(map) = &mut template {
        map.insert("$patch".into(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// `revisions` are the owner's own, `neighbours` all of its namespace.
pub(crate) fn sync(owner: &Owner<'_>, mut revisions: Vec<Arc<ControllerRevision>>, neighbours: &[Arc<ControllerRevision>]) -> History {
    revisions.sort_by(|a, b| (a.revision, &a.metadata.name).cmp(&(b.revision, &b.metadata.name)));
    let data = data_of(owner.template);
    let next = revisions.last().map_or(0, |r| r.revision) + 1;
    // Of several that are equal the newest is kept as the current one.
    let found = revisions.iter().rposition(|r| r.data.as_ref().is_some_and(|d| d.0 == data));
    if let Some(at) = found {
        let current = revisions.remove(at);
        let mut renewed = ControllerRevision::clone(&current);
        let mut actions = Vec::new();
        if current.revision != next - 1 {
            renewed.revision = next;
            actions.push(Action::update(&renewed));
        }
        return History { current: renewed, old: revisions, actions, collides: false };
    }
    let hash = rollout::template_hash(&data, owner.collisions);
    let name = format!("{}-{hash}", owner.meta.name.as_deref().unwrap_or(""));
    let stranger = |r: &ControllerRevision| controller_of(&r.metadata).is_none_or(|o| Some(&o.uid) != owner.meta.uid.as_ref());
    let collides = neighbours.iter().any(|r| r.metadata.name.as_ref() == Some(&name) && stranger(r));
    let mut labels: BTreeMap<String, String> = owner.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(owner.label.into(), hash);
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: owner.meta.namespace.clone(),
        labels: Some(labels),
        annotations: owner.meta.annotations.clone(),
        owner_references: Some(vec![owner.reference.clone()]),
        ..Default::default()
    };
    let current = ControllerRevision { metadata, data: Some(RawExtension(data)), revision: next };
    let actions = if collides { Vec::new() } else { vec![Action::create(&current)] };
    History { current, old: revisions, actions, collides }
}

impl History {
    pub(crate) fn hash(&self) -> &str {
        let labels = self.current.metadata.labels.as_ref();
        labels.and_then(|l| l.get(HASH).or_else(|| l.get("controller.kubernetes.io/hash"))).map_or("", String::as_str)
    }

    pub(crate) fn name(&self) -> &str {
        self.current.metadata.name.as_deref().unwrap_or("")
    }

    /// Deletes old revisions beyond `limit`, the oldest first, but none that is in use.
    pub(crate) fn surplus(&self, limit: i32, is_live: impl Fn(&ControllerRevision) -> bool) -> Vec<Action> {
        let dead: Vec<_> = self.old.iter().filter(|r| !is_live(r)).collect();
        let many = dead.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        dead.into_iter().take(many).map(|r| Action::delete(&**r)).collect()
    }
}
