use std::any::{Any, TypeId};
use std::collections::HashMap;

/// What plugins keep from one extension point to a later one of the same cycle, by its type.
#[derive(Default)]
pub struct CycleState {
    kept: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    /// Plugins (by place in the profile) that had nothing to filter for this pod.
    pub(super) skip_filter: Vec<bool>,
}

impl CycleState {
    pub fn put<T: Any + Send + Sync>(&mut self, value: T) {
        self.kept.insert(TypeId::of::<T>(), Box::new(value));
    }

    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.kept.get(&TypeId::of::<T>())?.downcast_ref()
    }
}
