//! Names, ordinals, claims: what makes a pod of a StatefulSet itself.

use tiphys_types::api::apps::v1::{ControllerRevision, StatefulSet};
use tiphys_types::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use tiphys_types::owners::controller_reference;

use crate::shared::{history, pod};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub(super) fn name_of(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or("")
}

/// The number at the end of the name of a pod of this set.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let rest = pod.metadata.name.as_deref()?.strip_prefix(name_of(set))?.strip_prefix('-')?;
    rest.parse().ok().filter(|_| rest.bytes().all(|b| b.is_ascii_digit()))
}

pub(super) fn first_ordinal(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.ordinals.as_ref()).and_then(|o| o.start).unwrap_or(0)
}

/// The template that a revision keeps.
pub(super) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

pub(super) fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|l| l.get(history::HASH)).map_or("", String::as_str)
}

pub(super) fn make(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or("");
    let mut new = pod::from_template(template, namespace, name_of(set), controller_reference::<StatefulSet>(&set.metadata));
    let name = format!("{}-{ordinal}", name_of(set));
    new.metadata.generate_name = Some(format!("{}-", name_of(set)));
    new.metadata.name = Some(name.clone());
    let labels = new.metadata.labels.get_or_insert_default();
    labels.insert(history::HASH.into(), revision.into());
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    let spec = new.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.as_ref().and_then(|s| s.service_name.clone()).filter(|n| !n.is_empty());
    let claims = claims(set, ordinal);
    if !claims.is_empty() {
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|v| !claims.iter().any(|(template, _)| *template == v.name));
        volumes.extend(claims.into_iter().map(|(template, claim)| Volume {
            name: template,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.metadata.name.unwrap_or_default(),
                ..Default::default()
            }),
            ..Default::default()
        }));
    }
    new
}

/// Labels that an adopted pod may lack.
pub(super) fn missing_labels(set: &StatefulSet, pod: &Pod) -> Option<serde_json::Value> {
    let (name, labels) = (pod.metadata.name.as_deref().unwrap_or(""), pod.metadata.labels.as_ref());
    let index = ordinal(set, pod)?.to_string();
    let has = |key: &str, value: &str| labels.and_then(|l| l.get(key)).is_some_and(|v| v == value);
    let complete = has(POD_NAME, name) && has(POD_INDEX, &index);
    (!complete).then(|| serde_json::json!({POD_NAME: name, POD_INDEX: index}))
}

/// The claims of one pod, with the names of their templates.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let spec = set.spec.clone().unwrap_or_default();
    let selector = spec.selector.match_labels.unwrap_or_default();
    let claim = |template: PersistentVolumeClaim| {
        let from = template.metadata.name.clone().unwrap_or_default();
        let mut claim = template;
        claim.metadata.name = Some(format!("{from}-{}-{ordinal}", name_of(set)));
        claim.metadata.namespace = set.metadata.namespace.clone();
        claim.metadata.labels.get_or_insert_default().extend(selector.clone());
        claim.status = None;
        (from, claim)
    };
    spec.volume_claim_templates.unwrap_or_default().into_iter().map(claim).collect()
}
