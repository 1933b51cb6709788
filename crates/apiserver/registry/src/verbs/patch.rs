//! PATCH: JSON patch, merge patch, strategic merge patch, and server-side apply.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tiphys_meta::{ApiError, ErrorList, Path, Reason, object};
use tiphys_schema::codec::{self, Decoded};
use tiphys_schema::{Kind, patch};

use super::Call;
use super::update::{Change, How};
use crate::answer::Answer;
use crate::convert::Conversion;
use crate::negotiate::unsupported;
use crate::options::{Validation, WriteOptions};
use crate::resource::Model;

pub(crate) const JSON: &str = "application/json-patch+json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// A patch that was read.
pub(crate) enum Patch {
    Json(Vec<patch::Operation>),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// Reads a patch; what is unknown or double in it is reported as its type's decoder would.
    pub(crate) fn parse(content_type: &str, body: &[u8]) -> Result<(Patch, Vec<String>), ApiError> {
        let merge = |e: patch::PatchError| match e {
            patch::PatchError::TooLarge(_) => ApiError::from(e),
            e => ApiError::bad_request(format!("error decoding patch: {e}")),
        };
        match content_type.split(';').next().unwrap_or("").trim() {
            JSON => patch::parse_json_patch(body).map(|(ops, problems)| (Patch::Json(ops), problems)).map_err(ApiError::from),
            MERGE => patch::parse_document(body).map(|(tree, problems)| (Patch::Merge(tree), problems)).map_err(merge),
            STRATEGIC => patch::parse_document(body).map(|(tree, problems)| (Patch::Strategic(tree), problems)).map_err(ApiError::from),
            _ => Err(ApiError::of_the_router(Reason::UnsupportedMediaType, "415: Unsupported Media Type")),
        }
    }

    /// For custom resources, which know no strategic merge.
    fn apply_untyped(&self, target: &mut Value) -> Result<(), ApiError> {
        match self {
            Patch::Json(operations) => patch::json(target, operations).map_err(ApiError::from),
            Patch::Merge(merge) => patch::merge(target, merge).map_err(ApiError::from),
            Patch::Strategic(_) => Err(unsupported(&[JSON, MERGE, APPLY])),
        }
    }

    pub(crate) fn apply(&self, kind: &Kind, target: &mut Value) -> Result<(), ApiError> {
        match self {
            Patch::Json(operations) => patch::json(target, operations),
            Patch::Merge(merge) => patch::merge(target, merge),
            Patch::Strategic(strategic) => patch::strategic(kind, target, strategic),
        }
        .map_err(ApiError::from)
    }
}

struct Patched {
    patch: Patch,
    /// Fields that the patch gives twice or that are unknown in it.
    problems: Vec<String>,
    options: WriteOptions,
}

impl Patched {
    /// The patched object of a built-in kind.
    fn builtin(&self, call: &mut Call<'_>, kind: &'static Kind, old: &Value, mut tree: Value) -> Result<Value, ApiError> {
        self.patch.apply(kind, &mut tree)?;
        mark_reset(&mut tree);
        let strictness = self.options.validation.strictness();
        let decoded = match call.served.conversion {
            Conversion::Pair { .. } => codec::json::canonicalize(kind, tree, strictness),
            Conversion::Same | Conversion::Renamed => codec::json::canonicalize_changed(kind, tree, old, strictness),
        };
        let mut decoded: Decoded = decoded.map_err(|e| self.unreadable(call, kind, old, &e.to_string()))?;
        decoded.problems.splice(0..0, self.problems.iter().cloned());
        if !decoded.problems.is_empty() && self.options.validation == Validation::Strict {
            let why = format!("strict decoding error: {}", decoded.problems.join(", "));
            return Err(self.unreadable(call, kind, old, &why));
        }
        call.report(&kind.gvk, decoded, self.options.validation)
    }

    /// What came of the patch is no object of the kind: 422, with all of it in the message. Of a Secret nothing is shown (upstream shows it): who may patch
    /// may not therefore read, and messages go into logs.
    fn unreadable(&self, call: &Call<'_>, kind: &Kind, old: &Value, why: &str) -> ApiError {
        let mut errors = ErrorList::new();
        if kind.gvk.group.is_empty() && kind.gvk.kind == "Secret" {
            errors.invalid_unshown(&Path::new("patch"), why);
            return errors.into_invalid("", "", "");
        }
        let mut tree = old.clone();
        call.serve(&mut tree);
        let shown = match &self.patch {
            Patch::Strategic(patch) => go_map(patch),
            _ => self.patch.apply(kind, &mut tree).map(|()| tree.to_string()).unwrap_or_default(),
        };
        errors.invalid(&Path::new("patch"), shown, why);
        errors.into_invalid("", "", "")
    }
}

/// An empty list of managers asks for tracking to begin anew. As it would be gone from the canonical form, it is written in its other form.
fn mark_reset(tree: &mut Value) {
    if let Some(fields) = tree.get_mut("metadata").and_then(|m| m.get_mut("managedFields"))
        && fields.as_array().is_some_and(Vec::is_empty)
    {
        *fields = serde_json::json!([{}]);
    }
}

/// As Go prints maps: messages show strategic patches so.
fn go_map(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let pairs: Vec<String> = keys.into_iter().map(|key| format!("{key}:{}", go_map(&map[key]))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(go_map).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".into(),
        other => other.to_string(),
    }
}

#[async_trait]
impl Change for Patched {
    async fn wanted(&mut self, call: &mut Call<'_>, old: &Value) -> Result<Value, ApiError> {
        let mut tree = old.clone();
        call.serve(&mut tree);
        let mut wanted = match &call.served.model {
            Model::Builtin(kind, _) => self.builtin(call, kind, old, tree)?,
            Model::Custom(_) => {
                self.patch.apply_untyped(&mut tree)?;
                mark_reset(&mut tree);
                let problems = self.problems.clone();
                call.report(&call.served.gvk, Decoded { object: Value::Null, problems }, self.options.validation)?;
                call.canonical(tree, self.options.validation)?
            }
        };
        call.check_namespace(&mut wanted)?;
        call.check_name(&mut wanted)?;
        call.settle(&mut wanted);
        call.fields_updated(Some(old), &mut wanted, &self.options.manager);
        Ok(wanted)
    }
}

impl Call<'_> {
    pub(crate) async fn patch(&mut self, body: Bytes) -> Result<Answer, ApiError> {
        self.patch_object(body, How { subresource: None, unconditional: true }).await
    }

    /// PATCH of the object or of one of its subresources that are the object.
    pub(crate) async fn patch_object(&mut self, body: Bytes, how: How) -> Result<Answer, ApiError> {
        let options = WriteOptions::parse(self.info, &self.query, "PatchOptions")?;
        if self.info.content_type.split(';').next().is_some_and(|t| t.trim() == APPLY) {
            return self.apply(body, how, &options).await;
        }
        if options.force.is_some() {
            return Err(force_without_apply());
        }
        let (patch, problems) = Patch::parse(&self.info.content_type, &body)?;
        if matches!(patch, Patch::Strategic(_)) && self.served.as_custom().is_some() {
            return Err(unsupported(&[JSON, MERGE, APPLY]));
        }
        let mut change = Patched { patch, problems, options: options.clone() };
        let entry = self.change(&mut change, how, &options).await?;
        self.answer(200, &entry).await
    }

    /// Turns a tree of the stored version into one of the served version.
    pub(crate) fn serve(&self, tree: &mut Value) {
        self.served.conversion.to_served(tree);
        let map = object::as_map(tree);
        map.insert("kind".into(), Value::from(&*self.served.gvk.kind));
        map.insert("apiVersion".into(), Value::from(self.served.api_version.as_str()));
    }
}

fn force_without_apply() -> ApiError {
    let mut errors = tiphys_meta::ErrorList::new();
    errors.forbidden(&tiphys_meta::Path::new("force"), "may not be specified for non-apply patch");
    errors.into_invalid("meta.k8s.io", "PatchOptions", "")
}
