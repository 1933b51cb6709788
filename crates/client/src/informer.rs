use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tiphys_meta::Gvr;
use tokio::sync::{mpsc, watch};

use crate::executor::Cache;
use crate::object::{ObjectKey, Stored, is_leaving};
use tiphys_types::owners::controller_of;

/// One change of a cache, with the last state known of what was deleted.
#[derive(Debug)]
pub enum Delta<T> {
    Added(Arc<T>),
    Updated { old: Arc<T>, new: Arc<T> },
    Deleted(Arc<T>),
}

impl<T> Clone for Delta<T> {
    fn clone(&self) -> Self {
        match self {
            Delta::Added(new) => Delta::Added(Arc::clone(new)),
            Delta::Updated { old, new } => Delta::Updated { old: Arc::clone(old), new: Arc::clone(new) },
            Delta::Deleted(old) => Delta::Deleted(Arc::clone(old)),
        }
    }
}

impl<T> Delta<T> {
    /// The newest state: of a deleted object, its last.
    pub fn object(&self) -> &Arc<T> {
        match self {
            Delta::Added(o) | Delta::Deleted(o) | Delta::Updated { new: o, .. } => o,
        }
    }
}

type Handler<T> = Box<dyn Fn(&Delta<T>) -> bool + Send + Sync>;
type IndexFn<T> = Arc<dyn Fn(&T) -> Vec<String> + Send + Sync>;

/// All objects of one kind (or those that a selector names), kept current by one watch and shared by every reader in the process.
pub struct Informer<T: Stored> {
    shared: Arc<Shared<T>>,
}

impl<T: Stored> Clone for Informer<T> {
    fn clone(&self) -> Self {
        Informer { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<T> {
    gvr: Gvr,
    state: RwLock<State<T>>,
    /// Held while a change is applied and told, so that subscribers see one order without gaps.
    handlers: Mutex<Vec<Handler<T>>>,
    synced: watch::Sender<bool>,
    revision: watch::Sender<u64>,
}

struct State<T> {
    objects: BTreeMap<ObjectKey, Arc<T>>,
    indexes: HashMap<&'static str, IndexState<T>>,
}

struct IndexState<T> {
    by: IndexFn<T>,
    keys: HashMap<String, HashSet<ObjectKey>>,
}

impl<T: Stored> Informer<T> {
    pub(crate) fn new(gvr: Gvr) -> Self {
        let state = State { objects: BTreeMap::new(), indexes: HashMap::new() };
        Informer {
            shared: Arc::new(Shared {
                gvr,
                state: RwLock::new(state),
                handlers: Mutex::new(Vec::new()),
                synced: watch::Sender::new(false),
                revision: watch::Sender::new(0),
            }),
        }
    }

    pub fn gvr(&self) -> &Gvr {
        &self.shared.gvr
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.by_key(&ObjectKey::new(namespace, name))
    }

    pub fn by_key(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.shared.state.read().objects.get(key).cloned()
    }

    /// In order of namespace and name.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.shared.state.read().objects.values().cloned().collect()
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let state = self.shared.state.read();
        let range = state.objects.range(ObjectKey::new(namespace, "")..);
        range.take_while(|(key, _)| &*key.namespace == namespace).map(|(_, object)| Arc::clone(object)).collect()
    }

    pub fn len(&self) -> usize {
        self.shared.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps objects by the values that `by` finds in them. A name that exists already is shared: the first function stays.
    pub fn index(&self, name: &'static str, by: impl Fn(&T) -> Vec<String> + Send + Sync + 'static) -> Index<T> {
        self.shared.state.write().add_index(name, Arc::new(by));
        Index { informer: self.clone(), name }
    }

    /// By the uid of the controlling owner.
    pub fn index_by_controller(&self) -> Index<T> {
        self.index("controller-uid", |object| controller_of(object.meta()).map(|r| r.uid.clone()).into_iter().collect())
    }

    /// Calls `handler` for each object there is now (as `Added`) and then for every change, in order, from the informer's own task: it must
    /// not wait. It stays until it answers false.
    pub fn on_change(&self, handler: impl Fn(&Delta<T>) -> bool + Send + Sync + 'static) {
        let mut handlers = self.shared.handlers.lock();
        let mut wanted = true;
        for object in self.list() {
            wanted = wanted && guarded(&handler, &Delta::Added(object));
        }
        if wanted {
            handlers.push(Box::new(handler));
        }
    }

    /// The same as a channel. It is unbounded, so a slow reader stalls no one; it holds shared objects, not copies.
    pub fn subscribe(&self) -> Subscription<T> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.on_change(move |delta| sender.send(delta.clone()).is_ok());
        Subscription { receiver }
    }

    /// Returns once the first list has been read and told to the subscribers of that time.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives in `self`, so the channel cannot close.
        let _ = synced.wait_for(|s| *s).await;
    }

    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Every change up to this store revision is in the cache.
    pub fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    // What the reflector tells.

    pub(crate) fn replace(&self, objects: Vec<T>, revision: u64) {
        let mut handlers = self.shared.handlers.lock();
        let fresh: HashSet<ObjectKey> = objects.iter().map(ObjectKey::of).collect();
        let gone: Vec<ObjectKey> = self.shared.state.read().objects.keys().filter(|k| !fresh.contains(k)).cloned().collect();
        for key in gone {
            self.take_out(&mut handlers, &key);
        }
        for object in objects {
            self.put(&mut handlers, object);
        }
        drop(handlers);
        self.advance(revision);
        self.shared.synced.send_replace(true);
    }

    pub(crate) fn upsert(&self, object: T) {
        let revision = revision_of(&object);
        self.put(&mut self.shared.handlers.lock(), object);
        self.advance(revision);
    }

    pub(crate) fn remove(&self, object: &T) {
        self.take_out(&mut self.shared.handlers.lock(), &ObjectKey::of(object));
        self.advance(revision_of(object));
    }

    pub(crate) fn advance(&self, revision: u64) {
        self.shared.revision.send_if_modified(|known| {
            let newer = revision > *known;
            *known = (*known).max(revision);
            newer
        });
    }

    fn put(&self, handlers: &mut Vec<Handler<T>>, object: T) {
        let (key, new) = (ObjectKey::of(&object), Arc::new(object));
        let Some(old) = self.shared.state.write().insert(key, Arc::clone(&new)) else {
            return tell(handlers, &Delta::Added(new));
        };
        if old.meta().uid != new.meta().uid {
            // Deleted and made again while no watch was open: two objects, not one that changed.
            tell(handlers, &Delta::Deleted(old));
            tell(handlers, &Delta::Added(new));
        } else if old.meta().resource_version != new.meta().resource_version {
            tell(handlers, &Delta::Updated { old, new });
        }
    }

    fn take_out(&self, handlers: &mut Vec<Handler<T>>, key: &ObjectKey) {
        let old = self.shared.state.write().remove(key);
        if let Some(old) = old {
            tell(handlers, &Delta::Deleted(old));
        }
    }
}

/// A handler that panics is logged and kept; the informer goes on for all.
fn guarded<T>(handler: &(impl Fn(&Delta<T>) -> bool + ?Sized), delta: &Delta<T>) -> bool {
    catch_unwind(AssertUnwindSafe(|| handler(delta))).unwrap_or_else(|_| {
        tracing::error!("an informer's handler panicked");
        true
    })
}

fn tell<T>(handlers: &mut Vec<Handler<T>>, delta: &Delta<T>) {
    handlers.retain(|handler| guarded(&**handler, delta));
}

fn revision_of<T: Stored>(object: &T) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

impl<T> State<T> {
    fn insert(&mut self, key: ObjectKey, object: Arc<T>) -> Option<Arc<T>> {
        let old = self.objects.insert(key.clone(), Arc::clone(&object));
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.drop_key(old, &key);
            }
            index.add_key(&object, &key);
        }
        old
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<T>> {
        let old = self.objects.remove(key)?;
        for index in self.indexes.values_mut() {
            index.drop_key(&old, key);
        }
        Some(old)
    }

    fn add_index(&mut self, name: &'static str, by: IndexFn<T>) {
        if self.indexes.contains_key(name) {
            return;
        }
        let mut index = IndexState { by, keys: HashMap::new() };
        for (key, object) in &self.objects {
            index.add_key(object, key);
        }
        self.indexes.insert(name, index);
    }
}

impl<T> IndexState<T> {
    fn add_key(&mut self, object: &T, key: &ObjectKey) {
        for value in (self.by)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn drop_key(&mut self, object: &T, key: &ObjectKey) {
        for value in (self.by)(object) {
            let Some(keys) = self.keys.get_mut(&value) else { continue };
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&value);
            }
        }
    }
}

/// Objects by a value found in them.
pub struct Index<T: Stored> {
    informer: Informer<T>,
    name: &'static str,
}

impl<T: Stored> Clone for Index<T> {
    fn clone(&self) -> Self {
        Index { informer: self.informer.clone(), name: self.name }
    }
}

impl<T: Stored> Index<T> {
    /// In order of namespace and name.
    pub fn get(&self, value: &str) -> Vec<Arc<T>> {
        let state = self.informer.shared.state.read();
        let Some(keys) = state.indexes.get(self.name).and_then(|i| i.keys.get(value)) else { return Vec::new() };
        let mut keys: Vec<&ObjectKey> = keys.iter().collect();
        keys.sort_unstable();
        keys.into_iter().filter_map(|k| state.objects.get(k).cloned()).collect()
    }
}

pub struct Subscription<T> {
    receiver: mpsc::UnboundedReceiver<Delta<T>>,
}

impl<T> Subscription<T> {
    /// None once the informer is gone.
    pub async fn recv(&mut self) -> Option<Delta<T>> {
        self.receiver.recv().await
    }

    pub fn try_recv(&mut self) -> Option<Delta<T>> {
        self.receiver.try_recv().ok()
    }
}

impl<T: Stored> Cache for Informer<T> {
    fn gvr(&self) -> &Gvr {
        &self.shared.gvr
    }

    fn wait_synced(&self) -> futures_util::future::BoxFuture<'_, ()> {
        Box::pin(self.synced())
    }

    fn wait_for(&self, revision: u64, limit: Duration) -> futures_util::future::BoxFuture<'_, bool> {
        Box::pin(within(self.shared.revision.subscribe(), limit, move |seen| seen >= revision))
    }

    fn wait_leaving<'a>(&'a self, key: &'a ObjectKey, uid: &'a str, limit: Duration) -> futures_util::future::BoxFuture<'a, bool> {
        let leaving = move |_| self.by_key(key).is_none_or(|o| o.meta().uid.as_deref() != Some(uid) || is_leaving(o.meta()));
        Box::pin(within(self.shared.revision.subscribe(), limit, leaving))
    }
}

async fn within(mut revision: watch::Receiver<u64>, limit: Duration, met: impl Fn(u64) -> bool + Send + Sync) -> bool {
    let seen = tokio::time::timeout(limit, revision.wait_for(|seen| met(*seen))).await;
    matches!(seen, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use tiphys_types::api::core::v1::ConfigMap;

    use super::*;
    use crate::gvr_of;

    fn config_map(name: &str, uid: &str, version: u64, color: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some("ns".into());
        map.metadata.name = Some(name.into());
        map.metadata.uid = Some(uid.into());
        map.metadata.resource_version = Some(version.to_string());
        map.data = Some([("color".to_owned(), color.to_owned())].into());
        map
    }

    fn told(subscription: &mut Subscription<ConfigMap>) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(delta) = subscription.try_recv() {
            let kind = match &delta {
                Delta::Added(_) => "+",
                Delta::Updated { .. } => "~",
                Delta::Deleted(_) => "-",
            };
            seen.push(format!("{kind}{}", delta.object().metadata.name.as_deref().unwrap_or("")));
        }
        seen
    }

    #[test]
    fn subscribers_get_content_changes_and_deletes() {
        let informer = Informer::<ConfigMap>::new(gvr_of::<ConfigMap>());
        informer.replace(vec![config_map("a", "1", 1, "red"), config_map("b", "2", 2, "red")], 2);
        let mut subscription = informer.subscribe();
        informer.upsert(config_map("a", "1", 3, "blue"));
        informer.upsert(config_map("a", "1", 3, "blue"));
        informer.remove(&config_map("b", "2", 4, "red"));
        informer.upsert(config_map("a", "9", 5, "blue"));
        assert_eq!(told(&mut subscription), ["+a", "+b", "~a", "-b", "-a", "+a"]);
        informer.replace(vec![config_map("c", "3", 6, "red")], 7);
        assert_eq!(told(&mut subscription), ["-a", "+c"]);
        assert_eq!(informer.revision(), 7);
    }

    #[test]
    fn indexes_follow_changes() {
        let informer = Informer::<ConfigMap>::new(gvr_of::<ConfigMap>());
        informer.upsert(config_map("a", "1", 1, "red"));
        let colors = informer.index("color", |m| m.data.iter().flat_map(|d| d.values().cloned()).collect());
        informer.upsert(config_map("b", "2", 2, "red"));
        assert_eq!(colors.get("red").len(), 2);
        informer.upsert(config_map("a", "1", 3, "blue"));
        informer.remove(&config_map("b", "2", 4, "red"));
        assert_eq!((colors.get("red").len(), colors.get("blue").len()), (0, 1));
    }

    #[test]
    fn a_panicking_handler_stalls_no_one() {
        let informer = Informer::<ConfigMap>::new(gvr_of::<ConfigMap>());
        informer.on_change(|_| panic!("on purpose"));
        let mut subscription = informer.subscribe();
        informer.upsert(config_map("a", "1", 1, "red"));
        assert_eq!(told(&mut subscription), ["+a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_revision_ends_when_it_is_seen() {
        let informer = Informer::<ConfigMap>::new(gvr_of::<ConfigMap>());
        assert!(!informer.wait_for(5, Duration::from_millis(10)).await);
        let waits = tokio::spawn({
            let i = informer.clone();
            async move { i.wait_for(5, Duration::from_secs(10)).await }
        });
        tokio::task::yield_now().await;
        informer.advance(6);
        assert_eq!(waits.await.ok(), Some(true));
    }
}
