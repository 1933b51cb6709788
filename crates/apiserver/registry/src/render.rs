//! From entries to the bytes that a client asked for. The plain cases copy or share what is kept; the others go through the tree.
//!
//! Answers in YAML are made as JSON here; the door prints them.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tiphys_meta::ApiError;
use tiphys_schema::codec;
use tiphys_schema::codec::proto::wire::{put_bytes, put_int, varint_length};
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
                Ok(self.table(std::slice::from_ref(&entry), &meta, true).into())
            }
        }
    }

    /// Whether objects are shown as they are kept, so that all clients of the same format see the same bytes.
    pub(crate) fn shows_what_is_kept(&self) -> bool {
        self.output.shown == Shown::Object && matches!(self.served().conversion, Conversion::Same)
    }

    /// One object of a watch: of the tables that it sends, only the first names the columns.
    pub(crate) fn event(&self, entry: &Entry, first: bool) -> Result<Bytes, ApiError> {
        if self.output.shown != Shown::Table || first {
            return self.object(entry);
        }
        let meta = ListMeta { revision: entry.revision(), ..ListMeta::default() };
        Ok(self.table(std::slice::from_ref(&entry), &meta, false).into())
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
        let written = Json::write(&self.served().api_version, &self.served().gvk.kind, &self.tree(entry), entry.revision(), 0);
        if entry.revision() == 0 { written.at_revision(0) } else { written }
    }

    fn object_protobuf(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        let served = self.served();
        match served.conversion {
            Conversion::Same => entry.protobuf(),
            Conversion::Renamed => Ok(wire::envelope(&served.api_version, &served.gvk.kind, raw_of(&entry.protobuf()?))),
            Conversion::Pair { .. } => encode(served, &self.tree(entry)),
        }
    }

    /// The protobuf message of one object, without an envelope.
    fn raw_object(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        let sealed = match self.served().conversion {
            Conversion::Pair { .. } => encode(self.served(), &self.tree(entry))?,
            _ => entry.protobuf()?,
        };
        Ok(sealed.slice_ref(raw_of(&sealed)))
    }

    fn raw_metadata(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        let sealed = entry.protobuf()?;
        Ok(sealed.slice_ref(wire::metadata_only(raw_of(&sealed))))
    }

    fn partial(&self, entry: &Entry) -> Vec<u8> {
        let head = format!("{{\"kind\":\"{PARTIAL}\",\"apiVersion\":\"{}\",", self.output.meta_version());
        entry.with_form(|form| [head.as_bytes(), form.json.metadata(), b"}"].concat())
    }

    /// A list as a document.
    pub(crate) fn list(self, entries: Vec<Arc<Entry>>, meta: &ListMeta) -> Result<Body, ApiError> {
        match (self.output.shown, self.output.format) {
            (Shown::Table, _) => {
                let entries: Vec<&Entry> = entries.iter().map(|e| &**e).collect();
                Ok(Body::Full(self.table(&entries, meta, true).into()))
            }
            (_, Format::Protobuf) => self.list_protobuf(entries, meta),
            _ => Ok(self.list_json(entries, meta)),
        }
    }

    fn list_type(&self) -> (String, String) {
        match self.output.shown {
            Shown::Metadata => (self.output.meta_version().to_owned(), format!("{PARTIAL}List")),
            _ => (self.served().api_version.clone(), format!("{}List", self.served().gvk.kind)),
        }
    }

    /// A message says how long it is before it begins, so all lengths are known first; the items are written when their turn comes.
    fn list_protobuf(&self, entries: Vec<Arc<Entry>>, meta: &ListMeta) -> Result<Body, ApiError> {
        let items = entries.into_iter().map(|entry| self.protobuf_item(entry)).collect::<Result<Vec<_>, _>>()?;
        let mut head = Vec::new();
        put_bytes(&mut head, 1, &meta.protobuf());
        let length = |item: &Item| {
            let length = item.length();
            1 + varint_length(length as u64) + length
        };
        let length = head.len() + items.iter().map(length).sum::<usize>();
        let (api_version, kind) = self.list_type();
        let mut out = Vec::with_capacity(head.len() + 64 + if items.len() <= FEW { length } else { 0 });
        wire::start_envelope(&mut out, &api_version, &kind, length);
        out.extend_from_slice(&head);
        if items.len() > FEW {
            return Ok(Chunks::boxed(out, items, wire::ENVELOPE_END, Item::write));
        }
        items.into_iter().for_each(|item| item.write(&mut out));
        out.extend_from_slice(wire::ENVELOPE_END);
        Ok(Body::Full(out.into()))
    }

    fn protobuf_item(&self, entry: Arc<Entry>) -> Result<Item, ApiError> {
        match (self.output.shown, self.served().conversion) {
            (Shown::Metadata, _) => self.raw_metadata(&entry).map(Item::Made),
            (_, Conversion::Same | Conversion::Renamed) if entry.stamped_length() > 0 => Ok(Item::Stored(entry)),
            _ => self.raw_object(&entry).map(Item::Made),
        }
    }

    fn list_json(self, entries: Vec<Arc<Entry>>, meta: &ListMeta) -> Body {
        let (api_version, kind) = self.list_type();
        let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{},\"items\":[", meta.json());
        // As upstream makes it: of nothing comes no list.
        if entries.is_empty() && self.output.shown == Shown::Metadata {
            return Body::Full((head.trim_end_matches('[').to_owned() + "null}").into());
        }
        if entries.len() <= FEW {
            let mut out = head.into_bytes();
            entries.iter().enumerate().for_each(|(i, entry)| self.item_json(&mut out, i == 0, entry));
            out.extend_from_slice(LIST_END);
            return Body::Full(out.into());
        }
        let mut first = true;
        let write = move |entry: Arc<Entry>, out: &mut Vec<u8>| self.item_json(out, std::mem::take(&mut first), &entry);
        Chunks::boxed(head.into_bytes(), entries, LIST_END, write)
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
                entry.with_form(|form| out.extend_from_slice(form.json.body()));
            }
        }
    }

    fn table(&self, entries: &[&Entry], meta: &ListMeta, columns: bool) -> Vec<u8> {
        let builtin = || {
            let columns = self.resource.strategy.columns.iter();
            columns
                .map(|c| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority}))
                .collect()
        };
        let columns = match columns {
            true => Value::Array(self.served().as_custom().map_or_else(builtin, |c| c.version().column_definitions())),
            false => Value::Null,
        };
        let version = self.output.meta_version();
        let head = format!("{{\"kind\":\"Table\",\"apiVersion\":\"{version}\",\"metadata\":{},\"columnDefinitions\":", meta.json());
        let mut out = head.into_bytes();
        out.extend_from_slice(columns.to_string().as_bytes());
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
        if self.resource.gvr.group.is_empty() && &*self.resource.gvr.resource == "pods" {
            out.extend_from_slice(completed(&tree).as_bytes());
        }
        match self.include {
            Include::None => out.extend_from_slice(b",\"object\":null"),
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
                Ok(Json::write(&served.api_version, &served.gvk.kind, &json!({"metadata": metadata}), revision, 0).bytes().clone())
            }
            (Shown::Metadata, Format::Protobuf) => {
                let sealed = encode(served, &json!({"metadata": metadata}))?;
                Ok(wire::envelope(self.output.meta_version(), PARTIAL, wire::metadata_only(raw_of(&sealed))))
            }
            (Shown::Metadata, _) => {
                Ok(Json::write(self.output.meta_version(), PARTIAL, &json!({"metadata": metadata}), revision, 0).bytes().clone())
            }
            (Shown::Table, _) => {
                let object = json!({"kind": PARTIAL, "apiVersion": self.output.meta_version(), "metadata": metadata});
                // The row of an object that has nothing else.
                let empty = json!({"metadata": {}});
                let builtin = || self.resource.strategy.row(&empty, self.now);
                let cells = self.served().as_custom().map_or_else(builtin, |c| c.version().row(&empty, self.now));
                let table = json!({"kind": "Table", "apiVersion": self.output.meta_version(), "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": null, "rows": [{"cells": cells, "object": object}]});
                Ok(table.to_string().into())
            }
        }
    }
}

/// The conditions of a row: of all kinds only pods have any, those that are over.
fn completed(pod: &Value) -> &'static str {
    match pod["status"]["phase"].as_str() {
        Some("Succeeded") => {
            r#","conditions":[{"type":"Completed","status":"True","reason":"Succeeded","message":"The pod has completed successfully."}]"#
        }
        Some("Failed") => r#","conditions":[{"type":"Completed","status":"True","reason":"Failed","message":"The pod failed."}]"#,
        _ => "",
    }
}

/// Lists up to this long are made at once.
const FEW: usize = 64;
/// The size of a chunk of a longer list: with the head of its HTTP/2 frame it fills a TLS record.
const CHUNK: usize = 16 * 1024 - 9;
const MADE_AT_ONCE: usize = 4 * CHUNK;
const LIST_END: &[u8] = b"]}";

/// One item of a list in protobuf.
enum Item {
    /// As it is stored, but for the revision.
    Stored(Arc<Entry>),
    Made(Bytes),
}

impl Item {
    fn length(&self) -> usize {
        match self {
            Item::Stored(entry) => entry.stamped_length(),
            Item::Made(bytes) => bytes.len(),
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        wire::write_head(out, 2, self.length());
        match self {
            Item::Stored(entry) => wire::Stamp::new(entry.revision()).write(entry.raw().unwrap_or_default(), out),
            Item::Made(bytes) => out.extend_from_slice(&bytes),
        }
    }
}

/// A long list, made piece by piece while it is written.
struct Chunks<T, W> {
    items: std::vec::IntoIter<T>,
    write: W,
    end: &'static [u8],
    /// What is made already.
    made: Bytes,
    over: bool,
}

impl<T, W: FnMut(T, &mut Vec<u8>)> Chunks<T, W> {
    fn boxed(head: Vec<u8>, items: Vec<T>, end: &'static [u8], write: W) -> Body
    where
        T: Send + 'static,
        W: Send + 'static,
    {
        Body::Chunks(Box::new(Chunks { items: items.into_iter(), write, end, made: head.into(), over: false }))
    }

    fn make_more(&mut self) {
        let mut out = Vec::with_capacity(MADE_AT_ONCE + CHUNK);
        out.extend_from_slice(&self.made);
        while out.len() < MADE_AT_ONCE {
            match self.items.next() {
                Some(item) => (self.write)(item, &mut out),
                None => {
                    out.extend_from_slice(self.end);
                    self.over = true;
                    break;
                }
            }
        }
        self.made = out.into();
    }
}

impl<T, W: FnMut(T, &mut Vec<u8>)> Iterator for Chunks<T, W> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.made.len() < CHUNK && !self.over {
            self.make_more();
        }
        let chunk = self.made.split_to(self.made.len().min(CHUNK));
        (!chunk.is_empty()).then_some(chunk)
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
        put_bytes(&mut out, 1, b"");
        put_bytes(&mut out, 2, self.revision.to_string().as_bytes());
        put_bytes(&mut out, 3, self.token.as_bytes());
        if let Some(remaining) = self.remaining {
            put_int(&mut out, 4, remaining as i64);
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
