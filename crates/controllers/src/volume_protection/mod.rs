//! A volume that is bound to a claim is not removed before it is released: the finalizer `kubernetes.io/pv-protection`.
//!
//! Watches PersistentVolumes; writes their finalizer.

use jiff::Timestamp;
use tiphys_client::{Informer, ObjectKey, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::PersistentVolume;

use crate::Context;
use crate::claim_protection::protect;
use crate::shared::watch;

const FINALIZER: &str = "kubernetes.io/pv-protection";

pub(crate) fn start(context: &Context) {
    let volumes = context.informers.of::<PersistentVolume>();
    let queue = WorkQueue::new();
    watch::own(&volumes, &queue);
    let executor = context.executor("pv-protection-controller").reading(volumes.clone());
    context.run("persistentvolume-protection-controller", 1, queue, Protection { volumes }, executor);
}

struct Protection {
    volumes: Informer<PersistentVolume>,
}

impl Planner for Protection {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if let Some(volume) = self.volumes.by_key(key) {
            let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
            protect(&*volume, FINALIZER, bound, &mut plan);
        }
        plan
    }
}
