use std::sync::Arc;

use tiphys_client::{Action, Note, Plan, reference_to};
use tiphys_types::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use tiphys_types::api::storage::v1::StorageClass;

use super::matching::{self, BOUND_BY, COMPLETED};

const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const OLD_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";

pub(super) fn plan(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>], class: Option<&StorageClass>, plan: &mut Plan) {
    let wanted = matching::volume_name(claim);
    let named = volumes.iter().find(|v| v.metadata.name.as_deref() == Some(wanted));
    if matching::is_bound(claim) {
        match named.filter(|v| matching::is_reserved_for(v, claim)) {
            Some(volume) => bind(claim, volume, plan),
            None => lost(claim, plan),
        }
    } else if !wanted.is_empty() {
        // The user has chosen; others' volumes are not for him.
        match named.filter(|v| matching::is_free(v) || matching::is_reserved_for(v, claim)) {
            Some(volume) => bind(claim, volume, plan),
            None => set_phase(claim, "Pending", plan),
        }
    } else {
        seek(claim, volumes, class, plan);
    }
}

fn seek(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>], class: Option<&StorageClass>, plan: &mut Plan) {
    let waits = class.is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let chosen = matching::has_annotation(&claim.metadata, SELECTED_NODE);
    let reserved = volumes.iter().any(|v| matching::is_reserved_for(v, claim));
    let provisioner = class.map(|c| c.provisioner.as_str()).filter(|p| *p != NO_PROVISIONER);
    if waits && !chosen && !reserved {
        note(claim, false, "WaitForFirstConsumer", "waiting for first consumer to be created before binding".into(), plan);
        return set_phase(claim, "Pending", plan);
    }
    // With a consumer's node chosen, the scheduler has found that no volume fits, or has reserved one.
    if let Some(volume) = matching::find(volumes, claim).filter(|v| !waits || matching::is_reserved_for(v, claim)) {
        return bind(claim, volume, plan);
    }
    match provisioner {
        Some(provisioner) => order(claim, provisioner, plan),
        None => {
            note(claim, false, "FailedBinding", "no persistent volumes available for this claim and no storage class is set".into(), plan)
        }
    }
    set_phase(claim, "Pending", plan);
}

fn note(claim: &PersistentVolumeClaim, warning: bool, reason: &'static str, message: String, plan: &mut Plan) {
    let about = reference_to(claim);
    plan.note(if warning { Note::warning(&about, reason, message) } else { Note::normal(&about, reason, message) });
}

fn order(claim: &PersistentVolumeClaim, provisioner: &str, plan: &mut Plan) {
    if !matching::has_annotation(&claim.metadata, PROVISIONER) {
        let ordered = |c: &mut PersistentVolumeClaim| {
            let annotations = c.metadata.annotations.get_or_insert_default();
            annotations.extend([PROVISIONER, OLD_PROVISIONER].map(|key| (key.to_owned(), provisioner.to_owned())));
        };
        plan.act(Action::update_with(claim, ordered).or_settled());
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    note(claim, false, "ExternalProvisioning", message, plan);
}

fn set_phase(claim: &PersistentVolumeClaim, phase: &str, plan: &mut Plan) {
    let mut next = claim.clone();
    next.status.get_or_insert_default().phase = Some(phase.into());
    plan.update_status_if_changed(claim, &next);
}

fn lost(claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Lost") {
        note(claim, true, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!".into(), plan);
    }
    set_phase(claim, "Lost", plan);
}

/// Volume, claim and the claim's status, in this order: each step says by itself what the next is.
fn bind(claim: &PersistentVolumeClaim, volume: &Arc<PersistentVolume>, plan: &mut Plan) {
    let mut reserved = PersistentVolume::clone(volume);
    let spec = reserved.spec.get_or_insert_default();
    let by_us = spec.claim_ref.is_none();
    let mut reference = reference_to(claim);
    if spec.claim_ref.as_ref().is_some_and(|r| r.uid == reference.uid) {
        reference = spec.claim_ref.clone().unwrap_or(reference);
    }
    spec.claim_ref = Some(reference);
    if by_us {
        reserved.metadata.annotations.get_or_insert_default().insert(BOUND_BY.into(), "yes".into());
    }
    if reserved != **volume {
        // The volume's phase and the claim follow when this is seen.
        return plan.act(Action::update(&reserved));
    }
    let mut next = claim.clone();
    let spec = next.spec.get_or_insert_default();
    let annotations = next.metadata.annotations.get_or_insert_default();
    if spec.volume_name.as_deref().unwrap_or("").is_empty() {
        spec.volume_name.clone_from(&volume.metadata.name);
        annotations.insert(BOUND_BY.into(), "yes".into());
    }
    annotations.entry(COMPLETED.into()).or_insert_with(|| "yes".into());
    if next != *claim {
        return plan.act(Action::update(&next));
    }
    let status = next.status.get_or_insert_default();
    let has = volume.spec.clone().unwrap_or_default();
    if status.phase.as_deref() != Some("Bound") {
        status.phase = Some("Bound".into());
        status.access_modes = has.access_modes;
        status.capacity = has.capacity;
        // From here on whoever modifies volumes says what the class is.
        status.current_volume_attributes_class_name = has.volume_attributes_class_name;
    }
    plan.update_status_if_changed(claim, &next);
}
