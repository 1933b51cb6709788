use tiphys_client::{Action, Plan};
use tiphys_types::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::matching;

/// The volume's phase follows from its claim.
pub(super) fn plan(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>, plan: &mut Plan) {
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let phase = match (reference, claim) {
        (None, _) => "Available",
        // Reserved by name for a claim that has not come.
        (Some(r), None) if r.uid.as_deref().unwrap_or("").is_empty() => "Available",
        (Some(r), Some(claim)) if r.uid.as_deref().unwrap_or("").is_empty() || r.uid == claim.metadata.uid => {
            let wanted = matching::volume_name(claim);
            if !wanted.is_empty() && Some(wanted) != volume.metadata.name.as_deref() {
                return give_up(volume, plan);
            }
            if r.uid.as_deref().unwrap_or("").is_empty() { "Available" } else { "Bound" }
        }
        // Its claim is gone, or another of the same name has come.
        (Some(_), _) => "Released",
    };
    let mut next = volume.clone();
    next.status.get_or_insert_default().phase = Some(phase.into());
    plan.update_status_if_changed(volume, &next);
}

/// The claim has taken another volume: what this controller reserved is free again, what a user reserved stays so.
fn give_up(volume: &PersistentVolume, plan: &mut Plan) {
    if !matching::has_annotation(&volume.metadata, matching::BOUND_BY) {
        return;
    }
    let mut next = volume.clone();
    if let Some(spec) = &mut next.spec {
        spec.claim_ref = None;
    }
    if let Some(annotations) = &mut next.metadata.annotations {
        annotations.remove(matching::BOUND_BY);
    }
    plan.act(Action::update(&next));
}
