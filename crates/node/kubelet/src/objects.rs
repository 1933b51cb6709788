//! ConfigMaps and Secrets that pods on this node refer to: one watch per object while any pod needs it.
//!
//! The Node authorizer lets a kubelet read only objects that its pods refer to, one by one, so no informer of all of them can be had.

use crate::env::Missing;
use futures_util::StreamExt;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tiphys_base::tasks::Tasks;
use tiphys_client::{Client, ClientError, EventType, Kube, ListOptions, ObjectList, gvr_of};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Key = (String, String);
type Found<K> = Option<Result<Arc<K>, Missing>>;
type Told = Arc<dyn Fn(&str) + Send + Sync>;

/// The watched objects of one kind.
pub(crate) struct Objects<K: Kube> {
    client: Client,
    tasks: Tasks,
    /// Called with the uid of each pod whose object changed.
    told: Told,
    state: Mutex<State<K>>,
}

struct State<K> {
    entries: HashMap<Key, Entry<K>>,
    pods: HashMap<String, HashSet<Key>>,
}

struct Entry<K> {
    users: HashSet<String>,
    value: watch::Receiver<Found<K>>,
    stop: CancellationToken,
}

impl<K: Kube> Objects<K> {
    pub(crate) fn new(client: Client, tasks: Tasks, told: Told) -> Arc<Self> {
        Arc::new(Objects { client, tasks, told, state: Mutex::new(State { entries: HashMap::new(), pods: HashMap::new() }) })
    }

    /// Says which objects a pod needs now; watches start and stop accordingly.
    pub(crate) fn register(self: &Arc<Self>, uid: &str, keys: HashSet<Key>) {
        let mut state = self.state.lock();
        let before = state.pods.insert(uid.to_owned(), keys.clone()).unwrap_or_default();
        for gone in before.difference(&keys) {
            state.release(gone, uid);
        }
        for key in keys {
            let entry = state.entries.entry(key.clone()).or_insert_with(|| self.start(key));
            entry.users.insert(uid.to_owned());
        }
    }

    pub(crate) fn unregister(&self, uid: &str) {
        let mut state = self.state.lock();
        for key in state.pods.remove(uid).unwrap_or_default() {
            state.release(&key, uid);
        }
    }

    /// The object as last seen; waits for the first look only.
    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<Arc<K>, Missing> {
        let value = self.state.lock().entries.get(&(namespace.to_owned(), name.to_owned())).map(|e| e.value.clone());
        let Some(mut value) = value else {
            return Err(Missing::Other(format!("object {namespace:?}/{name:?} not registered")));
        };
        let found = value.wait_for(Option::is_some).await.map(|v| v.clone());
        found.ok().flatten().unwrap_or_else(|| Err(Missing::Other("the kubelet is stopping".into())))
    }

    fn start(self: &Arc<Self>, key: Key) -> Entry<K> {
        let (sender, value) = watch::channel(None);
        let stop = self.tasks.token().child_token();
        let (this, token) = (self.clone(), stop.clone());
        self.tasks.spawn("object-watch", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = this.follow(&key, &sender) => {}
            }
        });
        Entry { users: HashSet::new(), value, stop }
    }

    async fn follow(&self, key: &Key, sender: &watch::Sender<Found<K>>) {
        // The API server may hear a moment after us that this node has the pod, and refuse until then.
        const PATIENCE: u32 = 4;
        let (mut wait, mut failures) = (Duration::from_millis(20), 0);
        loop {
            match self.once(key, sender).await {
                Ok(()) => (wait, failures) = (Duration::from_millis(20), 0),
                Err(error) => {
                    failures += 1;
                    let first = sender.borrow().is_none();
                    if first && failures >= PATIENCE {
                        self.publish(key, sender, Err(Missing::Other(error.to_string())));
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(10));
                }
            }
        }
    }

    /// One list and one watch after it.
    async fn once(&self, key: &Key, sender: &watch::Sender<Found<K>>) -> Result<(), ClientError> {
        let (namespace, name) = key;
        let options = ListOptions::fields(format!("metadata.name={name}"));
        let list: ObjectList<K> = self.client.list(namespace, &options).await?;
        let found = list.items.into_iter().next().map(Arc::new).ok_or_else(|| self.not_found(name));
        self.publish(key, sender, found);
        let version = &list.metadata.resource_version;
        let path = gvr_of::<K>().path(namespace, "");
        let query = format!("?fieldSelector=metadata.name%3D{name}&watch=1&allowWatchBookmarks=true&resourceVersion={version}");
        let mut events = self.client.watch_path(path + &query).await?;
        while let Some(event) = events.next().await {
            let (kind, object) = event?;
            match kind {
                EventType::Added | EventType::Modified => {
                    let object = serde_json::from_slice(&object).map_err(|e| ClientError::Decode(e.to_string()))?;
                    self.publish(key, sender, Ok(Arc::new(object)));
                }
                EventType::Deleted => self.publish(key, sender, Err(self.not_found(name))),
                EventType::Bookmark => {}
                EventType::Error => return Ok(()),
            }
        }
        Ok(())
    }

    fn not_found(&self, name: &str) -> Missing {
        Missing::NotFound(format!("{} {name:?} not found", K::KIND.to_lowercase()))
    }

    fn publish(&self, key: &Key, sender: &watch::Sender<Found<K>>, found: Result<Arc<K>, Missing>) {
        let version = |f: &Found<K>| f.as_ref().and_then(|r| r.as_ref().ok()).and_then(|o| o.metadata().resource_version.clone());
        let fresh = Some(found);
        let (was_read, same) = {
            let old = sender.borrow();
            let same =
                version(&old) == version(&fresh) && old.as_ref().is_some_and(Result::is_ok) == fresh.as_ref().is_some_and(Result::is_ok);
            (old.is_some(), same)
        };
        sender.send_replace(fresh);
        if was_read && !same {
            let users = self.state.lock().entries.get(key).map(|e| e.users.clone()).unwrap_or_default();
            users.iter().for_each(|uid| (self.told)(uid));
        }
    }
}

impl<K> State<K> {
    fn release(&mut self, key: &Key, uid: &str) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.users.remove(uid);
            if entry.users.is_empty() {
                entry.stop.cancel();
                self.entries.remove(key);
            }
        }
    }
}
