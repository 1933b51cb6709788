//! How an object is kept: its key, its stored bytes (upstream's: protobuf for built-in kinds; JSON, which is for custom resources, is read), and its form in memory,
//! which is the JSON that clients read and the few fields that are selected on.

pub(crate) mod encryption;
mod form;
mod json;
pub(crate) mod keys;
pub(crate) mod wire;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;
use tiphys_meta::{ApiError, Gvk, object};
use tiphys_schema::codec;
use tiphys_schema::structural::embedded::Misfit;

use encryption::{Opened, Sealer};
pub(crate) use form::{FieldNames, Form, Forms};
pub(crate) use json::Json;

use crate::custom::{Definition, Version};

/// A strategy's `fields`.
pub(crate) type SelectableFields = fn(&Value) -> Vec<(&'static str, Cow<'_, str>)>;

/// What is needed to read and write the objects of one resource.
pub(crate) struct Shape {
    /// The type that is stored, and that the form in memory shows.
    pub(crate) gvk: Gvk,
    pub(crate) api_version: String,
    pub(crate) namespaced: bool,
    pub(crate) fields: Fields,
    /// How the stored bytes are encrypted, where they are.
    pub(crate) sealer: Option<Arc<Sealer>>,
    /// What objects are selected on, by name, in the order of their values.
    pub(crate) field_names: FieldNames,
    /// What all forms together take.
    pub(crate) forms: Arc<Forms>,
}

/// What objects can be selected on.
pub(crate) enum Fields {
    Builtin(SelectableFields),
    /// Those of a version of a definition, in its order.
    Custom(Arc<Definition>, usize),
}

impl Shape {
    /// Of a custom resource in one of its versions.
    pub(crate) fn custom(definition: &Arc<Definition>, at: usize, sealer: Option<Arc<Sealer>>, forms: Arc<Forms>) -> Shape {
        let version = &definition.versions[at];
        Shape {
            gvk: version.gvk.clone(),
            api_version: version.api_version.clone(),
            namespaced: definition.namespaced,
            fields: Fields::Custom(definition.clone(), at),
            sealer,
            field_names: FieldNames::default(),
            forms,
        }
    }

    fn is_custom(&self) -> bool {
        matches!(self.fields, Fields::Custom(..))
    }

    fn version(&self) -> Option<&Version> {
        match &self.fields {
            Fields::Custom(definition, at) => definition.versions.get(*at),
            Fields::Builtin(_) => None,
        }
    }

    /// Bytes of a tree to be stored at `key`. What only a read knows, `resourceVersion`, is left out.
    fn encode(&self, key: &[u8], tree: &mut Value) -> Result<Bytes, ApiError> {
        object::meta_mut(tree).remove("resourceVersion");
        let plain =
            if self.is_custom() { codec::json::encode(tree) } else { codec::proto::encode(&self.gvk, tree).map_err(ApiError::internal)? };
        let stored = match &self.sealer {
            Some(sealer) => sealer.seal(key, plain),
            None => plain,
        };
        // A buffer that grew has room to spare, which would be kept as long as the object.
        Ok(Bytes::copy_from_slice(&stored))
    }

    fn open<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<Opened<'a>, ApiError> {
        // What is only shown was never stored, so it has no bytes.
        let Some(sealer) = self.sealer.as_ref().filter(|_| !stored.is_empty()) else {
            return Ok(Opened { plain: Cow::Borrowed(stored), stale: false });
        };
        let unable = |error| ApiError::internal(format!("unable to transform key {:?}: {error}", String::from_utf8_lossy(key)));
        sealer.open(key, stored).map_err(unable)
    }

    fn decode(&self, stored: &[u8]) -> Result<Value, ApiError> {
        if stored.starts_with(wire::MAGIC) {
            codec::proto::decode(stored).map(|(_, tree)| tree).map_err(ApiError::internal)
        } else {
            let mut tree = serde_json::from_slice(stored).map_err(ApiError::internal)?;
            self.freshen(&mut tree)?;
            Ok(tree)
        }
    }

    /// Stored custom resources are read by what their definition says now: new defaults are there, forgotten fields are not.
    fn freshen(&self, tree: &mut Value) -> Result<(), ApiError> {
        let Fields::Custom(definition, _) = &self.fields else { return Ok(()) };
        let Some(version) = definition.version_of(tree["apiVersion"].as_str().unwrap_or("")) else { return Ok(()) };
        if let Err(error) = codec::json::canonicalize_metadata(tree, codec::Strictness::Ignore) {
            tracing::warn!(%error, "metadata of a stored custom resource does not fit");
        }
        version.coerce(tree, Misfit::Drop)?;
        version.default(tree);
        Ok(())
    }

    /// Name and namespace are left out: the key has them.
    fn selected<'a>(&self, tree: &'a Value) -> Vec<(&'static str, Cow<'a, str>)> {
        match &self.fields {
            Fields::Builtin(fields) => fields(tree).into_iter().filter(|(name, _)| !name.starts_with("metadata.")).collect(),
            Fields::Custom(..) => {
                let selectable = self.version().map_or(&[][..], |v| &v.selectable);
                let text = |value: &'a Value| value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed);
                selectable.iter().map(|(_, path)| ("", path.find(tree).first().map(|v| text(v)).unwrap_or_default())).collect()
            }
        }
    }

    /// `room`: about how long the JSON will be.
    fn form(&self, tree: &Value, revision: i64, room: usize) -> Form {
        // A custom resource may be kept in an older version than the one that is stored now.
        let own = tree.get("apiVersion").and_then(Value::as_str).filter(|_| self.is_custom());
        let json = Json::write(own.unwrap_or(&self.api_version), &self.gvk.kind, tree, revision, room);
        let fields = self.selected(tree);
        Form::new(json, self.field_names.of(&fields), object::labels(tree), &fields)
    }
}

/// One object at one revision; never changed, shared by lists, watches and the cache. Its form is made when first read: an object that was
/// only loaded at start costs its stored bytes.
pub struct Entry {
    shape: Arc<Shape>,
    key: Bytes,
    stored: Bytes,
    revision: i64,
    form: OnceLock<Box<Form>>,
    /// The form was read since `Cache::trim` came by last.
    read: AtomicBool,
    /// How long the stored message is with its revision, once somebody asked; a list in protobuf wants all lengths before it can begin, and to read
    /// them off the messages would bring each of these into the processor's cache twice.
    stamped: AtomicU32,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(form) = self.form.get() {
            self.shape.forms.gone(form);
        }
    }
}

impl Entry {
    pub(crate) fn new(shape: Arc<Shape>, key: Bytes, stored: Bytes, revision: i64) -> Entry {
        Entry { shape, key, stored, revision, form: OnceLock::new(), read: AtomicBool::new(false), stamped: AtomicU32::new(0) }
    }

    /// Of a tree that was just written: its form is made from it.
    pub(crate) fn written(shape: Arc<Shape>, key: Bytes, stored: Bytes, revision: i64, form: Form) -> Entry {
        shape.forms.made(&form);
        let (form, read) = (OnceLock::from(Box::new(form)), AtomicBool::new(true));
        Entry { shape, key, stored, revision, form, read, stamped: AtomicU32::new(0) }
    }

    /// Of a tree that is shown but not stored: a dry run's outcome, the last state of what is gone.
    pub(crate) fn shown(shape: Arc<Shape>, key: Bytes, tree: &Value, revision: i64) -> Entry {
        let form = shape.form(tree, revision, 0);
        Entry::written(shape, key, Bytes::new(), revision, form)
    }

    /// The same state under a later revision, as a deletion shows it.
    pub(crate) fn at_revision(&self, revision: i64) -> Entry {
        let (shape, key, stored) = (self.shape.clone(), self.key.clone(), self.stored.clone());
        match self.form.get() {
            Some(form) => Entry::written(shape, key, stored, revision, form.at_revision(revision)),
            None => Entry::new(shape, key, stored, revision),
        }
    }

    /// Without what was made for readers; for kinds that are written often and read seldom.
    pub(crate) fn lean(&self) -> Entry {
        Entry::new(self.shape.clone(), self.key.clone(), self.stored.clone(), self.revision)
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub(crate) fn has_shape(&self, shape: &Arc<Shape>) -> bool {
        Arc::ptr_eq(&self.shape, shape)
    }

    /// The version that the object is kept in.
    pub(crate) fn api_version(&self) -> &str {
        if self.shape.is_custom() { self.form().json.api_version() } else { &self.shape.api_version }
    }

    /// The key in the store.
    pub(crate) fn key(&self) -> &Bytes {
        &self.key
    }

    /// About what it takes in memory; the same at any time.
    pub(crate) fn size(&self) -> usize {
        self.stored.len() * 3
    }

    pub fn name(&self) -> &str {
        keys::split(&self.key).1
    }

    /// Empty for cluster-scoped resources.
    pub fn namespace(&self) -> &str {
        if self.shape.namespaced { keys::split(&self.key).0 } else { "" }
    }

    pub(crate) fn form(&self) -> &Form {
        if !self.read.load(Ordering::Relaxed) {
            self.read.store(true, Ordering::Relaxed);
        }
        self.form.get_or_init(|| {
            let form = Box::new(self.make_form().exact());
            self.shape.forms.made(&form);
            form
        })
    }

    /// For readers of many objects: where the forms take all that they may, this one's is made and not kept.
    pub(crate) fn with_form<T>(&self, use_it: impl FnOnce(&Form) -> T) -> T {
        if self.form.get().is_some() || self.shape.forms.have_room() { use_it(self.form()) } else { use_it(&self.make_form()) }
    }

    fn make_form(&self) -> Form {
        let tree = self.shape.open(&self.key, &self.stored).and_then(|opened| self.shape.decode(&opened.plain)).unwrap_or_else(|error| {
            tracing::error!(key = %String::from_utf8_lossy(&self.key), %error, "a stored object cannot be read");
            serde_json::json!({"metadata": {"name": self.name()}})
        });
        self.shape.form(&tree, self.revision, self.stored.len() * 2)
    }

    /// Whether there is a form that nobody has read since this was asked last.
    pub(crate) fn is_idle(&self) -> bool {
        self.form.get().is_some() && !self.stored.is_empty() && !self.read.swap(false, Ordering::Relaxed)
    }

    /// Stored otherwise than it would be now (a rotated key): a write of the same content must reach the store.
    pub(crate) fn stale(&self) -> bool {
        self.shape.open(&self.key, &self.stored).is_ok_and(|opened| opened.stale)
    }

    /// The object as clients read it, in the version it is stored in.
    pub fn json(&self) -> &Bytes {
        self.form().json.bytes()
    }

    /// The object as a tree of its own.
    pub fn to_value(&self) -> Value {
        serde_json::from_slice(self.json()).unwrap_or_default()
    }

    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.form().labels()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        match self.shape.version() {
            Some(version) => self.form().field_at(version.selectable.iter().position(|(n, _)| n == name)?),
            None => self.form().field(name),
        }
    }

    /// The object in protobuf, with its envelope, in the version it is stored in. It is quickly made and not kept.
    pub(crate) fn protobuf(&self) -> Result<Bytes, ApiError> {
        match wire::raw(&self.shape.open(&self.key, &self.stored)?.plain) {
            Some(raw) => Ok(wire::envelope_at(&self.shape.api_version, &self.shape.gvk.kind, raw, self.revision)),
            // Of a custom resource there is only the metadata in protobuf.
            None if self.shape.is_custom() => {
                let partial = Gvk::new("meta.k8s.io", "v1", "PartialObjectMetadata");
                let tree = serde_json::json!({"metadata": self.to_value()["metadata"]});
                codec::proto::encode(&partial, &tree).map(Bytes::from).map_err(ApiError::internal)
            }
            None => codec::proto::encode(&self.shape.gvk, &self.to_value()).map(Bytes::from).map_err(ApiError::internal),
        }
    }

    /// The stored message where it stands in the open: all but the revision is there.
    pub(crate) fn raw(&self) -> Option<&[u8]> {
        if self.shape.sealer.is_some() { None } else { wire::raw(&self.stored) }
    }

    /// How long `raw` becomes with the revision in it; 0 where there is none.
    pub(crate) fn stamped_length(&self) -> usize {
        let known = self.stamped.load(Ordering::Relaxed);
        if known != 0 {
            return known as usize;
        }
        let length = self.raw().map_or(0, |raw| wire::Stamp::new(self.revision).length(raw));
        self.stamped.store(u32::try_from(length).unwrap_or(0), Ordering::Relaxed);
        length
    }
}

/// A tree on its way into the store: everything that readers will need is made from it before the write, except the revision.
pub(crate) struct Draft {
    shape: Arc<Shape>,
    key: Bytes,
    pub(crate) stored: Bytes,
    form: Form,
    entry: OnceLock<Arc<Entry>>,
}

impl Draft {
    pub(crate) fn new(shape: &Arc<Shape>, key: Bytes, mut tree: Value) -> Result<Draft, ApiError> {
        let stored = shape.encode(&key, &mut tree)?;
        let form = shape.form(&tree, 0, stored.len() * 2);
        Ok(Draft { shape: shape.clone(), key, stored, form, entry: OnceLock::new() })
    }

    pub(crate) fn key(&self) -> &Bytes {
        &self.key
    }

    /// What the write would become.
    pub(crate) fn preview(&self) -> std::sync::Arc<Entry> {
        std::sync::Arc::new(Entry::new(self.shape.clone(), self.key.clone(), self.stored.clone(), 0))
    }

    /// The entry that the write became; the writer and the cache share it, whoever asks first makes it.
    pub(crate) fn entry(&self, revision: i64) -> Arc<Entry> {
        let made = self.entry.get_or_init(|| {
            let form = self.form.at_revision(revision);
            Arc::new(Entry::written(self.shape.clone(), self.key.clone(), self.stored.clone(), revision, form))
        });
        made.clone()
    }
}
