use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tiphys_base::tasks::Tasks;
use tiphys_meta::Gvr;

use crate::Client;
use crate::informer::Informer;
use crate::object::{Kube, Partial, Stored, gvr_of};
use crate::options::ListOptions;
use crate::reflector::Reflector;

/// The informers of a process: one watch per kind and selector, opened when first asked for. Cheap to clone.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    tasks: Tasks,
    known: Arc<Mutex<HashMap<Key, Box<dyn Any + Send + Sync>>>>,
}

/// The type is part of it: the same resource may be held whole by one reader and as metadata by another.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    stored: TypeId,
    gvr: Gvr,
    query: String,
}

impl Informers {
    pub fn new(client: Client) -> Self {
        Self::with_tasks(client, Tasks::new())
    }

    /// The watches end with `tasks`.
    pub fn with_tasks(client: Client, tasks: Tasks) -> Self {
        Informers { client, tasks, known: Arc::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn of<K: Kube>(&self) -> Informer<K> {
        self.filtered(ListOptions::default())
    }

    /// Only what the selectors name: `spec.nodeName=node-1`.
    pub fn filtered<K: Kube>(&self, options: ListOptions) -> Informer<K> {
        self.open(gvr_of::<K>(), options)
    }

    /// The metadata of all objects of a resource that may be known only at run time.
    pub fn metadata(&self, gvr: Gvr) -> Informer<Partial> {
        self.open(gvr, ListOptions::default())
    }

    /// Ends the watch of a resource that is no longer served. Readers keep what they hold.
    pub fn forget_metadata(&self, gvr: &Gvr) {
        let key = Key { stored: TypeId::of::<Partial>(), gvr: gvr.clone(), query: String::new() };
        if let Some(entry) = self.known.lock().remove(&key)
            && let Ok(entry) = entry.downcast::<Entry<Partial>>()
        {
            entry.tasks.stop();
        }
    }

    fn open<T: Stored>(&self, gvr: Gvr, options: ListOptions) -> Informer<T> {
        let key = Key { stored: TypeId::of::<T>(), gvr: gvr.clone(), query: options.query() };
        let mut known = self.known.lock();
        if let Some(entry) = known.get(&key).and_then(|e| e.downcast_ref::<Entry<T>>()) {
            return entry.informer.clone();
        }
        let informer = Informer::new(gvr.clone());
        let tasks = self.tasks.child();
        let reflector = Reflector { client: self.client.clone(), gvr, options, informer: informer.clone() };
        tasks.spawn("reflector", reflector.run());
        known.insert(key, Box::new(Entry { informer: informer.clone(), tasks }));
        informer
    }

    pub fn stop(&self) {
        self.tasks.stop();
    }
}

struct Entry<T: Stored> {
    informer: Informer<T>,
    tasks: Tasks,
}
