//! What a request's objects are held to: the rules of a built-in kind, or what a definition says of a custom resource.
//!
//! A built-in object is defaulted, admitted and validated in its stored version; a custom one in the version of the request, and is converted
//! when it is written (`to_storage`).

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tiphys_kinds::Subresource;
use tiphys_meta::{ApiError, ErrorList, Gvk, object};
use tiphys_schema::apply::Schema;
use tiphys_schema::codec::{self, DecodeError, Decoded, Strictness};
use tiphys_schema::structural::embedded::Misfit;
use tiphys_schema::{Facts, Kind};

use super::Call;
use super::body::{refused, unreadable};
use crate::custom::{Custom, STATUS};
use crate::devices;
use crate::negotiate::{Format, body_format, unsupported};
use crate::options::Validation;
use crate::resource::Model;
use crate::storage::{Draft, Entry};

impl Call<'_> {
    /// The request's object, of the served version.
    pub(crate) fn decode_object(&mut self, body: &Bytes, validation: Validation) -> Result<Value, ApiError> {
        match &self.served.model {
            Model::Builtin(kind, _) => self.decode(body, kind, validation),
            Model::Custom(custom) => self.decode_custom(custom, body, validation),
        }
    }

    fn decode_custom(&mut self, custom: &Custom, body: &Bytes, validation: Validation) -> Result<Value, ApiError> {
        let wanted = &custom.version().gvk;
        let cannot = |error: DecodeError| refused(&error).unwrap_or_else(|| unreadable(wanted, None, &error.to_string(), body));
        let decoded = match body_format(&self.info.content_type)? {
            Format::Json => codec::json::decode_custom(body, validation.strictness()).map_err(cannot)?,
            Format::Yaml => {
                let (mut object, twice) = codec::yaml::read(body).map_err(cannot)?;
                let mut problems: Vec<String> = twice.into_iter().collect();
                problems.extend(codec::json::canonicalize_metadata(&mut object, validation.strictness()).map_err(cannot)?);
                Decoded { object, problems }
            }
            Format::Protobuf => return Err(unsupported(&[Format::Json.content_type(), Format::Yaml.content_type()])),
        };
        check_custom_type(wanted, &decoded.object, body)?;
        self.fit(custom, decoded, validation)
    }

    /// An object that was made here, by a patch, brought into the form of the served version.
    pub(crate) fn canonical(&mut self, tree: Value, validation: Validation) -> Result<Value, ApiError> {
        let misfit = |e: DecodeError| refused(&e).unwrap_or_else(|| ApiError::bad_request(e.to_string()));
        match &self.served.model {
            Model::Builtin(kind, _) => {
                let decoded = codec::json::canonicalize(kind, tree, validation.strictness()).map_err(misfit)?;
                self.report(&kind.gvk, decoded, validation)
            }
            Model::Custom(custom) => {
                let mut object = tree;
                let problems = codec::json::canonicalize_metadata(&mut object, validation.strictness()).map_err(misfit)?;
                self.fit(custom, Decoded { object, problems }, validation)
            }
        }
    }

    fn fit(&mut self, custom: &Custom, mut decoded: Decoded, validation: Validation) -> Result<Value, ApiError> {
        let unknown = custom.version().coerce(&mut decoded.object, Misfit::Refuse)?;
        if validation != Validation::Ignore {
            decoded.problems.extend(unknown);
        }
        self.report(&custom.version().gvk, decoded, validation)
    }

    /// Into the version that rules and admission see, with defaults.
    pub(crate) fn settle(&self, tree: &mut Value) {
        match &self.served.model {
            Model::Builtin(..) => {
                self.served.conversion.to_stored(tree);
                self.resource.strategy.default(tree);
                if let Some(stamps) = self.resource.strategy.stamps {
                    stamps(tree, self.registry.config.clock.now());
                }
            }
            Model::Custom(custom) => custom.version().default(tree),
        }
    }

    /// How configurations in the served version merge.
    pub(crate) fn schema(&self) -> Schema<'_> {
        self.served.schema()
    }

    /// Whether the status is not the object's to write.
    pub(crate) fn owns_status(&self) -> bool {
        match self.served.as_custom() {
            Some(custom) => custom.version().status,
            None => self.resource.strategy.status_strategy().is_some(),
        }
    }

    pub(crate) fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        match self.served.as_custom() {
            Some(_) => (name == STATUS.name).then_some(&STATUS),
            None => self.resource.strategy.subresource(name),
        }
    }

    pub(crate) fn prepare_create(&self, tree: &mut Value) {
        match self.served.as_custom() {
            Some(custom) => custom.version().prepare_create(tree),
            None => self.resource.strategy.prepare_create(tree, &self.ctx()),
        }
    }

    /// The rules of the group that was asked: events are kept in the core group, but those of `events.k8s.io` are held to more.
    fn rules(&self) -> &'static tiphys_kinds::Strategy {
        let at_home = self.served.as_custom().is_some() || self.served.gvr.group == self.resource.gvr.group;
        if at_home { self.resource.strategy } else { tiphys_kinds::strategy(&self.served.gvr) }
    }

    pub(crate) fn validate_create(&self, tree: &Value) -> ErrorList {
        let mut errors = devices::check_create(self, tree);
        errors.append(self.rules().validate_create(tree));
        if let Some(custom) = self.served.as_custom() {
            errors.append(custom.version().validate(tree, None));
        }
        errors
    }

    pub(crate) fn prepare_update(&self, new: &mut Value, old: &Value) {
        match self.served.as_custom() {
            Some(custom) => custom.version().prepare_update(new, old),
            None => self.resource.strategy.prepare_update(new, old, &self.ctx()),
        }
    }

    pub(crate) fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.rules().validate_update(new, old);
        if let Some(custom) = self.served.as_custom() {
            errors.append(custom.version().validate(new, Some(old)));
        }
        errors
    }

    pub(crate) fn validate_subresource(&self, subresource: &Subresource, new: &Value, old: &Value) -> ErrorList {
        let mut errors = if subresource.name == STATUS.name { devices::check_status(self, new, old) } else { ErrorList::new() };
        errors.append(subresource.validate(new, old));
        if let Some(custom) = self.served.as_custom() {
            errors.append(custom.version().validate_status(new, old));
        }
        errors
    }

    pub(crate) fn rule_warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        match self.served.as_custom() {
            Some(custom) => custom.version().warnings(new, old),
            None => self.resource.strategy.warnings(new, old),
        }
    }

    /// A kept object as rules and admission see it.
    pub(crate) async fn settled(&self, entry: &Arc<Entry>) -> Result<Value, ApiError> {
        Ok(self.registry.view(self.served, entry).await?.to_value())
    }

    /// A draft of an object as rules and admission left it.
    pub(crate) async fn draft(&self, key: Bytes, tree: Value) -> Result<Draft, ApiError> {
        Draft::new(&self.resource.shape, key, self.to_storage(tree).await?)
    }

    async fn to_storage(&self, mut tree: Value) -> Result<Value, ApiError> {
        let Some(custom) = self.served.as_custom() else { return Ok(tree) };
        let stored = custom.definition.stored();
        if stored.api_version == custom.version().api_version {
            return Ok(tree);
        }
        tree = self.registry.convert(&custom.definition, stored, vec![tree]).await?.pop().unwrap_or_default();
        stored.default(&mut tree);
        Ok(tree)
    }

    /// Whether an object is kept in the version that new ones are: else a write that changes nothing is one all the same, for storage is migrated so.
    pub(crate) fn is_kept_well(&self, entry: &Entry) -> bool {
        self.served.as_custom().is_none_or(|c| entry.api_version() == c.definition.stored().api_version)
    }

    /// Makes a tree say its type: unchanged objects are to compare equal.
    pub(crate) fn stamp_type(&self, tree: &mut Value) {
        let (kind, api_version) = match self.served.as_custom() {
            // What a client said is checked.
            Some(_) if tree.get("kind").is_some() && tree.get("apiVersion").is_some() => return,
            Some(custom) => (&*custom.version().gvk.kind, custom.version().api_version.as_str()),
            None => (self.resource.kind_name(), self.resource.shape.api_version.as_str()),
        };
        let map = object::as_map(tree);
        map.insert("kind".into(), Value::from(kind));
        map.insert("apiVersion".into(), Value::from(api_version));
    }

    /// A tree as an entry that is only shown.
    pub(crate) fn shown(&self, tree: &Value, revision: i64) -> Entry {
        let key = self.resource.key(object::namespace(tree), object::name(tree));
        let shape = self.served.as_custom().map_or(&self.resource.shape, |c| &c.shape);
        Entry::shown(shape.clone(), key, tree, revision)
    }
}

/// A custom resource says its type. Its kind is looked at by validation.
fn check_custom_type(wanted: &Gvk, tree: &Value, body: &Bytes) -> Result<(), ApiError> {
    let text = |f: &str| tree.get(f).and_then(Value::as_str).unwrap_or("");
    if text("kind").is_empty() {
        let why = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(body));
        return Err(unreadable(wanted, None, &why, body));
    }
    let (given, api_version) = (text("apiVersion"), wanted.api_version());
    if given != api_version {
        let message = format!("the API version in the data ({given}) does not match the expected API version ({api_version})");
        return Err(ApiError::bad_request(message));
    }
    Ok(())
}

/// The kind of an object that is none of the resource's: an Eviction, a Binding, a Scale, or what stands for a connection in admission (`PodExecOptions` and its like).
pub(crate) fn other_kind(resource: &crate::resource::Resource, object: &Value) -> Option<&'static Kind> {
    let text = |f: &str| object.get(f).and_then(Value::as_str).unwrap_or("");
    let kind = text("kind");
    if kind.is_empty() || kind == resource.kind_name() {
        return None;
    }
    Facts::builtin().kind(&Gvk::from_api_version(text("apiVersion"), kind))
}

/// What a webhook made of an object, in canonical form with its defaults.
pub(crate) fn after_webhooks(resource: &crate::resource::Resource, version: usize, patched: Value) -> Result<Value, ApiError> {
    let misfit = |e: &dyn std::fmt::Display| ApiError::internal(format!("the object as webhooks changed it cannot be read: {e}"));
    if let Some(other) = other_kind(resource, &patched) {
        return Ok(codec::json::canonicalize(other, patched, Strictness::Ignore).map_err(|e| misfit(&e))?.object);
    }
    match (resource.kind, resource.served.get(version).and_then(|s| s.as_custom())) {
        (Some(kind), _) => {
            let mut tree = codec::json::canonicalize(kind, patched, Strictness::Ignore).map_err(|e| misfit(&e))?.object;
            resource.strategy.default(&mut tree);
            Ok(tree)
        }
        (None, Some(custom)) => {
            let mut tree = patched;
            codec::json::canonicalize_metadata(&mut tree, Strictness::Ignore).map_err(|e| misfit(&e))?;
            custom.version().coerce(&mut tree, Misfit::Refuse)?;
            custom.version().default(&mut tree);
            Ok(tree)
        }
        (None, None) => Ok(patched),
    }
}
