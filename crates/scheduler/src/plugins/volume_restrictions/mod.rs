//! Volumes that one pod alone may use: a claim with the access mode ReadWriteOncePod (KEP-2485), anywhere in the cluster; and on one node the
//! in-tree disks that two pods cannot both mount (GCE disks and RBD and iSCSI volumes, unless all read only; AWS disks).

use std::collections::HashSet;

use tiphys_types::api::core::v1::Volume;

use crate::framework::{ClusterEvent, CycleState, NodeInfo, Plugin, PodInfo, Point, PreFiltered, Refusal, Snapshot};
use crate::plugins::volume_binding::Volumes;

const NAME: &str = "VolumeRestrictions";
const ONE_POD: &str = "ReadWriteOncePod";
const TAKEN: &str = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";

pub struct VolumeRestrictions {
    volumes: Volumes,
}

/// Some pod has the claim that this one wants for itself: who.
struct Holders(HashSet<String>);

impl VolumeRestrictions {
    pub fn new(volumes: Volumes) -> Self {
        VolumeRestrictions { volumes }
    }

    fn exclusive_claims<'a>(&self, pod: &'a PodInfo) -> Vec<&'a str> {
        let exclusive = |name: &&str| {
            let claim = self.volumes.claims.get(pod.namespace(), name);
            claim.is_some_and(|c| c.spec.iter().flat_map(|s| s.access_modes.iter().flatten()).any(|m| m == ONE_POD))
        };
        claims(pod).filter(exclusive).collect()
    }
}

fn volumes(pod: &PodInfo) -> impl Iterator<Item = &Volume> {
    pod.spec().into_iter().flat_map(|s| s.volumes.iter().flatten())
}

fn claims(pod: &PodInfo) -> impl Iterator<Item = &str> {
    volumes(pod).filter_map(|v| v.persistent_volume_claim.as_ref()).map(|c| c.claim_name.as_str())
}

/// The disk's identity, and whether it is only read.
fn disk(volume: &Volume) -> Option<(String, bool)> {
    if let Some(gce) = &volume.gce_persistent_disk {
        return Some((format!("gce/{}", gce.pd_name), gce.read_only.unwrap_or(false)));
    }
    if let Some(aws) = &volume.aws_elastic_block_store {
        return Some((format!("aws/{}", aws.volume_id), false));
    }
    if let Some(iscsi) = &volume.iscsi {
        return Some((format!("iscsi/{}", iscsi.iqn), iscsi.read_only.unwrap_or(false)));
    }
    let rbd = volume.rbd.as_ref()?;
    let pool = rbd.pool.as_deref().unwrap_or("rbd");
    Some((format!("rbd/{}/{pool}/{}", rbd.monitors.join(","), rbd.image), rbd.read_only.unwrap_or(false)))
}

fn disks(pod: &PodInfo) -> Vec<(String, bool)> {
    volumes(pod).filter_map(disk).collect()
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        NAME
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter]
    }

    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot) -> Result<PreFiltered, Refusal> {
        let wanted = self.exclusive_claims(pod);
        let mut holders = HashSet::new();
        if !wanted.is_empty() {
            let others = snapshot.nodes.iter().flat_map(|n| &n.pods).filter(|p| p.namespace() == pod.namespace());
            holders.extend(others.filter(|p| claims(p).any(|c| wanted.contains(&c))).map(|p| p.uid().to_owned()));
        }
        if holders.is_empty() && disks(pod).is_empty() {
            return Ok(PreFiltered::Skip);
        }
        state.put(Holders(holders));
        Ok(PreFiltered::Ok)
    }

    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Refusal> {
        let own = disks(pod);
        let collides = |other: &PodInfo| disks(other).iter().any(|(d, read)| own.iter().any(|(o, r)| o == d && !(*r && *read)));
        if !own.is_empty() && node.pods.iter().any(|p| collides(p)) {
            return Err(Refusal::unschedulable(NAME, "node(s) had no available disk"));
        }
        // Preemption helps where the holder stands on this very node; then PreFilter finds it gone.
        if state.get::<Holders>().is_some_and(|Holders(uids)| !uids.is_empty()) {
            return Err(Refusal::unschedulable(NAME, TAKEN));
        }
        Ok(())
    }

    fn may_help(&self, event: &ClusterEvent, pod: &PodInfo) -> bool {
        match event {
            ClusterEvent::AssignedPodDeleted(gone) => {
                let shares_claim = gone.namespace() == pod.namespace() && claims(gone).any(|c| claims(pod).any(|own| own == c));
                shares_claim || disks(gone).iter().any(|(d, _)| disks(pod).iter().any(|(own, _)| own == d))
            }
            ClusterEvent::StorageChanged | ClusterEvent::NodeAdded(_) | ClusterEvent::PodChanged { .. } | ClusterEvent::Forced => true,
            _ => false,
        }
    }
}
