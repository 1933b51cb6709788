//! CREATE.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tiphys_meta::{ApiError, Reason, generate_name, object, time};

use super::Call;
use crate::admission::{Attributes, Operation};
use crate::answer::Answer;
use crate::chance;
use crate::hooks;
use crate::options::WriteOptions;
use crate::registry::WriteError;
use crate::storage::Entry;

/// Names are generated again this often when the first is taken (KEP-4420).
const NAME_TRIES: usize = 8;

impl Call<'_> {
    pub(crate) async fn create(&mut self, body: Bytes) -> Result<Answer, ApiError> {
        let options = WriteOptions::parse(self.info, &self.query, "CreateOptions")?;
        let mut tree = self.decode_object(&body, options.validation)?;
        drop(body);
        wipe_system_fields(&mut tree);
        self.check_namespace(&mut tree)?;
        self.settle(&mut tree);
        self.fields_updated(None, &mut tree, &options.manager);
        let entry = self.create_tree(tree, &options).await?;
        self.answer(201, &entry).await
    }

    fn check_not_terminating(&self) -> Result<(), ApiError> {
        match self.resource.definition() {
            Some(definition) if definition.is_terminating() => {
                let why = "create not allowed while custom resource definition is terminating";
                Err(ApiError::forbidden(&self.served.gvr, &self.info.name, why))
            }
            _ => Ok(()),
        }
    }

    /// Creates from a tree of the stored version with its defaults.
    pub(crate) async fn create_tree(&mut self, tree: Value, options: &WriteOptions) -> Result<Arc<Entry>, ApiError> {
        self.check_not_terminating()?;
        let prefix = generated_from(&tree);
        if prefix.is_none() {
            return self.create_once(tree, options).await;
        }
        let mut tries = NAME_TRIES;
        loop {
            tries -= 1;
            match self.create_once(tree.clone(), options).await {
                Err(error) if error.is_already_exists() && tries > 0 => {}
                Err(error) if error.is_already_exists() => return Err(no_name_left(error)),
                other => return other,
            }
        }
    }

    async fn create_once(&mut self, mut tree: Value, options: &WriteOptions) -> Result<Arc<Entry>, ApiError> {
        let registry = self.registry.clone();
        // Clients may leave it to the path what they send; policies and webhooks may not.
        self.stamp_type(&mut tree);
        let mut attributes = Attributes::new(self, Operation::Create, object::name(&tree).to_owned(), options.dry_run);
        registry.admission.admit(&registry, &attributes, &mut tree, None).await?;
        self.fill_system_fields(&mut tree);
        let name = object::name(&tree).to_owned();
        self.prepare_create(&mut tree);
        let hold = hooks::before_create(self, &mut tree)?;
        let errors = self.validate_create(&tree);
        if !errors.is_empty() {
            return Err(errors.into_invalid(&self.resource.gvr.group, self.resource.kind_name(), &name));
        }
        let warnings = self.rule_warnings(&tree, None);
        self.warnings.extend(warnings);
        attributes.name.clone_from(&name);
        registry.admission.validate(&registry, &attributes, Some(&tree), None).await?;
        self.warnings.append(&mut attributes.warnings.lock());
        // Upstream's storage says so, after everybody else.
        if !matches!(object::resource_version(&tree), "" | "0") {
            return Err(ApiError::new(Reason::Unknown, "resourceVersion should not be set on objects to be created"));
        }
        let key = self.resource.key(&self.info.namespace, &name);
        let draft = Arc::new(self.draft(key, tree).await?);
        if options.dry_run {
            return match self.resource.cache.get(draft.key()) {
                Some(_) => Err(ApiError::already_exists(&self.served.gvr, &name)),
                None => Ok(draft.entry(0)),
            };
        }
        let entry = registry.write(self.resource, &draft, 0).await.map_err(|error| match error {
            WriteError::Conflict(_) => ApiError::already_exists(&self.served.gvr, &name),
            WriteError::Failed(error) => error,
        })?;
        hold.keep();
        Ok(entry)
    }

    fn fill_system_fields(&self, tree: &mut Value) {
        let now = time::format(self.registry.config.clock.now());
        let meta = object::meta_mut(tree);
        let empty = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or("").is_empty();
        if empty(meta.get("name"))
            && let Some(prefix) = meta.get("generateName").and_then(Value::as_str).filter(|p| !p.is_empty())
        {
            let name = generate_name::generate(prefix, chance::number());
            meta.insert("name".into(), Value::from(name));
        }
        meta.insert("uid".into(), Value::from(chance::uuid()));
        meta.insert("creationTimestamp".into(), Value::from(now));
    }
}

/// `generateName`, where it decides.
fn generated_from(tree: &Value) -> Option<&str> {
    let meta = tree.get("metadata")?;
    let prefix = meta.get("generateName").and_then(Value::as_str).filter(|p| !p.is_empty())?;
    object::name(tree).is_empty().then_some(prefix)
}

fn no_name_left(error: ApiError) -> ApiError {
    let mut error = ApiError { reason: Reason::AlreadyExists, ..error };
    error.message = format!("{}, the server was not able to generate a unique name for the object", error.message);
    error.retry_after_seconds = 1;
    error
}

/// What only the server sets (`rest.WipeObjectMetaSystemFields`).
pub(crate) fn wipe_system_fields(tree: &mut Value) {
    let meta = object::meta_mut(tree);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        meta.remove(field);
    }
}
