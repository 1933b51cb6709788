use std::collections::{HashMap, HashSet};

use tiphys_meta::Gvr;
use tiphys_types::metav1::{ObjectMeta, OwnerReference};

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// Who owns whom, by uid, as the caches show it.
#[derive(Default)]
pub(super) struct Graph {
    objects: HashMap<String, Object>,
    /// Also of owners that have not been seen.
    dependents: HashMap<String, HashSet<String>>,
}

#[derive(Clone)]
pub(super) struct Object {
    pub(super) gvr: Gvr,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) leaving: bool,
    pub(super) foreground: bool,
    pub(super) orphan: bool,
}

impl Object {
    fn new(gvr: &Gvr, meta: &ObjectMeta) -> Self {
        let has = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
        Object {
            gvr: gvr.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            leaving: meta.deletion_timestamp.is_some(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
        }
    }

    /// Waits for its dependents.
    pub(super) fn is_foreground(&self) -> bool {
        self.leaving && self.foreground
    }
}

impl Graph {
    /// Takes an object in; answers who must be looked at because of it.
    pub(super) fn put(&mut self, gvr: &Gvr, meta: &ObjectMeta) -> Vec<String> {
        let uid = meta.uid.clone().unwrap_or_default();
        let new = Object::new(gvr, meta);
        let old = self.objects.insert(uid.clone(), new.clone());
        let old_owners = old.map(|o| o.owners).unwrap_or_default();
        for owner in old_owners.iter().filter(|o| !new.owners.iter().any(|n| n.uid == o.uid)) {
            self.unlink(&owner.uid, &uid);
        }
        for owner in &new.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let mut work = Vec::new();
        if new.leaving && (new.foreground || new.orphan) {
            work.push(uid.clone());
        }
        if new.is_foreground() {
            work.extend(self.dependents_of(&uid));
        }
        // An owner that is not here may never have been, or be gone; one that waits for its dependents waits for this one too. The last
        // reference to what blocks may have been taken off.
        let suspicious = |o: &OwnerReference| self.objects.get(&o.uid).is_none_or(Object::is_foreground);
        if new.owners.iter().any(suspicious) {
            work.push(uid);
        }
        let unblocked = old_owners.iter().filter(|o| self.objects.get(&o.uid).is_some_and(Object::is_foreground));
        work.extend(unblocked.map(|o| o.uid.clone()));
        work
    }

    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(object) = self.objects.remove(uid) else { return Vec::new() };
        let mut work = self.dependents_of(uid);
        for owner in &object.owners {
            self.unlink(&owner.uid, uid);
            if self.objects.get(&owner.uid).is_some_and(Object::is_foreground) {
                work.push(owner.uid.clone());
            }
        }
        work
    }

    pub(super) fn forget_kind(&mut self, gvr: &Gvr) {
        let gone: Vec<String> = self.objects.iter().filter(|(_, o)| o.gvr == *gvr).map(|(uid, _)| uid.clone()).collect();
        for uid in gone {
            self.remove(&uid);
        }
    }

    pub(super) fn get(&self, uid: &str) -> Option<Object> {
        self.objects.get(uid).cloned()
    }

    pub(super) fn dependents_of(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Dependents that keep a foreground delete waiting.
    pub(super) fn blocking(&self, uid: &str) -> Vec<String> {
        let blocks = |d: &String| {
            let owners = self.objects.get(d).map(|o| o.owners.as_slice()).unwrap_or_default();
            owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
        };
        self.dependents.get(uid).into_iter().flatten().filter(|d| blocks(d)).cloned().collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}
