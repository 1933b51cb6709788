//! DELETE: at once, gracefully, or when the last finalizer is gone; and deletion of a whole collection.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvk, object, time};
use tiphys_types::jiff::{SignedDuration, Timestamp};

use super::Call;
use super::list::collect;
use super::update::Outcome;
use crate::admission::Attributes;
use crate::answer::{Answer, Document};
use crate::custom::lifecycle;
use crate::options::{DeleteOptions, ListOptions, Propagation};
use crate::registry::WriteError;
use crate::render::ListMeta;
use crate::resource::Resource;
use crate::select::Selection;
use crate::storage::Entry;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What is to be done about one object.
#[derive(Debug, PartialEq)]
enum Plan {
    /// It is being deleted already, and no sooner.
    Pending,
    /// It stays for now, in this state.
    Mark(Value),
    /// It goes; its last state as the client sees it.
    Remove(Value),
}

/// What came of it.
pub(crate) enum Deleted {
    /// Its last state, as of this revision.
    Gone(Value, i64),
    Still(Arc<Entry>),
}

impl Call<'_> {
    pub(crate) async fn delete(&mut self, body: Bytes) -> Result<Answer, ApiError> {
        let options = DeleteOptions::parse(self.info, &self.query, &body)?;
        self.warn_of_orphans(&options);
        let deleted = self.delete_named(&self.info.name, &options).await?;
        self.deleted(&deleted, &options).await
    }

    /// The object where the kind returns it or where it is still there, else a Status that says what was deleted.
    async fn deleted(&mut self, deleted: &Deleted, options: &DeleteOptions) -> Result<Answer, ApiError> {
        let tree = match deleted {
            Deleted::Still(entry) => {
                let code = if options.orphan_dependents == Some(false) { 202 } else { 200 };
                return self.answer(code, entry).await;
            }
            Deleted::Gone(tree, revision) if returns_object(self.resource) => {
                let entry = Arc::new(self.shown(tree, *revision));
                return self.answer(200, &entry).await;
            }
            Deleted::Gone(tree, _) => tree,
        };
        let mut details = json!({"name": object::name(tree), "kind": self.served.gvr.resource, "uid": object::uid(tree)});
        if !self.served.gvr.group.is_empty() {
            details["group"] = json!(self.served.gvr.group);
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        self.answer_tree(200, &Gvk::new("", "v1", "Status"), &status)
    }

    pub(crate) async fn delete_named(&mut self, name: &str, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        self.registry.catch_up().await;
        let key = self.resource.key(&self.info.namespace, name);
        let mut entry = self.resource.cache.get(&key).ok_or_else(|| self.not_found(name))?;
        loop {
            match self.delete_once(&entry, name, options).await? {
                Attempt::Done(deleted) => return Ok(deleted),
                Attempt::Again(Some(newer)) => entry = newer,
                Attempt::Again(None) => return Err(self.not_found(name)),
            }
        }
    }

    async fn delete_once(&mut self, entry: &Arc<Entry>, name: &str, options: &DeleteOptions) -> Result<Attempt, ApiError> {
        let old = self.settled(entry).await?;
        self.check_preconditions(&old, name, options)?;
        let registry = self.registry.clone();
        let attributes = Attributes::of_delete(self, name, options);
        registry.admission.validate(&registry, &attributes, None, Some(&old)).await?;
        self.warnings.append(&mut attributes.warnings.lock());
        match plan(self.resource, &old, options, registry.config.clock.now()) {
            Plan::Pending => Ok(Attempt::Done(Deleted::Still(entry.clone()))),
            Plan::Mark(new) => Ok(match self.store(new, &old, entry, options.dry_run).await? {
                Outcome::Written(entry) => Attempt::Done(Deleted::Still(entry)),
                Outcome::Changed(newer) => Attempt::Again(newer),
            }),
            Plan::Remove(last) => {
                if options.dry_run {
                    return Ok(Attempt::Done(Deleted::Gone(last, entry.revision())));
                }
                match registry.remove(self.resource, entry).await {
                    Ok(revision) => Ok(Attempt::Done(Deleted::Gone(last, revision))),
                    Err(WriteError::Conflict(newer)) => Ok(Attempt::Again(newer)),
                    Err(WriteError::Failed(error)) => Err(error),
                }
            }
        }
    }

    fn check_preconditions(&self, old: &Value, name: &str, options: &DeleteOptions) -> Result<(), ApiError> {
        // Namespaces and definitions have a deletion of their own, with words of its own.
        let own = is_namespace(self.resource) || &*self.resource.gvr.resource == "customresourcedefinitions";
        let conflict = |why: String| {
            let kind = if own { &self.resource.gvr.resource } else { &self.resource.shape.gvk.kind };
            let gvr = tiphys_meta::Gvr { resource: kind.clone(), ..self.resource.gvr.clone() };
            Err(ApiError::conflict(&gvr, name, &why))
        };
        if let Some(uid) = options.uid.as_deref()
            && uid != object::uid(old)
        {
            if own {
                return conflict(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object::uid(old)));
            }
            return conflict(format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
                object::uid(old)
            ));
        }
        if let Some(version) = options.resource_version.as_deref()
            && version != object::resource_version(old)
        {
            if own {
                let present = object::resource_version(old);
                return conflict(format!(
                    "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {present}"
                ));
            }
            return conflict(format!(
                "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
                object::resource_version(old)
            ));
        }
        Ok(())
    }

    /// Of all kinds, Jobs leave their pods behind unless told otherwise.
    fn warn_of_orphans(&mut self, options: &DeleteOptions) {
        let jobs = self.resource.gvr.group == "batch" && &*self.resource.gvr.resource == "jobs";
        if jobs && options.propagation.is_none() && options.orphan_dependents.is_none() {
            self.warnings.push(
                "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them \
                 or set propagationPolicy=Orphan to suppress this warning"
                    .to_owned(),
            );
        }
    }

    /// Answers with the objects as they were.
    pub(crate) async fn delete_collection(&mut self, body: Bytes) -> Result<Answer, ApiError> {
        let options = DeleteOptions::parse(self.info, &self.query, &body)?;
        self.warn_of_orphans(&options);
        let list_options = ListOptions::parse(&self.query, false)?;
        let selection = Selection::new(self.resource, self.served, &self.info.namespace, "", &list_options)?;
        let (entries, meta) = collect(self.registry, self.resource, self.served, &selection, &list_options).await?;
        let mut deleted = Vec::with_capacity(entries.len());
        for entry in entries {
            match self.delete_in(entry.namespace(), entry.name(), &options).await {
                Ok(_) => deleted.push(entry),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let renderer = self.renderer()?;
        let content_type = renderer.content_type().into();
        let deleted = self.registry.views(self.served, deleted).await?;
        let body = renderer.list(deleted, &ListMeta { revision: meta.revision, ..ListMeta::default() })?;
        Ok(Answer::Object(Document { code: 200, content_type, body, warnings: std::mem::take(&mut self.warnings) }))
    }

    /// Deletes one object of a collection, which may span namespaces.
    async fn delete_in(&mut self, namespace: &str, name: &str, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        if namespace == self.info.namespace {
            return self.delete_named(name, options).await;
        }
        let info = crate::request::RequestInfo { namespace: namespace.to_owned(), ..self.info.clone() };
        let mut call = Call { info: &info, query: crate::options::Query::parse(""), warnings: Vec::new(), ..*self };
        call.delete_named(name, options).await
    }
}

enum Attempt {
    Done(Deleted),
    /// Another write came first; the newest state, or none if the object is gone.
    Again(Option<Arc<Entry>>),
}

/// Kinds whose deletion answers with the object (`ReturnDeletedObject` upstream).
fn returns_object(resource: &Resource) -> bool {
    match (&*resource.gvr.group, &*resource.gvr.resource) {
        ("", name) => matches!(
            name,
            "namespaces"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "services"
                | "serviceaccounts"
        ),
        ("storage.k8s.io", name) => {
            matches!(name, "csidrivers" | "csinodes" | "storageclasses" | "volumeattachments" | "volumeattributesclasses")
        }
        ("resource.k8s.io", _) => true,
        _ => false,
    }
}

/// What a deletion does to an object. Pure.
fn plan(resource: &Resource, old: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    if is_namespace(resource) {
        return plan_namespace(old, options, now);
    }
    let mut new = old.clone();
    if is_definition(resource) && object::deletion_timestamp(old).is_none() {
        lifecycle::mark_for_deletion(&mut new, &time::format(now));
        return Plan::Mark(new);
    }
    let graceful = match resource.strategy.grace {
        Some(grace) => match set_grace(&mut new, options, grace, now) {
            Grace::Pending => return Plan::Pending,
            Grace::Set(seconds) => seconds > 0,
            Grace::Over => false,
        },
        None => false,
    };
    let finalizers = finalizers_for(resource, old, options);
    let held = !finalizers.is_empty();
    set_finalizers(&mut new, finalizers);
    if graceful {
        return Plan::Mark(new);
    }
    if held {
        mark(&mut new, now);
        return Plan::Mark(new);
    }
    Plan::Remove(new)
}

/// Definitions stay until the objects that they define are gone.
fn is_definition(resource: &Resource) -> bool {
    resource.gvr.group == "apiextensions.k8s.io" && &*resource.gvr.resource == "customresourcedefinitions"
}

fn is_namespace(resource: &Resource) -> bool {
    resource.gvr.group.is_empty() && &*resource.gvr.resource == "namespaces"
}

enum Grace {
    Pending,
    Set(i64),
    Over,
}

/// `rest.BeforeDelete` for kinds that are deleted gracefully.
fn set_grace(new: &mut Value, options: &DeleteOptions, grace: fn(&Value, Option<i64>) -> i64, now: Timestamp) -> Grace {
    let asked = options.grace.map(|g| if g < 0 { 1 } else { g });
    let Some(since) = object::deletion_timestamp(new).and_then(time::parse) else {
        let seconds = grace(new, asked);
        let generation = new["metadata"]["generation"].as_i64().unwrap_or(0);
        set_deletion(new, now + SignedDuration::from_secs(seconds), seconds);
        if generation > 0 {
            object::meta_mut(new).insert("generation".into(), json!(generation + 1));
        }
        return Grace::Set(seconds);
    };
    let present = new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if present == 0 {
        return Grace::Over;
    }
    let Some(asked) = asked.filter(|a| *a < present) else { return Grace::Pending };
    // Grace can only become shorter, and never reaches into the past.
    let mut at = since - SignedDuration::from_secs(present) + SignedDuration::from_secs(asked);
    let mut seconds = asked;
    if at < now {
        at = now;
        seconds = asked.min(1);
    }
    set_deletion(new, at, seconds);
    Grace::Set(seconds)
}

fn set_deletion(tree: &mut Value, at: Timestamp, seconds: i64) {
    let meta = object::meta_mut(tree);
    meta.insert("deletionTimestamp".into(), Value::from(time::format(at)));
    meta.insert("deletionGracePeriodSeconds".into(), json!(seconds));
}

/// `markAsDeleting`: finalizers are to do their work.
fn mark(tree: &mut Value, now: Timestamp) {
    let present = object::deletion_timestamp(tree).and_then(time::parse);
    let generation = tree["metadata"]["generation"].as_i64().unwrap_or(0);
    if present.is_none() && generation > 0 {
        object::meta_mut(tree).insert("generation".into(), json!(generation + 1));
    }
    let at = present.filter(|t| *t <= now).unwrap_or(now);
    set_deletion(tree, at, 0);
}

fn finalizers(tree: &Value) -> impl Iterator<Item = &str> {
    tree["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn set_finalizers(tree: &mut Value, finalizers: Vec<String>) {
    let meta = object::meta_mut(tree);
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), finalizers.into());
    }
}

/// The finalizers with those of garbage collection as the options want them (`deletionFinalizersForGarbageCollection`).
fn finalizers_for(resource: &Resource, old: &Value, options: &DeleteOptions) -> Vec<String> {
    let has = |name: &str| finalizers(old).any(|f| f == name);
    let group = (&*resource.gvr.group, &*resource.gvr.resource);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation) {
        _ if group.1 == "events" => (false, false),
        (Some(orphan), _) => (orphan, false),
        (_, Some(propagation)) => (propagation == Propagation::Orphan, propagation == Propagation::Foreground),
        _ if has(ORPHAN) => (true, false),
        _ if has(FOREGROUND) => (false, true),
        // What `kubectl delete` of old relied on; newer clients always say what they want.
        _ => (matches!(group, ("", "replicationcontrollers") | ("batch", "jobs")), false),
    };
    let kept = finalizers(old).filter(|f| *f != ORPHAN && *f != FOREGROUND).map(str::to_owned);
    kept.chain(orphan.then(|| ORPHAN.to_owned())).chain(foreground.then(|| FOREGROUND.to_owned())).collect()
}

/// A namespace is first marked as terminating; it goes when its content is gone and its finalizers are (`spec.finalizers`, through `/finalize`).
fn plan_namespace(old: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let mut new = old.clone();
    if object::deletion_timestamp(old).is_none() {
        object::meta_mut(&mut new).insert("deletionTimestamp".into(), Value::from(time::format(now)));
        object::as_map(object::as_map(&mut new).entry("status").or_insert(Value::Null)).insert("phase".into(), json!("Terminating"));
        let has = |name: &str| finalizers(old).any(|f| f == name);
        let (orphan, foreground) = match (options.orphan_dependents, options.propagation) {
            (Some(orphan), _) => (orphan, has(FOREGROUND)),
            (_, Some(propagation)) => (propagation == Propagation::Orphan, propagation == Propagation::Foreground),
            _ => (has(ORPHAN), has(FOREGROUND)),
        };
        let kept = finalizers(old).filter(|f| *f != ORPHAN && *f != FOREGROUND).map(str::to_owned);
        let all = kept.chain(orphan.then(|| ORPHAN.to_owned())).chain(foreground.then(|| FOREGROUND.to_owned())).collect();
        set_finalizers(&mut new, all);
        return Plan::Mark(new);
    }
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    if !empty(&old["spec"]["finalizers"]) || !empty(&old["metadata"]["finalizers"]) { Plan::Pending } else { Plan::Remove(new) }
}
