//! Tells who asks for a larger volume that the volume's driver does it: no volume is grown by the control plane itself.
//!
//! Watches PersistentVolumeClaims; writes events. Upstream's controller of this name grows in-tree volumes besides; none are left that it could.

use jiff::Timestamp;
use tiphys_client::{Delta, Informer, Note, ObjectKey, Plan, Planner, WorkQueue, reference_to};
use tiphys_meta::Quantity;
use tiphys_types::api::core::v1::PersistentVolumeClaim;
use tiphys_types::resources;

use crate::Context;

pub(crate) fn start(context: &Context) {
    let claims = context.informers.of::<PersistentVolumeClaim>();
    let queue = WorkQueue::new();
    let again = queue.clone();
    claims.on_change(move |delta| {
        if let Delta::Updated { old, new } = delta
            && asked(new) > asked(old)
        {
            again.add(ObjectKey::of(&**new));
        }
        true
    });
    let executor = context.executor("volume_expand").reading(claims.clone());
    context.run("persistentvolume-expander-controller", 1, queue, Expander { claims }, executor);
}

fn asked(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref();
    resources::list(requests).get("storage").copied()
}

fn has(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    resources::list(claim.status.as_ref()?.capacity.as_ref()).get("storage").copied()
}

struct Expander {
    claims: Informer<PersistentVolumeClaim>,
}

impl Planner for Expander {
    type Key = ObjectKey;

    fn plan(&self, key: &ObjectKey, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = self.claims.by_key(key) else { return plan };
        let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        if bound && asked(&claim) > has(&claim) {
            let text = "waiting for an external controller to expand this PVC";
            plan.note(Note::normal(&reference_to(&*claim), "ExternalExpanding", text));
        }
        plan
    }
}
