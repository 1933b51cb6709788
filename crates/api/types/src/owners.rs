//! Owner references: who controls an object.

use crate::Resource;
use crate::metav1::{ObjectMeta, OwnerReference};

/// The reference with `controller: true`, of which there is one at most.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|r| r.controller == Some(true))
}

pub fn is_controlled_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller_of(meta).is_some_and(|r| Some(r.uid.as_str()) == owner.uid.as_deref())
}

pub fn is_owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().flatten().any(|r| r.uid == uid)
}

/// The reference that a controller puts on what it makes.
pub fn controller_reference<K: Resource>(owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::apps::v1::ReplicaSet;

    #[test]
    fn controllers() {
        let owner = ObjectMeta { name: Some("rs".into()), uid: Some("u".into()), ..ObjectMeta::default() };
        let reference = controller_reference::<ReplicaSet>(&owner);
        assert_eq!((reference.api_version.as_str(), reference.kind.as_str()), ("apps/v1", "ReplicaSet"));
        let plain = OwnerReference { uid: "other".into(), controller: None, ..reference.clone() };
        let pod = ObjectMeta { owner_references: Some(vec![plain, reference]), ..ObjectMeta::default() };
        assert_eq!(controller_of(&pod).map(|r| r.uid.as_str()), Some("u"));
        assert!(is_controlled_by(&pod, &owner));
        assert!(is_owned_by(&pod, "other"));
        assert!(!is_controlled_by(&ObjectMeta::default(), &owner));
    }
}
