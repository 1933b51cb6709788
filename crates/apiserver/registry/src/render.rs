//! From entries to the bytes that a client asked for. The plain cases copy or share what is kept; the others go through the tree.
//!
//! YAML answers are JSON, which is YAML too.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tiphys_meta::ApiError;
use tiphys_schema::codec;
use tiphys_types::jiff::Timestamp;

use crate::answer::Body;
use crate::convert::Conversion;
use crate::negotiate::{Format, Output, Shown};
use crate::resource::{Resource, Served};
use crate::storage::{Entry, Json, wire};

/// `includeObject` of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub(crate) fn parse(text: &str) -> Result<Include, ApiError> {
        match text {
            "None" => Ok(Include::None),
            "" | "Metadata" => Ok(Include::Metadata),
            "Object" => Ok(Include::Object),
            other => Err(ApiError::bad_request(format!("unrecognized includeObject value: \"{other}\""))),
        }
    }
}

/// `metadata` of a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListMeta {
    pub(crate) revision: i64,
    pub(crate) token: String,
    pub(crate) remaining: Option<u64>,
}

/// Makes one client's bytes.
pub(crate) struct Renderer {
    pub(crate) resource: Arc<Resource>,
    /// Which of the resource's versions.
    pub(crate) version: usize,
    pub(crate) output: Output,
    pub(crate) include: Include,
    pub(crate) now: Timestamp,
}

const PARTIAL: &str = "PartialObjectMetadata";

impl Renderer {
    pub(crate) fn served(&self) -> &Served {
        &self.resource.served[self.version]
    }

    pub(crate) fn content_type(&self) -> &'static str {
        self.output.format.content_type()
    }

    /// The object in the served version, as a tree with its type.
    pub(crate) fn tree(&self, entry: &Entry) -> Value {
        let mut tree = entry.to_value();
        self.serve(&mut tree);
        tree
    }

    /// Turns a tree of the stored version into one of the served version.
    pub(crate) fn serve(&self, tree: &mut Value) {
        let served = self.served();
        served.conversion.to_served(tree);
        if let Some(map) = tree.as_object_mut() {
            map.insert("kind".into(), Value::from(&*served.gvk.kind));
            map.insert("apiVersion".into(), Value::from(served.api_version.as_str()));
        }
    }

    /// One object as a document of its own.
    pub(crate) fn object(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        match (self.output.shown, self.output.format) {
            (Shown::Object, Format::Protobuf) => self.object_protobuf(entry),
            (Shown::Object, _) => Ok(self.object_json(entry)),
            (Shown::Metadata, Format::Protobuf) => {
                let raw = self.raw_metadata(entry)?;
                Ok(wire::envelope(self.output.meta_version(), PARTIAL, &raw))
            }
            (Shown::Metadata, _) => Ok(self.partial(entry).into()),
            (Shown::Table, _) => {
                let meta = ListMeta { revision: entry.revision(), ..ListMeta::default() };
                Ok(self.table(std::slice::from_ref(&entry), &meta).into())
            }
        }
    }

    fn object_json(&self, entry: &Entry) -> Bytes {
        let served = self.served();
        match served.conversion {
            Conversion::Same => entry.json().clone(),
            Conversion::Renamed => entry.form().json.with_type(&served.api_version, &served.gvk.kind),
            Conversion::Pair { .. } => self.converted(entry).bytes().clone(),
        }
    }

    fn converted(&self, entry: &Entry) -> Json {
        Json::write(&self.served().api_version, &self.served().gvk.kind, &self.tree(entry), entry.revision())
    }

    fn object_protobuf(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        let served = self.served();
        match served.conversion {
            Conversion::Same => entry.protobuf().cloned(),
            Conversion::Renamed => Ok(wire::envelope(&served.api_version, &served.gvk.kind, raw_of(entry.protobuf()?))),
            Conversion::Pair { .. } => encode(served, &self.tree(entry)),
        }
    }

    /// The protobuf message of one object, without an envelope.
    fn raw_object(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        let sealed = match self.served().conversion {
            Conversion::Pair { .. } => encode(self.served(), &self.tree(entry))?,
            _ => entry.protobuf()?.clone(),
        };
        Ok(sealed.slice_ref(raw_of(&sealed)))
    }

    fn raw_metadata(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        let sealed = entry.protobuf()?;
        Ok(sealed.slice_ref(wire::metadata_only(raw_of(sealed))))
    }

    fn partial(&self, entry: &Entry) -> Vec<u8> {
        let head = format!("{{\"kind\":\"{PARTIAL}\",\"apiVersion\":\"{}\",", self.output.meta_version());
        [head.as_bytes(), entry.form().json.metadata(), b"}"].concat()
    }

    /// A list as a document.
    pub(crate) fn list(self, entries: Vec<Arc<Entry>>, meta: &ListMeta) -> Result<Body, ApiError> {
        match (self.output.shown, self.output.format) {
            (Shown::Table, _) => {
                let entries: Vec<&Entry> = entries.iter().map(|e| &**e).collect();
                Ok(Body::Full(self.table(&entries, meta).into()))
            }
            (_, Format::Protobuf) => self.list_protobuf(&entries, meta).map(|list| Body::Full(list.into())),
            _ => Ok(self.list_json(entries, meta)),
        }
    }

    fn list_type(&self) -> (String, String) {
        match self.output.shown {
            Shown::Metadata => (self.output.meta_version().to_owned(), format!("{PARTIAL}List")),
            _ => (self.served().api_version.clone(), format!("{}List", self.served().gvk.kind)),
        }
    }

    fn list_protobuf(&self, entries: &[Arc<Entry>], meta: &ListMeta) -> Result<Vec<u8>, ApiError> {
        let item = |entry: &Arc<Entry>| match self.output.shown {
            Shown::Metadata => self.raw_metadata(entry),
            _ => self.raw_object(entry),
        };
        let items = entries.iter().map(item).collect::<Result<Vec<_>, _>>()?;
        let mut head = Vec::new();
        wire::write_bytes(&mut head, 1, &meta.protobuf());
        let length = head.len() + items.iter().map(|i| 1 + wire::varint_length(i.len()) + i.len()).sum::<usize>();
        let (api_version, kind) = self.list_type();
        let mut out = Vec::with_capacity(length + 64);
        wire::start_envelope(&mut out, &api_version, &kind, length);
        out.extend_from_slice(&head);
        items.iter().for_each(|item| wire::write_bytes(&mut out, 2, item));
        wire::end_envelope(&mut out);
        Ok(out)
    }

    fn list_json(self, entries: Vec<Arc<Entry>>, meta: &ListMeta) -> Body {
        let (api_version, kind) = self.list_type();
        let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{},\"items\":[", meta.json());
        if entries.len() <= FEW {
            let mut out = head.into_bytes();
            entries.iter().enumerate().for_each(|(i, entry)| self.item_json(&mut out, i == 0, entry));
            out.extend_from_slice(b"]}");
            return Body::Full(out.into());
        }
        Body::Chunks(Box::new(Chunks { renderer: self, entries: entries.into_iter(), next: Some(head.into_bytes()), first: true }))
    }

    /// Items of a list of objects go without their type, as upstream prints typed lists.
    fn item_json(&self, out: &mut Vec<u8>, first: bool, entry: &Entry) {
        if !first {
            out.push(b',');
        }
        match (self.output.shown, self.served().conversion) {
            (Shown::Metadata, _) => out.extend_from_slice(&self.partial(entry)),
            (_, Conversion::Pair { .. }) => {
                out.push(b'{');
                out.extend_from_slice(self.converted(entry).body());
            }
            _ => {
                out.push(b'{');
                out.extend_from_slice(entry.form().json.body());
            }
        }
    }

    fn table(&self, entries: &[&Entry], meta: &ListMeta) -> Vec<u8> {
        let builtin = || {
            let columns = self.resource.strategy.columns.iter();
            columns
                .map(|c| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority}))
                .collect()
        };
        let columns: Vec<Value> = self.served().as_custom().map_or_else(builtin, |c| c.version().column_definitions());
        let version = self.output.meta_version();
        let head = format!("{{\"kind\":\"Table\",\"apiVersion\":\"{version}\",\"metadata\":{},\"columnDefinitions\":", meta.json());
        let mut out = head.into_bytes();
        out.extend_from_slice(Value::Array(columns).to_string().as_bytes());
        out.extend_from_slice(b",\"rows\":[");
        for (i, entry) in entries.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            self.row(&mut out, entry);
        }
        out.extend_from_slice(b"]}");
        out
    }

    fn row(&self, out: &mut Vec<u8>, entry: &Entry) {
        let tree = entry.to_value();
        let builtin = || self.resource.strategy.row(&tree, self.now);
        let cells = self.served().as_custom().map_or_else(builtin, |c| c.version().row(&tree, self.now));
        out.extend_from_slice(b"{\"cells\":");
        out.extend_from_slice(Value::Array(cells).to_string().as_bytes());
        match self.include {
            Include::None => {}
            Include::Metadata => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(&self.partial(entry));
            }
            Include::Object => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(&self.object_json(entry));
            }
        }
        out.push(b'}');
    }

    /// The object of a BOOKMARK event: nothing but the type and the revision.
    pub(crate) fn bookmark(&self, revision: i64, initial_end: bool) -> Result<Bytes, ApiError> {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let served = self.served();
        match (self.output.shown, self.output.format) {
            (Shown::Object, Format::Protobuf) => encode(served, &json!({"metadata": metadata})),
            (Shown::Object, _) => {
                Ok(Json::write(&served.api_version, &served.gvk.kind, &json!({"metadata": metadata}), revision).bytes().clone())
            }
            (Shown::Metadata, Format::Protobuf) => {
                let sealed = encode(served, &json!({"metadata": metadata}))?;
                Ok(wire::envelope(self.output.meta_version(), PARTIAL, wire::metadata_only(raw_of(&sealed))))
            }
            (Shown::Metadata, _) => {
                Ok(Json::write(self.output.meta_version(), PARTIAL, &json!({"metadata": metadata}), revision).bytes().clone())
            }
            (Shown::Table, _) => {
                let object = json!({"kind": PARTIAL, "apiVersion": self.output.meta_version(), "metadata": metadata});
                let table = json!({"kind": "Table", "apiVersion": self.output.meta_version(), "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": [], "rows": [{"cells": [], "object": object}]});
                Ok(table.to_string().into())
            }
        }
    }
}

/// Lists up to this long are made at once.
const FEW: usize = 64;
/// The size of a chunk of a longer list.
const CHUNK: usize = 64 * 1024;

struct Chunks {
    renderer: Renderer,
    entries: std::vec::IntoIter<Arc<Entry>>,
    next: Option<Vec<u8>>,
    first: bool,
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = self.next.take()?;
        while out.len() < CHUNK {
            let Some(entry) = self.entries.next() else {
                out.extend_from_slice(b"]}");
                return Some(out.into());
            };
            self.renderer.item_json(&mut out, std::mem::take(&mut self.first), &entry);
        }
        self.next = Some(Vec::with_capacity(CHUNK + CHUNK / 4));
        Some(out.into())
    }
}

impl ListMeta {
    fn json(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if !self.token.is_empty() {
            meta["continue"] = json!(self.token);
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = json!(remaining);
        }
        meta
    }

    fn protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::write_bytes(&mut out, 1, b"");
        wire::write_bytes(&mut out, 2, self.revision.to_string().as_bytes());
        wire::write_bytes(&mut out, 3, self.token.as_bytes());
        if let Some(remaining) = self.remaining {
            wire::write_varint(&mut out, 4 << 3);
            wire::write_varint(&mut out, remaining);
        }
        out
    }
}

fn raw_of(sealed: &[u8]) -> &[u8] {
    wire::raw(sealed).unwrap_or_default()
}

fn encode(served: &Served, tree: &Value) -> Result<Bytes, ApiError> {
    codec::proto::encode(&served.gvk, tree).map(Bytes::from).map_err(ApiError::internal)
}

/// A tree that is no stored object (a Status, a Scale), in the negotiated encoding.
pub(crate) fn document(gvk: &tiphys_meta::Gvk, tree: &Value, format: Format) -> Result<Bytes, ApiError> {
    match format {
        Format::Protobuf => codec::proto::encode(gvk, tree).map(Bytes::from).map_err(ApiError::internal),
        _ => serde_json::to_vec(tree).map(Bytes::from).map_err(ApiError::internal),
    }
}
