use std::sync::Arc;

use tiphys_meta::Quantity;
use tiphys_types::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use tiphys_types::{resources, selector};

pub(super) const BOUND_BY: &str = "pv.kubernetes.io/bound-by-controller";
pub(super) const COMPLETED: &str = "pv.kubernetes.io/bind-completed";

pub(super) fn class_name(claim: &PersistentVolumeClaim) -> &str {
    let annotation = claim.metadata.annotations.as_ref().and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"));
    annotation.or(claim.spec.as_ref().and_then(|s| s.storage_class_name.as_ref())).map_or("", String::as_str)
}

pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("")
}

pub(super) fn has_annotation(meta: &tiphys_types::metav1::ObjectMeta, name: &str) -> bool {
    meta.annotations.as_ref().is_some_and(|a| a.contains_key(name))
}

pub(super) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    has_annotation(&claim.metadata, COMPLETED) && !volume_name(claim).is_empty()
}

/// The volume is reserved for this claim: by name, or by this very object.
pub(super) fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).is_some_and(|r| {
        r.namespace == claim.metadata.namespace
            && r.name == claim.metadata.name
            && (r.uid.as_deref().unwrap_or("").is_empty() || r.uid == claim.metadata.uid)
    })
}

pub(super) fn is_free(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_none_or(|s| s.claim_ref.is_none())
        && volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available")
        && volume.metadata.deletion_timestamp.is_none()
}

pub(super) fn capacity(volume: &PersistentVolume) -> Quantity {
    resources::list(volume.spec.as_ref().and_then(|s| s.capacity.as_ref())).get("storage").copied().unwrap_or(Quantity::ZERO)
}

pub(super) fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let size =
        resources::list(wants.resources.as_ref().and_then(|r| r.requests.as_ref())).get("storage").copied().unwrap_or(Quantity::ZERO);
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let mode = |m: &Option<String>| m.clone().unwrap_or_else(|| "Filesystem".into());
    has.storage_class_name.as_deref().unwrap_or("") == class_name(claim)
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && wants.volume_attributes_class_name.as_deref().unwrap_or("") == has.volume_attributes_class_name.as_deref().unwrap_or("")
        && wants.access_modes.iter().flatten().all(|m| modes.contains(m))
        && capacity(volume) >= size
        && wants
            .selector
            .as_ref()
            .is_none_or(|s| selector::from_typed(Some(s)).is_ok_and(|s| s.matches_map(volume.metadata.labels.as_ref())))
}

/// One that is reserved for the claim, else the smallest free one that satisfies it.
pub(super) fn find<'v>(volumes: &'v [Arc<PersistentVolume>], claim: &PersistentVolumeClaim) -> Option<&'v Arc<PersistentVolume>> {
    let reserved = volumes.iter().find(|v| is_reserved_for(v, claim) && v.metadata.deletion_timestamp.is_none());
    reserved.or_else(|| volumes.iter().filter(|v| is_free(v) && satisfies(v, claim)).min_by_key(|v| (capacity(v), v.metadata.name.clone())))
}
