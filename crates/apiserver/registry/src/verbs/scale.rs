//! The `scale` subresource of workloads: an `autoscaling/v1` Scale over `spec.replicas`. Admission sees the Scale.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tiphys_kinds::{Column, table};
use tiphys_meta::{ApiError, ErrorList, Gvk, LabelSelector, Path, Reason, object, time};
use tiphys_schema::apply;
use tiphys_schema::codec::{self, Strictness};
use tiphys_schema::{Facts, Kind};

use super::Call;
use super::managers;
use super::patch::{APPLY, Patch};
use super::update::{Change, How};
use crate::admission::{Attributes, Operation};
use crate::answer::Answer;
use crate::custom::scale::ScalePaths;
use crate::negotiate::Shown;
use crate::options::WriteOptions;
use crate::request::Verb;

const COLUMNS: &[Column] = &[table::NAME, table::integer("Desired"), table::integer("Available"), table::AGE];

fn scale_kind() -> Result<&'static Kind, ApiError> {
    Facts::builtin().kind_of("autoscaling", "v1", "Scale").ok_or_else(|| ApiError::internal("no kind autoscaling/v1 Scale"))
}

/// Reads the Scale out of a workload.
fn scale_of(tree: &Value, paths: Option<&ScalePaths>) -> Result<Value, ApiError> {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = tree["metadata"].get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let replicas = |v: &Value| v.as_i64().unwrap_or(0);
    let (wanted, present, selector) = match paths {
        Some(paths) => paths.read(tree)?,
        None => {
            let wanted = replicas(&tree["spec"]["replicas"]);
            (Some(wanted), replicas(&tree["status"]["replicas"]), selector_text(&tree["spec"]["selector"])?)
        }
    };
    let mut status = json!({"replicas": present});
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    let mut spec = Map::new();
    if let Some(wanted) = wanted.filter(|w| *w != 0) {
        spec.insert("replicas".into(), json!(wanted));
    }
    Ok(json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}))
}

/// Of a label selector, or of the plain map that a ReplicationController has.
fn selector_text(selector: &Value) -> Result<String, ApiError> {
    let typed = ["matchLabels", "matchExpressions"].iter().any(|f| selector.get(f).is_some_and(|v| !v.is_string()));
    if typed {
        return tiphys_types::selector::from_value(selector).map(|s| s.to_string()).map_err(|e| ApiError::bad_request(e.to_string()));
    }
    let labels = selector.as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)));
    Ok(LabelSelector::from_labels(labels).to_string())
}

/// How the wanted Scale comes about.
enum Source {
    Sent(Value),
    Patch(Patch),
    Apply(Value),
}

struct Rescale(Source, WriteOptions);

impl Rescale {
    /// The Scale that is asked for, before admission.
    fn asked(&self, call: &mut Call<'_>, old: &Value) -> Result<Value, ApiError> {
        let kind = scale_kind()?;
        let mut scale = match &self.0 {
            Source::Sent(scale) => return Ok(scale.clone()),
            Source::Patch(patch) => {
                let mut scale = scale_of(old, call.scale_paths())?;
                patch.apply(kind, &mut scale)?;
                let decoded = codec::json::canonicalize(kind, scale, self.1.validation.strictness());
                return call.report(&kind.gvk, decoded.map_err(|e| ApiError::bad_request(e.to_string()))?, self.1.validation);
            }
            Source::Apply(config) => {
                let mut live = scale_of(old, call.scale_paths())?;
                managers::lend(&old["metadata"]["managedFields"], &mut live, &call.replicas_path());
                let now = time::format(call.registry.config.clock.now());
                let managing = call.managing(&self.1.manager, &now, self.1.force.unwrap_or(false));
                let merged = apply::apply(&apply::Schema::Kind(kind), Some(&live), config, &managing)?;
                codec::json::canonicalize(kind, merged, Strictness::Ignore).map_err(|e| ApiError::bad_request(e.to_string()))?.object
            }
        };
        call.check_namespace(&mut scale)?;
        call.check_name(&mut scale)?;
        Ok(scale)
    }
}

#[async_trait]
impl Change for Rescale {
    async fn wanted(&mut self, call: &mut Call<'_>, old: &Value) -> Result<Value, ApiError> {
        let mut scale = self.asked(call, old)?;
        let registry = call.registry.clone();
        let attributes = Attributes::new(call, Operation::Update, call.info.name.clone(), self.1.dry_run);
        let before = scale_of(old, call.scale_paths())?;
        registry.admission.admit(&registry, &attributes, &mut scale, Some(&before)).await?;
        let mut wanted = call.rescaled(&scale, old)?;
        match &self.0 {
            Source::Apply(_) => {
                managers::give_back(&scale["metadata"]["managedFields"], &mut wanted, &call.replicas_path());
            }
            _ => call.fields_updated(Some(old), &mut wanted, &self.1.manager),
        }
        let after = scale_of(&wanted, call.scale_paths())?;
        registry.admission.validate(&registry, &attributes, Some(&after), Some(&before)).await?;
        call.warnings.append(&mut attributes.warnings.lock());
        Ok(wanted)
    }

    fn is_admitted(&self) -> bool {
        true
    }
}

impl Call<'_> {
    pub(crate) async fn scale(&mut self, body: Bytes) -> Result<Answer, ApiError> {
        let kind = scale_kind()?;
        let how = How { subresource: None, unconditional: true };
        let entry = match self.info.verb {
            Verb::Get => self.current().await.ok_or_else(|| self.not_found(&self.info.name))?,
            Verb::Update => {
                let options = WriteOptions::parse(self.info, &self.query, "UpdateOptions")?;
                let mut scale = self.decode(&body, kind, options.validation)?;
                self.check_namespace(&mut scale)?;
                self.check_name(&mut scale)?;
                self.change(&mut Rescale(Source::Sent(scale), options.clone()), how, &options).await?
            }
            Verb::Patch => {
                let options = WriteOptions::parse(self.info, &self.query, "PatchOptions")?;
                let source = if self.info.content_type.starts_with(APPLY) {
                    Source::Apply(self.read_config(&body, &options)?)
                } else {
                    Source::Patch(Patch::parse(&self.info.content_type, &body)?.0)
                };
                self.change(&mut Rescale(source, options.clone()), how, &options).await?
            }
            _ => return Err(ApiError::method_not_allowed()),
        };
        let entry = self.registry.view(self.served, &entry).await?;
        let scale = scale_of(&entry.to_value(), self.scale_paths())?;
        self.answer_scale(scale)
    }

    /// As it is, as its metadata, or as a row of a table.
    fn answer_scale(&mut self, scale: Value) -> Result<Answer, ApiError> {
        let version = self.output.meta_version();
        let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": scale["metadata"]});
        match self.output.shown {
            Shown::Object => self.answer_tree(200, &Gvk::new("autoscaling", "v1", "Scale"), &scale),
            Shown::Metadata => {
                let version = if self.output.beta { "v1beta1" } else { "v1" };
                self.answer_tree(200, &Gvk::new("meta.k8s.io", version, "PartialObjectMetadata"), &partial)
            }
            Shown::Table => {
                let columns: Vec<Value> = COLUMNS
                    .iter()
                    .map(|c| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority}))
                    .collect();
                let number = |part: &str| scale[part]["replicas"].as_i64().unwrap_or(0);
                let age = table::age(&scale, self.registry.config.clock.now());
                let cells = json!([object::name(&scale), number("spec"), number("status"), age]);
                let meta = json!({"resourceVersion": object::resource_version(&scale)});
                let shown = json!({"kind": "Table", "apiVersion": version, "metadata": meta, "columnDefinitions": columns,
                    "rows": [{"cells": cells, "object": partial}]});
                self.answer_tree(200, &Gvk::new("meta.k8s.io", "v1", "Table"), &shown)
            }
        }
    }

    fn scale_paths(&self) -> Option<&ScalePaths> {
        self.served.as_custom().and_then(|c| c.version().scale.as_ref())
    }

    fn replicas_path(&self) -> Vec<&str> {
        self.scale_paths().map_or_else(|| vec!["spec", "replicas"], |paths| paths.replicas().collect())
    }

    fn rescaled(&self, scale: &Value, old: &Value) -> Result<Value, ApiError> {
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let mut errors = ErrorList::new();
            errors.invalid(&Path::new("spec").child("replicas"), replicas, "must be greater than or equal to 0");
            return Err(errors.into_invalid("autoscaling", "Scale", &self.info.name));
        }
        let (given, present) = (object::uid(scale), object::uid(old));
        if !given.is_empty() && given != present {
            let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {present}");
            let mut error = ApiError::conflict(&self.served.gvr, &self.info.name, &why);
            error.reason = Reason::Conflict;
            return Err(error);
        }
        let mut new = old.clone();
        match self.scale_paths() {
            Some(paths) => paths.set(&mut new, replicas),
            None => {
                let spec = object::as_map(&mut new).entry("spec").or_insert(Value::Null);
                object::as_map(spec).insert("replicas".into(), json!(replicas));
            }
        }
        let version = object::resource_version(scale);
        if !version.is_empty() {
            object::meta_mut(&mut new).insert("resourceVersion".into(), Value::from(version));
        }
        Ok(new)
    }
}
