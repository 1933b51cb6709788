//! Writes what [`super::status`] says about definitions, and deletes the objects of a definition before it goes (the finalizer
//! `customresourcecleanup.apiextensions.k8s.io`). One task for all definitions, for names are given one after the other; a cleanup has a task
//! of its own, since it lasts as long as the last finalizer of an object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvr, object, time};

use super::status::{condition_is_true, next, set_condition};
use crate::registry::{Change, Registry};
use crate::request::{RequestInfo, UserInfo, Verb};

pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const RETRY: Duration = Duration::from_secs(1);

pub(crate) fn definitions() -> Gvr {
    Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

/// The first request to delete a definition: it stays until its objects are gone.
pub(crate) fn mark_for_deletion(crd: &mut Value, now: &str) {
    object::meta_mut(crd).entry("deletionTimestamp").or_insert_with(|| Value::from(now));
    let finalizers = object::meta_mut(crd).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut().filter(|l| !l.iter().any(|f| f == FINALIZER)) {
        list.push(json!(FINALIZER));
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(crd, "Terminating", "True", "InstanceDeletionPending", message, now);
}

/// Follows all definitions until the registry stops.
pub(crate) async fn run(registry: Arc<Registry>) {
    let gvr = definitions();
    loop {
        let Some(mut subscription) = registry.cached(&gvr).map(|c| c.subscribe()) else { return };
        let mut all = Definitions { registry: registry.clone(), known: BTreeMap::new(), due: BTreeSet::new(), cleaning: BTreeSet::new() };
        for entry in subscription.initial() {
            all.take(slim(entry.to_value()));
        }
        loop {
            let failed = all.work().await;
            let changes = tokio::select! {
                changes = subscription.next() => changes,
                () = tokio::time::sleep(RETRY), if failed => continue,
            };
            let Some(changes) = changes else { break };
            for change in changes {
                match change {
                    Change::Put(entry) => all.take(slim(entry.to_value())),
                    Change::Deleted(entry) => all.forget(entry.name()),
                }
            }
        }
        if registry.stopping.is_cancelled() {
            return;
        }
    }
}

/// Without the versions and their schemas, which are most of a definition.
fn slim(mut crd: Value) -> Arc<Value> {
    if let Some(spec) = crd.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|field, _| matches!(field.as_str(), "group" | "names"));
    }
    object::meta_mut(&mut crd).remove("managedFields");
    Arc::new(crd)
}

struct Definitions {
    registry: Arc<Registry>,
    known: BTreeMap<String, Arc<Value>>,
    due: BTreeSet<String>,
    cleaning: BTreeSet<String>,
}

fn group(crd: &Value) -> &str {
    crd["spec"]["group"].as_str().unwrap_or("")
}

impl Definitions {
    fn take(&mut self, crd: Arc<Value>) {
        let name = object::name(&crd).to_owned();
        let before = self.known.insert(name.clone(), crd.clone());
        let released = before.is_some_and(|b| b["status"]["acceptedNames"] != crd["status"]["acceptedNames"]);
        if released {
            self.look_again(group(&crd));
        }
        self.due.insert(name);
    }

    /// Its names are free again.
    fn forget(&mut self, name: &str) {
        self.cleaning.remove(name);
        if let Some(gone) = self.known.remove(name) {
            self.look_again(group(&gone));
        }
    }

    fn look_again(&mut self, of: &str) {
        let same = self.known.iter().filter(|(_, crd)| group(crd) == of).map(|(name, _)| name.clone());
        self.due.extend(same);
    }

    /// Does what is due; whether something is to be tried again.
    async fn work(&mut self) -> bool {
        let mut failed = BTreeSet::new();
        while let Some(name) = self.due.pop_first() {
            let Some(crd) = self.known.get(&name).cloned() else { continue };
            if object::deletion_timestamp(&crd).is_some() {
                self.clean(name, &crd);
            } else if let Err(error) = self.step(&crd).await {
                tracing::warn!(definition = name, %error, "the status of a definition could not be written");
                failed.insert(name);
            }
        }
        self.due = failed;
        !self.due.is_empty()
    }

    /// One step; the event that it causes brings the next.
    async fn step(&mut self, crd: &Value) -> Result<(), ApiError> {
        let others: Vec<&Value> =
            self.known.values().map(|c| &**c).filter(|c| group(c) == group(crd) && object::name(c) != object::name(crd)).collect();
        let now = time::format(self.registry.config.clock.now());
        let Some(next) = next(crd, &others, &now) else { return Ok(()) };
        // Until the event comes, nobody else gets these names.
        self.known.insert(object::name(crd).to_owned(), Arc::new(next.clone()));
        let Some(mut whole) = self.registry.get_value(&definitions(), "", object::name(crd)) else { return Ok(()) };
        whole["status"] = next["status"].clone();
        object::meta_mut(&mut whole).insert("resourceVersion".into(), Value::from(object::resource_version(crd)));
        write(&self.registry, &whole).await.map(drop)
    }

    fn clean(&mut self, name: String, crd: &Arc<Value>) {
        let held = crd["metadata"]["finalizers"].as_array().is_some_and(|l| l.iter().any(|f| f == FINALIZER));
        if held && self.cleaning.insert(name.clone()) {
            self.registry.config.tasks.spawn("custom resource cleanup", clean(self.registry.clone(), name));
        }
    }
}

fn server() -> Arc<UserInfo> {
    Arc::new(UserInfo::new("system:apiserver", &["system:masters", "system:authenticated"]))
}

/// Writes the status; what was changed or deleted meanwhile is looked at again by itself.
async fn write(registry: &Arc<Registry>, crd: &Value) -> Result<Option<Value>, ApiError> {
    let info = RequestInfo {
        subresource: "status".into(),
        user_agent: "kube-apiserver".into(),
        ..RequestInfo::new(Verb::Update, definitions(), "", object::name(crd), server())
    };
    match registry.handle(&info, Bytes::from(crd.to_string())).await {
        Ok(answer) => Ok(answer.into_value()),
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes the objects of a definition, waits until they are gone, and lets the definition go.
async fn clean(registry: Arc<Registry>, name: String) {
    loop {
        match clean_once(&registry, &name).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::warn!(definition = name, %error, "the objects of a definition could not be deleted yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = registry.stopping.cancelled() => return,
        }
    }
}

/// Whether the definition is on its way out.
async fn clean_once(registry: &Arc<Registry>, name: &str) -> Result<bool, ApiError> {
    let now = || time::format(registry.config.clock.now());
    let Some(mut crd) = registry.get_value(&definitions(), "", name) else { return Ok(true) };
    let message = "CustomResource deletion is in progress";
    if set_condition(&mut crd, "Terminating", "True", "InstanceDeletionInProgress", message, &now()) {
        let Some(written) = write(registry, &crd).await? else { return Ok(false) };
        crd = written;
    }
    if condition_is_true(&crd, "Established") {
        delete_objects(registry, name).await?;
        set_condition(&mut crd, "Terminating", "False", "InstanceDeletionCompleted", "removed all instances", &now());
    } else {
        set_condition(&mut crd, "Terminating", "False", "NeverEstablished", "resource was never established", &now());
    }
    if let Some(list) = crd["metadata"]["finalizers"].as_array_mut() {
        list.retain(|f| f != FINALIZER);
    }
    Ok(write(registry, &crd).await?.is_some())
}

async fn delete_objects(registry: &Arc<Registry>, name: &str) -> Result<(), ApiError> {
    let extensions = registry.resources.extensions();
    let Some(resource) = extensions.of_definition(name) else { return Ok(()) };
    let Some(served) = resource.served.first() else { return Ok(()) };
    let Some(cached) = registry.cached(&served.gvr) else { return Ok(()) };
    let mut subscription = cached.subscribe();
    let mut left: BTreeSet<(String, String)> = BTreeSet::new();
    let key = |e: &crate::storage::Entry| (e.namespace().to_owned(), e.name().to_owned());
    left.extend(subscription.initial().iter().map(|e| key(e)));
    let namespaces: BTreeSet<&String> = left.iter().map(|(namespace, _)| namespace).collect();
    for namespace in namespaces {
        let info = RequestInfo::new(Verb::DeleteCollection, served.gvr.clone(), namespace, "", server());
        registry.handle(&info, Bytes::new()).await?;
    }
    while !left.is_empty() {
        let Some(changes) = subscription.next().await else { break };
        for change in changes {
            match change {
                Change::Put(entry) => drop(left.insert(key(&entry))),
                Change::Deleted(entry) => drop(left.remove(&key(&entry))),
            }
        }
    }
    Ok(())
}
