//! OpenAPI documents, generated from the facts: version 3 per group version, version 2 for everything, as JSON and as gnostic's protobuf.
//!
//! Documents are made when they are asked for, part by part, and not kept: the largest takes milliseconds, and little more memory than its own size.
//! Callers cache what they serve (by its hash).
//! Custom resources come in as [`Custom`] with a schema of their own.
//!
//! They hold what clients decide on (types, required fields, list and map types, patch strategies, kinds, paths, parameters), equal to upstream's.
//! Descriptions are our own ([`words`]); parameters and answers have none.

mod definitions;
mod gnostic;
mod paths;
mod v2;
mod v3;
mod words;

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use tiphys_meta::Gvk;

use crate::facts::Facts;

/// A resource that is not built in, as a CustomResourceDefinition publishes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Custom {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub kind: String,
    pub list_kind: String,
    pub namespaced: bool,
    pub status: bool,
    pub scale: bool,
    /// The structural schema as it stands in the definition; `apiVersion`, `kind` and `metadata` are put in here. `None`: nothing is known.
    pub schema: Option<Value>,
}

/// The media type of version 2 in protobuf.
pub const V2_PROTO: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// One entry of the index of version 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// `apis/apps/v1`.
    pub path: String,
    /// Upper-case hexadecimal SHA-512 of the document.
    pub hash: String,
}

/// The paths of all documents of version 3: `api/v1`, `apis/apps/v1`, and those of custom groups.
pub fn v3_paths(custom: &[Custom]) -> Vec<String> {
    let facts = Facts::builtin();
    let mut paths: Vec<String> = vec!["api".into(), "apis".into(), "version".into()];
    for group in facts.groups() {
        if !group.name.is_empty() {
            paths.push(format!("apis/{}", group.name));
        }
        paths.extend(group.versions.iter().map(|v| group_path(group.name, v)));
    }
    paths.extend(custom.iter().map(|c| group_path(&c.group, &c.version)));
    paths.extend(custom.iter().map(|c| format!("apis/{}", c.group)));
    paths.sort();
    paths.dedup();
    paths
}

fn group_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of version 3 at a path such as `apis/apps/v1`.
pub fn v3(path: &str, custom: &[Custom]) -> Option<Bytes> {
    if !v3_paths(custom).iter().any(|p| p == path) {
        return None;
    }
    let around = json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": v2::VERSION}});
    let mut writer = JsonWriter::new(&around, "\"components\":{\"schemas\":{");
    v3::write(path, custom, &mut writer);
    Some(writer.finish(&format!("}},\"securitySchemes\":{}}}", v3::security())))
}

/// Takes the parts of a document one by one, so that it never stands in memory as a tree. All paths come before all definitions.
trait Sink {
    fn path(&mut self, name: &str, item: &Value);
    fn definition(&mut self, name: &str, schema: &Value);
}

/// Writes a document as JSON.
struct JsonWriter {
    out: Vec<u8>,
    /// What opens the definitions, until there is one.
    opening: Option<&'static str>,
    first: bool,
}

impl JsonWriter {
    /// Starts with the fields of `around`.
    fn new(around: &Value, opening: &'static str) -> JsonWriter {
        let mut out = crate::codec::json::encode_bare(around);
        out.pop();
        out.extend_from_slice(b",\"paths\":{");
        JsonWriter { out, opening: Some(opening), first: true }
    }

    fn entry(&mut self, name: &str, value: &Value) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut self.out, name);
        self.out.push(b':');
        let _ = serde_json::to_writer(&mut self.out, value);
    }

    fn open_definitions(&mut self) {
        if let Some(opening) = self.opening.take() {
            self.out.extend_from_slice(b"},");
            self.out.extend_from_slice(opening.as_bytes());
            self.first = true;
        }
    }

    fn finish(mut self, closing: &str) -> Bytes {
        self.open_definitions();
        self.out.extend_from_slice(closing.as_bytes());
        self.out.push(b'}');
        self.out.shrink_to_fit();
        Bytes::from(self.out)
    }
}

impl Sink for JsonWriter {
    fn path(&mut self, name: &str, item: &Value) {
        self.entry(name, item);
    }

    fn definition(&mut self, name: &str, schema: &Value) {
        self.open_definitions();
        self.entry(name, schema);
    }
}

/// The index of version 3: every document with a hash of its content, so that clients keep what has not changed.
pub fn v3_index(documents: &[Document]) -> Value {
    let entry = |d: &Document| (d.path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{}?hash={}", d.path, d.hash)}));
    let paths: Map<String, Value> = documents.iter().map(entry).collect();
    json!({"paths": paths})
}

/// The entries of the index. Every document is made once for it: keep the result until the custom resources change.
pub fn v3_documents(custom: &[Custom]) -> Vec<Document> {
    let _unpacked_once = words::shared();
    let hashed = |path: String| Document { hash: v3(&path, custom).map(|d| hash(&d)).unwrap_or_default(), path };
    v3_paths(custom).into_iter().map(hashed).collect()
}

/// Upper-case hexadecimal SHA-512, as upstream's hashes of documents are.
pub fn hash(bytes: &[u8]) -> String {
    Sha512::digest(bytes).iter().map(|b| format!("{b:02X}")).collect()
}

/// What stands around the paths and definitions of version 2.
fn v2_around() -> Value {
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": v2::VERSION},
        "securityDefinitions": v3::security(),
        "security": [{"BearerToken": []}],
    })
}

/// The document of version 2 as JSON.
pub fn v2_json(custom: &[Custom]) -> Bytes {
    let mut writer = JsonWriter::new(&v2_around(), "\"definitions\":{");
    v2::write(custom, &mut writer);
    writer.finish("}")
}

/// The document of version 2 in gnostic's protobuf ([`V2_PROTO`]).
pub fn v2_proto(custom: &[Custom]) -> Bytes {
    let mut writer = gnostic::Writer::default();
    v2::write(custom, &mut writer);
    Bytes::from(writer.finish(&v2_around()))
}

/// Version 2 with the paths and definitions of other servers behind ours; a definition that is here already stays as it is here.
pub fn v2_merged(custom: &[Custom], paths: Map<String, Value>, definitions: Map<String, Value>, protobuf: bool) -> Bytes {
    if protobuf {
        let mut sink = Merged { sink: gnostic::Writer::default(), paths, definitions };
        v2::write(custom, &mut sink);
        return Bytes::from(sink.rest().finish(&v2_around()));
    }
    let mut sink = Merged { sink: JsonWriter::new(&v2_around(), "\"definitions\":{"), paths, definitions };
    v2::write(custom, &mut sink);
    sink.rest().finish("}")
}

/// Puts what others bring where it belongs: their paths before the first definition, their definitions at the end.
struct Merged<S> {
    sink: S,
    paths: Map<String, Value>,
    definitions: Map<String, Value>,
}

impl<S: Sink> Merged<S> {
    fn rest(mut self) -> S {
        self.put_paths();
        self.definitions.iter().for_each(|(name, schema)| self.sink.definition(name, schema));
        self.sink
    }

    fn put_paths(&mut self) {
        for (path, item) in std::mem::take(&mut self.paths) {
            self.sink.path(&path, &item);
        }
    }
}

impl<S: Sink> Sink for Merged<S> {
    fn path(&mut self, name: &str, item: &Value) {
        self.paths.remove(name);
        self.sink.path(name, item);
    }

    fn definition(&mut self, name: &str, schema: &Value) {
        self.put_paths();
        self.definitions.remove(name);
        self.sink.definition(name, schema);
    }
}

/// A resource as paths need it, built in or custom.
pub(crate) struct Route<'a> {
    group: &'a str,
    version: &'a str,
    plural: &'a str,
    gvk: Gvk,
    /// Definitions of the object and of its list.
    object: String,
    list: String,
    namespaced: bool,
    verbs: Vec<&'a str>,
    delete_returns_object: bool,
    custom: bool,
    subresources: Vec<SubRoute<'a>>,
}

pub(crate) struct SubRoute<'a> {
    name: &'a str,
    gvk: Gvk,
    object: String,
    verbs: Vec<&'a str>,
}

/// The routes of a group version.
fn routes<'a>(group: &'a str, version: &'a str, custom: &'a [Custom]) -> Vec<Route<'a>> {
    let mut routes: Vec<Route<'a>> = Facts::builtin().resources_in(group, version).map(|r| builtin_route(group, version, r)).collect();
    routes.extend(custom.iter().filter(|c| c.group == group && c.version == version).map(custom_route));
    routes
}

fn builtin_route<'a>(group: &'a str, version: &'a str, facts: &'static crate::ResourceFacts) -> Route<'a> {
    let type_of = |gvk: &Gvk| Facts::builtin().kind(gvk).map(|k| k.type_name().to_owned()).unwrap_or_default();
    let list = Gvk::new(facts.kind.group.clone(), facts.kind.version.clone(), format!("{}List", facts.kind.kind));
    let subresources =
        facts.subresources.iter().map(|s| SubRoute { name: s.name, gvk: s.kind.clone(), object: type_of(&s.kind), verbs: s.verbs.clone() });
    Route {
        group,
        version,
        plural: &facts.gvr.resource,
        gvk: facts.kind.clone(),
        object: type_of(&facts.kind),
        list: type_of(&list),
        namespaced: facts.namespaced,
        verbs: facts.verbs.clone(),
        delete_returns_object: facts.delete_returns_object,
        custom: false,
        subresources: subresources.collect(),
    }
}

fn custom_route(custom: &Custom) -> Route<'_> {
    let gvk = Gvk::new(custom.group.clone(), custom.version.clone(), custom.kind.clone());
    let mut subresources = Vec::new();
    if custom.status {
        let verbs = vec!["get", "patch", "update"];
        subresources.push(SubRoute { name: "status", gvk: gvk.clone(), object: custom.definition_name(), verbs });
    }
    if custom.scale {
        let scale = Gvk::new("autoscaling", "v1", "Scale");
        let verbs = vec!["get", "patch", "update"];
        subresources.push(SubRoute { name: "scale", gvk: scale, object: "io.k8s.api.autoscaling.v1.Scale".into(), verbs });
    }
    Route {
        group: &custom.group,
        version: &custom.version,
        plural: &custom.plural,
        gvk,
        object: custom.definition_name(),
        list: custom.list_definition_name(),
        namespaced: custom.namespaced,
        verbs: vec!["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        delete_returns_object: false,
        custom: true,
        subresources,
    }
}

impl Custom {
    /// `com.example.stable.v1.CronTab`.
    pub fn definition_name(&self) -> String {
        self.name_of(&self.kind)
    }

    pub fn list_definition_name(&self) -> String {
        self.name_of(&self.list_kind)
    }

    fn name_of(&self, kind: &str) -> String {
        let labels: Vec<&str> = self.group.rsplit('.').collect();
        format!("{}.{}.{kind}", labels.join("."), self.version)
    }
}

/// `core_v1`, `rbacAuthorization_v1`: the tag of operations.
fn tag(group: &str, version: &str) -> String {
    let group = camel_group(group);
    if version.is_empty() { group.into_owned() } else { format!("{group}_{version}") }
}

/// `core`, `apps`, `rbacAuthorization`: labels of the group but for `k8s.io`, in camel case.
fn camel_group(group: &str) -> Cow<'_, str> {
    if group.is_empty() {
        return "core".into();
    }
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    let mut labels = group.split('.');
    let mut text = labels.next().unwrap_or("").to_owned();
    labels.for_each(|label| text.push_str(&capital(label)));
    text.into()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}
