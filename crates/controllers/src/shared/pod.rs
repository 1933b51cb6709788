//! Pods from templates, and which of several is missed least.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;
use tiphys_client::{Action, Note, reference_to};
use tiphys_types::api::core::v1::{Pod, PodTemplateSpec};
use tiphys_types::metav1::{ObjectMeta, OwnerReference};
use tiphys_types::pods;

/// A pod as a controller makes it; the server finds the rest of its name.
pub(crate) fn from_template(template: &PodTemplateSpec, namespace: &str, owner_name: &str, owner: OwnerReference) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{owner_name}-")),
        namespace: Some(namespace.to_owned()),
        labels: from.labels,
        annotations: from.annotations,
        finalizers: from.finalizers,
        owner_references: Some(vec![owner]),
        ..Default::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: None }
}

/// Upstream's events around making and removing a pod.
pub(crate) fn create(pod: &Pod, about: &tiphys_types::api::core::v1::ObjectReference) -> Action {
    Action::create(pod).say_when_done(Note::normal(about, "SuccessfulCreate", "Created pod: {name}")).say_when_failed(Note::warning(
        about,
        "FailedCreate",
        "Error creating: {error}",
    ))
}

pub(crate) fn delete(pod: &Pod, about: &tiphys_types::api::core::v1::ObjectReference) -> Action {
    Action::delete(pod).say_when_done(Note::normal(about, "SuccessfulDelete", "Deleted pod: {name}")).say_when_failed(Note::warning(
        about,
        "FailedDelete",
        "Error deleting: {error}",
    ))
}

pub(crate) fn about<K: tiphys_client::Kube>(object: &K) -> tiphys_types::api::core::v1::ObjectReference {
    reference_to(object)
}

/// Sorts so that the first is the one to remove: without a node before placed, pending before running, unready before ready, cheap before dear
/// (`controller.kubernetes.io/pod-deletion-cost`), on crowded nodes before lonely ones (`rank`), ready for a short time before long, restarted
/// often before seldom, young before old. Times are compared by their order of magnitude, so that the youngest are not always the ones to go.
pub(crate) fn sort_for_deletion(pods: &mut [(Arc<Pod>, usize)], now: Timestamp) {
    pods.sort_by(|(a, rank_a), (b, rank_b)| {
        before_times(a)
            .cmp(&before_times(b))
            .then(rank_b.cmp(rank_a))
            .then_with(|| by_magnitude(ready_since(a), ready_since(b), now))
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| by_magnitude(created(a), created(b), now))
            .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
    });
}

fn before_times(pod: &Pod) -> (bool, u8, bool, i32) {
    let phase = match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    (!pods::node_name(pod).is_empty(), phase, pods::is_ready(pod), deletion_cost(pod))
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost")).and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = pod.status.as_ref().and_then(|s| pods::condition(s, pods::READY)).filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
    statuses.map(|s| s.restart_count).max().unwrap_or(0)
}

/// The younger magnitude first (KEP-2185).
fn by_magnitude(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |t: Timestamp| (now.as_nanosecond() - t.as_nanosecond()).max(1).ilog2();
    match (a, b) {
        (Some(a), Some(b)) if a != b => magnitude(a).cmp(&magnitude(b)),
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

/// Oldest first, then by name: the order that upstream's creation timestamp sorts give.
pub(crate) fn by_age<K: tiphys_client::Kube>(objects: &mut [Arc<K>]) {
    objects.sort_by(|a, b| age_key(&**a).cmp(&age_key(&**b)));
}

fn age_key<K: tiphys_client::Kube>(object: &K) -> (Option<Timestamp>, Option<String>) {
    let meta = object.metadata();
    (meta.creation_timestamp.as_ref().map(|t| t.0), meta.name.clone())
}
