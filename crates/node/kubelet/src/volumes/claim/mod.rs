//! persistentVolumeClaim (and generic ephemeral volumes), for volumes that are a path on this node: local and hostPath.

use super::{Mounted, host_path};
use std::collections::BTreeMap;
use tiphys_types::api::core::v1::{HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource};

type Bound = Result<(PersistentVolumeClaim, PersistentVolume), String>;

pub(super) fn set_up(
    volume: &str,
    source: &PersistentVolumeClaimVolumeSource,
    claims: &BTreeMap<String, Bound>,
) -> Result<Mounted, String> {
    bound(claims.get(volume), &source.claim_name, source.read_only == Some(true))
}

/// The mount of a claim that has been looked up.
pub(super) fn bound(found: Option<&Bound>, claim: &str, read_only: bool) -> Result<Mounted, String> {
    let (claim, volume) = found.ok_or_else(|| format!("claim {claim:?} has not been read"))?.as_ref().map_err(Clone::clone)?;
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let spec = volume.spec.as_ref().ok_or_else(|| format!("volume {name:?} has no spec"))?;
    let only_read =
        claim.spec.as_ref().and_then(|s| s.access_modes.as_ref()).is_some_and(|m| !m.is_empty() && m.iter().all(|m| m == "ReadOnlyMany"));
    let mut mounted = if let Some(source) = &spec.host_path {
        host_path::set_up(source)?
    } else if let Some(source) = &spec.local {
        host_path::set_up(&HostPathVolumeSource { path: source.path.clone(), type_: Some("Directory".into()) })?
    } else {
        return Err(format!("volume {name:?} is of a kind that this node cannot mount"));
    };
    mounted.read_only = read_only || only_read;
    Ok(mounted)
}
