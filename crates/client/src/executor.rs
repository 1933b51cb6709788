use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use serde_json::Value;
use tiphys_meta::{Gvr, object};

use crate::events::EventRecorder;
use crate::object::ObjectKey;
use crate::plan::{Action, Note, Plan, Step, Verb};
use crate::queue::QueueKey;
use crate::{Client, ClientError};

/// What the executor must know of an informer: whether it has seen what was written.
pub trait Cache: Send + Sync + 'static {
    fn gvr(&self) -> &Gvr;
    fn wait_synced(&self) -> BoxFuture<'_, ()>;
    fn wait_for(&self, revision: u64, limit: Duration) -> BoxFuture<'_, bool>;
    /// Until the object is gone, is another one, or has a deletion timestamp.
    fn wait_leaving<'a>(&'a self, key: &'a ObjectKey, uid: &'a str, limit: Duration) -> BoxFuture<'a, bool>;
}

/// A watch that lags longer than this is late beyond any order: going on with an old cache is then the lesser evil, and preconditions hold.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// Acts out plans; makes no choices.
///
/// It remembers per key what its plans wrote, and [`Executor::settle`] returns once the caches that were declared have seen it, so a controller
/// never decides on a view older than its own writes (upstream's expectations; there also by comparing resourceVersions since 1.36, KEP-5647).
pub struct Executor<K: QueueKey> {
    client: Client,
    recorder: EventRecorder,
    caches: HashMap<Gvr, Arc<dyn Cache>>,
    written: Mutex<HashMap<K, Vec<Written>>>,
}

enum Written {
    Revision { gvr: Gvr, revision: u64 },
    Deleted { gvr: Gvr, key: ObjectKey, uid: String },
}

impl<K: QueueKey> Executor<K> {
    pub fn new(client: Client, recorder: EventRecorder) -> Self {
        Executor { client, recorder, caches: HashMap::new(), written: Mutex::new(HashMap::new()) }
    }

    /// Declares a cache that plans are made from.
    #[must_use]
    pub fn reading(mut self, cache: impl Cache) -> Self {
        self.caches.insert(cache.gvr().clone(), Arc::new(cache));
        self
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn recorder(&self) -> &EventRecorder {
        &self.recorder
    }

    /// Waits until all declared caches hold their first list.
    pub async fn synced(&self) {
        join_all(self.caches.values().map(|cache| cache.wait_synced())).await;
    }

    /// Waits until the caches show what earlier plans for this key wrote.
    pub async fn settle(&self, key: &K) {
        let written = self.written.lock().remove(key).unwrap_or_default();
        for entry in written {
            let seen = match &entry {
                Written::Revision { gvr, revision } => match self.caches.get(gvr) {
                    Some(cache) => cache.wait_for(*revision, SETTLE_LIMIT).await,
                    None => true,
                },
                Written::Deleted { gvr, key, uid } => match self.caches.get(gvr) {
                    Some(cache) => cache.wait_leaving(key, uid, SETTLE_LIMIT).await,
                    None => true,
                },
            };
            if !seen {
                tracing::warn!(?key, "the cache has not shown an own write for {} s", SETTLE_LIMIT.as_secs());
            }
        }
    }

    pub async fn execute(&self, key: &K, plan: Plan) -> Result<Option<Duration>, ClientError> {
        for step in plan.steps {
            let result = match step {
                Step::One(action) => self.act(key, action).await,
                Step::Burst(actions) => self.burst(key, actions).await,
            };
            if let Err(error) = result {
                for action in plan.if_failed.map(|f| f(&error)).unwrap_or_default() {
                    self.act(key, action).await?;
                }
                return Err(error);
            }
        }
        for note in &plan.notes {
            self.recorder.note(note);
        }
        Ok(plan.requeue_after)
    }

    async fn burst(&self, key: &K, mut actions: Vec<Action>) -> Result<(), ClientError> {
        let mut wave = 1;
        while !actions.is_empty() {
            let rest = actions.split_off(wave.min(actions.len()));
            let results = join_all(actions.into_iter().map(|action| self.act(key, action))).await;
            if let Some(error) = results.into_iter().find_map(Result::err) {
                return Err(error);
            }
            actions = rest;
            wave *= 2;
        }
        Ok(())
    }

    async fn act(&self, key: &K, action: Action) -> Result<(), ClientError> {
        match self.send(&action).await {
            Ok(answer) => {
                self.remember(key, &action, &answer);
                self.say(action.done, &action.key, &answer, "");
                Ok(())
            }
            Err(error) if action.settled_is_fine && is_settled(&action.verb, &error) => Ok(()),
            // Nothing new comes into a namespace that is going: not an error, and nothing to tell.
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                self.say(action.failed, &action.key, &Value::Null, &error.to_string());
                Err(error)
            }
        }
    }

    async fn send(&self, action: &Action) -> Result<Value, ClientError> {
        let (client, gvr, key) = (&self.client, &action.gvr, &action.key);
        match &action.verb {
            Verb::Create { object } => client.create_value(gvr, &key.namespace, object).await,
            Verb::Update { object, subresource } => client.update_value(gvr, object, subresource).await,
            Verb::Patch { patch, subresource } => client.patch_value(gvr, &key.namespace, &key.name, subresource, patch).await,
            Verb::Delete { options } => client.delete_value(gvr, &key.namespace, &key.name, options).await,
            Verb::Post { subresource, object } => client.create_subresource(gvr, &key.namespace, &key.name, subresource, object).await,
        }
    }

    fn remember(&self, key: &K, action: &Action, answer: &Value) {
        if !self.caches.contains_key(&action.gvr) {
            return;
        }
        let gvr = action.gvr.clone();
        let entry = match &action.verb {
            Verb::Post { .. } => return,
            Verb::Delete { options } => match &options.preconditions.uid {
                Some(uid) => Written::Deleted { gvr, key: action.key.clone(), uid: uid.clone() },
                None => return,
            },
            _ => match object::resource_version(answer).parse() {
                Ok(revision) => Written::Revision { gvr, revision },
                Err(_) => return,
            },
        };
        self.written.lock().entry(key.clone()).or_default().push(entry);
    }

    fn say(&self, note: Option<Note>, key: &ObjectKey, answer: &Value, error: &str) {
        let Some(mut note) = note else { return };
        let name = if object::name(answer).is_empty() { &key.name } else { object::name(answer) };
        note.message = note.message.replace("{name}", name).replace("{error}", error);
        self.recorder.note(&note);
    }
}

fn is_settled(verb: &Verb, error: &ClientError) -> bool {
    match verb {
        Verb::Create { .. } => error.is_already_exists(),
        // A delete whose uid precondition fails meets a later object of the same name: the one meant is gone.
        Verb::Delete { .. } => error.is_not_found() || error.is_conflict(),
        Verb::Update { .. } | Verb::Patch { .. } | Verb::Post { .. } => error.is_not_found(),
    }
}
