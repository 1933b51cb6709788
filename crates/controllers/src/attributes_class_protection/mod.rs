//! A VolumeAttributesClass that a claim or a volume names is not removed before it is named no more: the finalizer `kubernetes.io/vac-protection`.
//!
//! Watches VolumeAttributesClasses, claims and volumes; writes the finalizer of classes.

use jiff::Timestamp;
use tiphys_client::{Delta, Index, Informer, Kube, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use tiphys_types::api::storage::v1::VolumeAttributesClass;

use crate::Context;
use crate::claim_protection::protect;
use crate::shared::watch;

const FINALIZER: &str = "kubernetes.io/vac-protection";

pub(crate) fn start(context: &Context) {
    let classes = context.informers.of::<VolumeAttributesClass>();
    let (claims, volumes) = (context.informers.of::<PersistentVolumeClaim>(), context.informers.of::<PersistentVolume>());
    let queue = WorkQueue::new();
    watch::own(&classes, &queue);
    on_leaving(&claims, of_claim, &queue);
    on_leaving(&volumes, of_volume, &queue);
    let by_claim = claims.index("attributes-class", of_claim);
    let by_volume = volumes.index("attributes-class", of_volume);
    let executor =
        context.executor("volumeattributesclass-protection-controller").reading(classes.clone()).reading(claims).reading(volumes);
    context.run("volumeattributesclass-protection-controller", 1, queue, Protection { classes, by_claim, by_volume }, executor);
}

/// The class that it has, the one that it wants, and the one that it is on its way to.
fn of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone());
    let status = claim.status.as_ref();
    let current = status.and_then(|s| s.current_volume_attributes_class_name.clone());
    let target = status.and_then(|s| s.modify_volume_status.as_ref()).and_then(|m| m.target_volume_attributes_class_name.clone());
    [wanted, current, target].into_iter().flatten().filter(|n| !n.is_empty()).collect()
}

fn of_volume(volume: &PersistentVolume) -> Vec<String> {
    volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone()).filter(|n| !n.is_empty()).into_iter().collect()
}

/// What names a class no more is work for that class.
fn on_leaving<K: Kube>(informer: &Informer<K>, classes_of: fn(&K) -> Vec<String>, queue: &WorkQueue<ObjectKey>) {
    let queue = queue.clone();
    informer.on_change(move |delta| {
        let left: Vec<String> = match delta {
            Delta::Added(_) => Vec::new(),
            Delta::Updated { old, new } => {
                let now = classes_of(new);
                classes_of(old).into_iter().filter(|c| !now.contains(c)).collect()
            }
            Delta::Deleted(old) => classes_of(old),
        };
        left.iter().for_each(|class| queue.add(ObjectKey::new("", class)));
        true
    });
}

struct Protection {
    classes: Informer<VolumeAttributesClass>,
    by_claim: Index<PersistentVolumeClaim>,
    by_volume: Index<PersistentVolume>,
}

impl Planner for Protection {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if let Some(class) = self.classes.by_key(key) {
            let used = !self.by_claim.get(&key.name).is_empty() || !self.by_volume.get(&key.name).is_empty();
            protect(&*class, FINALIZER, used, &mut plan);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_client::gvr_of;

    use super::*;
    use crate::shared::test::Rig;

    #[tokio::test(start_paused = true)]
    async fn a_class_stays_while_it_is_named() {
        let rig = Rig::start(&[start]);
        let class = || rig.api.get(&gvr_of::<VolumeAttributesClass>(), "", "gold");
        rig.api.insert(&gvr_of::<VolumeAttributesClass>(), json!({"metadata": {"name": "gold"}, "driverName": "d"}));
        rig.api.insert(
            &gvr_of::<PersistentVolumeClaim>(),
            json!({"metadata": {"namespace": "ns", "name": "c"}, "spec": {"volumeAttributesClassName": "silver"},
                "status": {"currentVolumeAttributesClassName": "gold"}}),
        );
        rig.settles().await;
        assert!(rig.api.client().delete::<VolumeAttributesClass>("", "gold", &Default::default()).await.is_ok());
        rig.settles().await;
        assert!(class().is_some());
        let moved = |c: &mut serde_json::Value| c["status"]["currentVolumeAttributesClassName"] = json!("silver");
        rig.api.change(&gvr_of::<PersistentVolumeClaim>(), "ns", "c", moved);
        rig.settles().await;
        assert!(class().is_none());
    }
}
