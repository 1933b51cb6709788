//! Brings PersistentVolumeClaims and PersistentVolumes together.
//!
//! Watches both and StorageClasses; writes both and their statuses. A claim gets the smallest free volume that satisfies it, one that was reserved
//! for it first; with `WaitForFirstConsumer` not before the scheduler has chosen a node. Claims of classes with a provisioner are marked for it.
//! One plan makes one write of each object; the next follows when it is seen.
//!
//! Absent: deleting and recycling released volumes (their provisioners do that), volume attributes classes, resizing.

mod claim;
mod matching;
mod volume;

use jiff::Timestamp;
use tiphys_client::{Informer, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use tiphys_types::api::storage::v1::StorageClass;

use crate::Context;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Claim(String, String),
    Volume(String),
}

pub(crate) fn start(context: &Context) {
    let (claims, volumes) = (context.informers.of::<PersistentVolumeClaim>(), context.informers.of::<PersistentVolume>());
    let classes = context.informers.of::<StorageClass>();
    let queue = WorkQueue::new();
    watch_claims(&claims, &queue);
    watch_volumes(&volumes, &claims, &queue);
    let (all, again) = (claims.clone(), queue.clone());
    classes.on_change(move |_| {
        all.list().iter().filter(|c| matching::volume_name(c).is_empty()).for_each(|c| again.add(claim_key(c)));
        true
    });
    let executor =
        context.executor("persistentvolume-controller").reading(claims.clone()).reading(volumes.clone()).reading(classes.clone());
    context.run("persistentvolume-binder-controller", 1, queue, Binder { claims, volumes, classes }, executor);
}

fn claim_key(claim: &PersistentVolumeClaim) -> Key {
    let meta = &claim.metadata;
    Key::Claim(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn watch_claims(claims: &Informer<PersistentVolumeClaim>, queue: &WorkQueue<Key>) {
    let queue = queue.clone();
    claims.on_change(move |delta| {
        let claim = delta.object();
        queue.add(claim_key(claim));
        if !matching::volume_name(claim).is_empty() {
            queue.add(Key::Volume(matching::volume_name(claim).to_owned()));
        }
        true
    });
}

fn watch_volumes(volumes: &Informer<PersistentVolume>, claims: &Informer<PersistentVolumeClaim>, queue: &WorkQueue<Key>) {
    let (claims, queue) = (claims.clone(), queue.clone());
    volumes.on_change(move |delta| {
        let volume = delta.object();
        queue.add(Key::Volume(volume.metadata.name.clone().unwrap_or_default()));
        match volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) {
            Some(claim) => queue.add(Key::Claim(claim.namespace.clone().unwrap_or_default(), claim.name.clone().unwrap_or_default())),
            // A free volume may be what some claim waits for.
            None => claims.list().iter().filter(|c| !matching::is_bound(c)).for_each(|c| queue.add(claim_key(c))),
        }
        true
    });
}

struct Binder {
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
}

impl Planner for Binder {
    type Key = Key;

    fn plan(&self, key: &Key, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        match key {
            Key::Claim(namespace, name) => {
                if let Some(claim) = self.claims.get(namespace, name) {
                    let class = self.classes.get("", matching::class_name(&claim));
                    claim::plan(&claim, &self.volumes.list(), class.as_deref(), &mut plan);
                }
            }
            Key::Volume(name) => {
                if let Some(volume) = self.volumes.get("", name) {
                    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
                    let claim =
                        reference.and_then(|r| self.claims.get(r.namespace.as_deref().unwrap_or(""), r.name.as_deref().unwrap_or("")));
                    volume::plan(&volume, claim.as_deref(), &mut plan);
                }
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests;
