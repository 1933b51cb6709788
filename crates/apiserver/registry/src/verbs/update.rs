//! UPDATE, and the loop of read, change and conditional write that all changes of an object share.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tiphys_kinds::Subresource;
use tiphys_meta::{ApiError, ErrorList, Path, Reason, object};
use tiphys_schema::Kind;

use super::Call;
use crate::admission::{Attributes, Operation};
use crate::answer::Answer;
use crate::hooks;
use crate::options::WriteOptions;
use crate::registry::WriteError;
use crate::resource::Resource;
use crate::storage::Entry;

pub(crate) const OPTIMISTIC_LOCK: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// Makes the wanted state from the present one; asked again when another write came between.
#[async_trait]
pub(crate) trait Change: Send {
    /// `old` is of the stored version, as is the answer, which has its defaults.
    async fn wanted(&mut self, call: &mut Call<'_>, old: &Value) -> Result<Value, ApiError>;

    /// Admission has looked at what was sent (a Binding, a Scale) and is not to see what it does to the object.
    fn is_admitted(&self) -> bool {
        false
    }
}

/// What kind of update it is.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// Through which subresource, if any.
    pub(crate) subresource: Option<&'static Subresource>,
    /// A wanted state without `resourceVersion` is written over whatever is there, and the change is made again on conflict.
    pub(crate) unconditional: bool,
}

/// The wanted state is what was sent. A uid in it is a precondition, which is looked at first.
struct Replace {
    sent: Value,
    manager: String,
}

#[async_trait]
impl Change for Replace {
    async fn wanted(&mut self, call: &mut Call<'_>, old: &Value) -> Result<Value, ApiError> {
        call.check_uid(&self.sent, old)?;
        let mut wanted = self.sent.clone();
        call.fields_updated(Some(old), &mut wanted, &self.manager);
        Ok(wanted)
    }
}

impl Call<'_> {
    pub(crate) async fn update(&mut self, body: Bytes) -> Result<Answer, ApiError> {
        let how = How { subresource: None, unconditional: self.resource.strategy.allow_unconditional_update };
        self.replace(body, how).await
    }

    /// PUT of the object or of one of its subresources that are the object.
    pub(crate) async fn replace(&mut self, body: Bytes, how: How) -> Result<Answer, ApiError> {
        let options = WriteOptions::parse(self.info, &self.query, "UpdateOptions")?;
        let mut tree = self.decode_object(&body, options.validation)?;
        drop(body);
        if object::name(&tree).is_empty() {
            let url = &self.info.name;
            let why = format!("the name of the object ({url} based on URL) was undeterminable: name must be provided");
            return Err(ApiError::bad_request(why));
        }
        self.check_namespace(&mut tree)?;
        self.check_name(&mut tree)?;
        self.settle(&mut tree);
        let creates = how.subresource.is_none() && self.resource.strategy.allow_create_on_update;
        if creates && self.current().await.is_none() {
            object::meta_mut(&mut tree).remove("resourceVersion");
            self.fields_updated(None, &mut tree, &options.manager);
            let entry = self.create_tree(tree, &options).await?;
            return self.answer(201, &entry).await;
        }
        let mut change = Replace { sent: tree, manager: options.manager.clone() };
        let entry = self.change(&mut change, how, &options).await?;
        self.answer(200, &entry).await
    }

    /// The newest state.
    pub(crate) async fn current(&self) -> Option<Arc<Entry>> {
        self.registry.catch_up().await;
        self.resource.cache.get(&self.resource.key(&self.info.namespace, &self.info.name))
    }

    /// Reads, changes and writes on condition that nobody else wrote, until that holds or the request says that it must not be tried again.
    pub(crate) async fn change(&mut self, change: &mut dyn Change, how: How, options: &WriteOptions) -> Result<Arc<Entry>, ApiError> {
        let mut entry = self.current().await.ok_or_else(|| self.not_found(&self.info.name))?;
        let kept = self.warnings.len();
        loop {
            self.warnings.truncate(kept);
            match self.change_once(change, &entry, how, options).await? {
                Outcome::Written(entry) => return Ok(entry),
                Outcome::Changed(Some(newer)) => entry = newer,
                Outcome::Changed(None) => return Err(self.not_found(&self.info.name)),
            }
        }
    }

    async fn change_once(
        &mut self,
        change: &mut dyn Change,
        old_entry: &Arc<Entry>,
        how: How,
        options: &WriteOptions,
    ) -> Result<Outcome, ApiError> {
        let old = self.settled(old_entry).await?;
        let mut new = change.wanted(self, &old).await?;
        self.stamp_type(&mut new);
        self.check_version(&mut new, old_entry, how)?;
        let registry = self.registry.clone();
        let attributes = Attributes::new(self, Operation::Update, self.info.name.clone(), options.dry_run);
        let admitted = change.is_admitted();
        if !admitted {
            registry.admission.admit(&registry, &attributes, &mut new, Some(&old)).await?;
        }
        let hold = self.prepare(&mut new, &old, how)?;
        if !admitted {
            registry.admission.validate(&registry, &attributes, Some(&new), Some(&old)).await?;
        }
        self.warnings.append(&mut attributes.warnings.lock());
        let outcome = self.store(new, &old, old_entry, options.dry_run).await?;
        if matches!(outcome, Outcome::Written(_)) && !options.dry_run {
            hold.keep();
        }
        Ok(outcome)
    }

    /// Webhooks, policies and the plugins of subresources see what was sent, which is not the object itself; it is created.
    pub(crate) async fn admit_sent(&mut self, kind: &Kind, sent: &mut Value, dry_run: bool) -> Result<(), ApiError> {
        sent["kind"] = json!(kind.gvk.kind);
        sent["apiVersion"] = json!(kind.gvk.api_version());
        let registry = self.registry.clone();
        let attributes = Attributes::new(self, Operation::Create, self.info.name.clone(), dry_run);
        registry.admission.admit(&registry, &attributes, sent, None).await?;
        registry.admission.validate(&registry, &attributes, Some(sent), None).await?;
        self.warnings.append(&mut attributes.warnings.lock());
        Ok(())
    }

    /// What `rest.BeforeUpdate` does: what a client may not change is put back, the kind's rules are applied and checked.
    fn prepare(&mut self, new: &mut Value, old: &Value, how: How) -> Result<hooks::Hold, ApiError> {
        keep_system_fields(new, old);
        let (errors, hold) = match how.subresource {
            Some(subresource) => {
                subresource.update(new, old, &self.ctx());
                keep_system_fields(new, old);
                (self.validate_subresource(subresource, new, old), hooks::Hold::default())
            }
            None => {
                self.prepare_update(new, old);
                keep_system_fields(new, old);
                let hold = hooks::before_update(self, new, old)?;
                (self.validate_update(new, old), hold)
            }
        };
        if !errors.is_empty() {
            return Err(errors.into_invalid(&self.resource.gvr.group, self.resource.kind_name(), &self.info.name));
        }
        if how.subresource.is_none() {
            let warnings = self.rule_warnings(new, Some(old));
            self.warnings.extend(warnings);
        }
        Ok(hold)
    }

    fn check_version(&self, new: &mut Value, old: &Entry, how: How) -> Result<(), ApiError> {
        let (given, present) = (object::resource_version(new), old.revision().to_string());
        if matches!(given, "" | "0") {
            if !how.unconditional {
                let mut errors = ErrorList::new();
                errors.invalid(&Path::new("metadata").child("resourceVersion"), json!(0), "must be specified for an update");
                return Err(errors.into_invalid(&self.served.gvr.group, &self.served.gvr.resource, &self.info.name));
            }
            object::meta_mut(new).insert("resourceVersion".into(), Value::from(present));
        } else if given != present {
            if given.parse::<u64>().is_err() {
                // Upstream does not expect it.
                return Err(ApiError::new(Reason::Unknown, format!("strconv.ParseUint: parsing {given:?}: invalid syntax")));
            }
            return Err(ApiError::conflict(&self.served.gvr, &self.info.name, OPTIMISTIC_LOCK));
        }
        Ok(())
    }

    fn check_uid(&self, new: &Value, old: &Value) -> Result<(), ApiError> {
        let (given, present) = (object::uid(new), object::uid(old));
        if given.is_empty() || given == present {
            return Ok(());
        }
        let key = self.resource.key(&self.info.namespace, &self.info.name);
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {given}, UID in object meta: {present}",
            String::from_utf8_lossy(&key)
        );
        Err(ApiError::conflict(&self.served.gvr, &self.info.name, &why))
    }

    /// Writes unless nothing changed; an object whose last finalizer went while it was being deleted is deleted now.
    pub(crate) async fn store(&mut self, new: Value, old: &Value, old_entry: &Arc<Entry>, dry_run: bool) -> Result<Outcome, ApiError> {
        if new == *old && !old_entry.stale() && self.is_kept_well(old_entry) {
            return Ok(Outcome::Written(old_entry.clone()));
        }
        let registry = self.registry.clone();
        if last_finalizer_went(self.resource, &new, old) {
            if dry_run {
                return Ok(Outcome::Written(Arc::new(self.shown(&new, old_entry.revision()))));
            }
            return match registry.remove(self.resource, old_entry).await {
                Ok(revision) => Ok(Outcome::Written(Arc::new(self.shown(&new, revision)))),
                Err(WriteError::Conflict(newer)) => Ok(Outcome::Changed(newer)),
                Err(WriteError::Failed(error)) => Err(error),
            };
        }
        if dry_run {
            return Ok(Outcome::Written(Arc::new(self.shown(&new, old_entry.revision()))));
        }
        let draft = Arc::new(self.draft(old_entry.key().clone(), new).await?);
        match registry.write(self.resource, &draft, old_entry.revision()).await {
            Ok(entry) => Ok(Outcome::Written(entry)),
            Err(WriteError::Conflict(newer)) => Ok(Outcome::Changed(newer)),
            Err(WriteError::Failed(error)) => Err(error),
        }
    }
}

pub(crate) enum Outcome {
    Written(Arc<Entry>),
    /// Another write came first; the newest state, or none if the object is gone.
    Changed(Option<Arc<Entry>>),
}

/// `rest.BeforeUpdate`: identity, creation and deletion are the server's.
pub(crate) fn keep_system_fields(new: &mut Value, old: &Value) {
    let old = old.get("metadata");
    let of_old = |field: &str| old.and_then(|m| m.get(field)).filter(|v| !v.is_null()).cloned();
    let meta = object::meta_mut(new);
    if meta.get("uid").and_then(Value::as_str).unwrap_or("").is_empty()
        && let Some(uid) = of_old("uid")
    {
        meta.insert("uid".into(), uid);
    }
    for field in ["creationTimestamp", "deletionTimestamp"] {
        if let Some(value) = of_old(field) {
            meta.insert(field.into(), value);
        }
    }
    if !meta.contains_key("deletionGracePeriodSeconds")
        && let Some(value) = of_old("deletionGracePeriodSeconds")
    {
        meta.insert("deletionGracePeriodSeconds".into(), value);
    }
    meta.remove("selfLink");
}

/// `ShouldDeleteDuringUpdate`: deletion was asked for, its grace is over, and nothing holds the object any more.
fn last_finalizer_went(resource: &Resource, new: &Value, old: &Value) -> bool {
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    let held = resource.gvr.group.is_empty() && &*resource.gvr.resource == "namespaces" && !none(&new["spec"]["finalizers"]);
    let grace = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    object::deletion_timestamp(old).is_some() && none(&new["metadata"]["finalizers"]) && grace.is_none_or(|g| g == 0) && !held
}
