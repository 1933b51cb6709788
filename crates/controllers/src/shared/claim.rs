//! Which objects belong to an owner: those that name it as their controller and still match its selector. Matching orphans are adopted, objects
//! that no longer match are released.

use std::sync::Arc;

use serde_json::json;
use tiphys_client::{Action, Kube, Patch, controller_of};
use tiphys_meta::LabelSelector;
use tiphys_types::metav1::{ObjectMeta, OwnerReference};

pub(crate) struct Claim<'a> {
    pub(crate) owner: &'a ObjectMeta,
    pub(crate) reference: OwnerReference,
    pub(crate) selector: &'a LabelSelector,
}

pub(crate) struct Claimed<K> {
    pub(crate) objects: Vec<Arc<K>>,
    /// Adoptions and releases; an adopted object is among `objects` already.
    pub(crate) actions: Vec<Action>,
}

impl Claim<'_> {
    /// `adoptable` says which orphans are worth having (finished pods are not).
    pub(crate) fn sort<K: Kube>(&self, candidates: Vec<Arc<K>>, adoptable: impl Fn(&K) -> bool) -> Claimed<K> {
        let mut claimed = Claimed { objects: Vec::new(), actions: Vec::new() };
        let leaving = self.owner.deletion_timestamp.is_some();
        for object in candidates {
            let meta = object.metadata();
            let matches = self.selector.matches_map(meta.labels.as_ref());
            match controller_of(meta) {
                Some(owner) if owner.uid != self.reference.uid => {}
                Some(_) if matches => claimed.objects.push(object),
                Some(_) => {
                    if !leaving && meta.deletion_timestamp.is_none() {
                        claimed.actions.push(self.release(&*object));
                    }
                }
                None => {
                    if matches && !leaving && meta.deletion_timestamp.is_none() && adoptable(&object) {
                        claimed.actions.push(self.adopt(&*object));
                        claimed.objects.push(object);
                    }
                }
            }
        }
        claimed
    }

    // Both carry the uid, so that a later object of the same name is left alone.

    fn adopt<K: Kube>(&self, object: &K) -> Action {
        let patch = json!({"metadata": {"uid": object.metadata().uid, "ownerReferences": [self.reference]}});
        Action::patch(object, "", Patch::Strategic(patch)).or_settled()
    }

    fn release<K: Kube>(&self, object: &K) -> Action {
        let reference = json!({"$patch": "delete", "uid": self.reference.uid});
        let patch = json!({"metadata": {"uid": object.metadata().uid, "ownerReferences": [reference]}});
        Action::patch(object, "", Patch::Strategic(patch)).or_settled()
    }
}
