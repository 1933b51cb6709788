//! The registry as its callers see it, on the engine in memory and with the real facts.

mod conflicts;
mod content;
mod encryption;
mod lifecycle;
mod lists;
mod plugins;
mod policies;
mod shortcuts;
mod watches;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tiphys_base::FakeClock;
use tiphys_meta::{ApiError, Gvr};
use tiphys_store::{Engine, Memory};

use crate::{Answer, Encryption, EventType, Registry, RegistryConfig, RequestInfo, UserInfo, Verb, WatchStream};

pub(crate) struct Rig {
    pub(crate) registry: Arc<Registry>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) clock: Arc<FakeClock>,
    user: Arc<UserInfo>,
}

pub(crate) fn core(resource: &'static str) -> Gvr {
    Gvr::new("", "v1", resource)
}

/// A request with everything but the body.
pub(crate) struct Ask<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) info: RequestInfo,
}

impl Rig {
    pub(crate) async fn new() -> Rig {
        let engine: Arc<dyn Engine> = Memory::open().expect("memory");
        Rig::on(engine).await
    }

    pub(crate) async fn on(engine: Arc<dyn Engine>) -> Rig {
        Rig::with(engine, Encryption::default()).await
    }

    pub(crate) async fn with(engine: Arc<dyn Engine>, encryption: Encryption) -> Rig {
        Rig::configured(engine, RegistryConfig { encryption, ..RegistryConfig::default() }).await
    }

    pub(crate) async fn configured(engine: Arc<dyn Engine>, config: RegistryConfig) -> Rig {
        let clock = FakeClock::at("2026-11-21T10:00:00Z".parse().expect("a time"));
        let config = RegistryConfig { clock: clock.clone(), ..config };
        let registry = Registry::new(engine.clone(), config).await.expect("starts");
        let rig = Rig { registry, engine, clock, user: Arc::new(UserInfo::new("admin", &["system:masters"])) };
        for name in ["default", "kube-system"] {
            let _ = rig.post(&core("namespaces"), "", json!({"metadata": {"name": name}})).await;
        }
        rig
    }

    pub(crate) fn ask(&self, verb: Verb, gvr: &Gvr, namespace: &str, name: &str) -> Ask<'_> {
        Ask { rig: self, info: RequestInfo::new(verb, gvr.clone(), namespace, name, self.user.clone()) }
    }

    pub(crate) async fn post(&self, gvr: &Gvr, namespace: &str, object: Value) -> Result<Value, ApiError> {
        self.ask(Verb::Create, gvr, namespace, "").json(object).await
    }

    pub(crate) async fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Value, ApiError> {
        self.ask(Verb::Get, gvr, namespace, name).json(Value::Null).await
    }

    pub(crate) async fn put(&self, gvr: &Gvr, object: &Value) -> Result<Value, ApiError> {
        let meta = &object["metadata"];
        let ask = self.ask(Verb::Update, gvr, meta["namespace"].as_str().unwrap_or(""), meta["name"].as_str().unwrap_or(""));
        ask.json(object.clone()).await
    }

    pub(crate) async fn delete(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Value, ApiError> {
        self.ask(Verb::Delete, gvr, namespace, name).json(Value::Null).await
    }

    pub(crate) async fn merge(&self, gvr: &Gvr, namespace: &str, name: &str, patch: Value) -> Result<Value, ApiError> {
        self.ask(Verb::Patch, gvr, namespace, name).content("application/merge-patch+json").json(patch).await
    }

    pub(crate) async fn config_map(&self, name: &str, labels: Value) -> Value {
        let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"a": "b"}});
        self.post(&core("configmaps"), "default", object).await.expect("created")
    }
}

impl Ask<'_> {
    pub(crate) fn query(mut self, query: &str) -> Self {
        self.info.query = query.to_owned();
        self
    }

    pub(crate) fn accept(mut self, accept: &str) -> Self {
        self.info.accept = accept.to_owned();
        self
    }

    pub(crate) fn content(mut self, content_type: &str) -> Self {
        self.info.content_type = content_type.to_owned();
        self
    }

    pub(crate) fn sub(mut self, subresource: &str) -> Self {
        self.info.subresource = subresource.to_owned();
        self
    }

    pub(crate) fn user(mut self, name: &str, groups: &[&str]) -> Self {
        self.info.user = Arc::new(UserInfo::new(name, groups));
        self
    }

    pub(crate) async fn send(self, body: impl Into<Bytes>) -> Result<Answer, ApiError> {
        self.rig.registry.handle(&self.info, body.into()).await
    }

    /// (content type, body, warnings)
    pub(crate) async fn document(self, body: impl Into<Bytes>) -> Result<(String, Bytes, Vec<String>), ApiError> {
        match self.send(body).await? {
            Answer::Object(document) => Ok((document.content_type.into_owned(), document.body.into_bytes(), document.warnings)),
            Answer::Watch(_) => panic!("a document was asked for"),
        }
    }

    pub(crate) async fn json(self, body: Value) -> Result<Value, ApiError> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let (_, body, _) = self.document(body).await?;
        Ok(serde_json::from_slice(&body).expect("JSON"))
    }

    pub(crate) async fn watch(self) -> Events {
        match self.send("").await.expect("a watch") {
            Answer::Watch(stream) => Events(stream),
            Answer::Object(_) => panic!("a watch was asked for"),
        }
    }
}

pub(crate) struct Events(WatchStream);

impl Events {
    pub(crate) async fn next(&mut self) -> Option<(EventType, Value)> {
        let event = tokio::time::timeout(std::time::Duration::from_secs(5), self.0.next_event()).await.expect("an event in time")?;
        Some((event.kind, serde_json::from_slice(&event.object).expect("JSON")))
    }

    /// The next event in short: `ADDED a@12`.
    pub(crate) async fn short(&mut self) -> String {
        match self.next().await {
            Some((kind, object)) => format!("{} {}", kind.as_str(), object["metadata"]["name"].as_str().unwrap_or("-")),
            None => "END".into(),
        }
    }

    pub(crate) fn stream(self) -> WatchStream {
        self.0
    }
}

pub(crate) fn version(object: &Value) -> i64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(0)
}

pub(crate) fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|i| i["metadata"]["name"].as_str()).collect()
}
