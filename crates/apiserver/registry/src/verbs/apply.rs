//! Server-side apply, and the bookkeeping of field managers on other writes. The rules are `tiphys_schema::apply`'s.
//!
//! Managers are kept in the version that they wrote in; an applied configuration is merged in the version it is sent in.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tiphys_meta::{ApiError, ErrorList, Path, object, time};
use tiphys_schema::apply::{self, Options};
use tiphys_schema::codec;

use super::Call;
use super::update::{Change, How};
use crate::answer::Answer;
use crate::convert::Conversion;
use crate::options::{Validation, WriteOptions};

impl Call<'_> {
    /// Notes in `managedFields` which fields this write changes; `old` is none on create. Both are of the stored version.
    pub(crate) fn fields_updated(&self, old: Option<&Value>, new: &mut Value, manager: &str) {
        let now = time::format(self.registry.config.clock.now());
        let options = self.managing(manager, &now, false);
        if !matches!(self.served.conversion, Conversion::Pair { .. }) {
            return apply::update(&self.schema(), old, new, &options);
        }
        // Of the few kinds whose versions differ, the writer's own fields are his.
        let served = |tree: &Value| {
            let mut tree = tree.clone();
            self.serve(&mut tree);
            tree
        };
        let mut tracked = served(new);
        apply::update(&self.schema(), old.map(served).as_ref(), &mut tracked, &options);
        let meta = object::meta_mut(new);
        match object::meta_mut(&mut tracked).remove("managedFields") {
            Some(fields) => drop(meta.insert("managedFields".into(), fields)),
            None => drop(meta.remove("managedFields")),
        }
    }

    pub(super) fn managing<'o>(&'o self, manager: &'o str, now: &'o str, force: bool) -> Options<'o> {
        const STATUS: &[&[&str]] = &[&["status"]];
        const SPEC: &[&[&str]] = &[&["spec"]];
        const META_SPEC: &[&[&str]] = &[&["metadata"], &["spec"]];
        let reset = match self.info.subresource.as_str() {
            "status" if self.resource.strategy.status_alone => META_SPEC,
            "status" => SPEC,
            "" if !self.resource.strategy.resets.is_empty() => self.resource.strategy.resets,
            "" if self.owns_status() => STATUS,
            _ => &[],
        };
        Options { manager, subresource: &self.info.subresource, now, reset, force }
    }

    pub(crate) async fn apply(&mut self, body: Bytes, how: How, options: &WriteOptions) -> Result<Answer, ApiError> {
        let config = self.read_config(&body, options)?;
        let mut change = Apply { config, options: options.clone() };
        if how.subresource.is_none() && self.current().await.is_none() {
            let tree = change.applied(self, None)?;
            let entry = self.create_tree(tree, options).await?;
            return self.answer(201, &entry).await;
        }
        let entry = self.change(&mut change, how, options).await?;
        self.answer(200, &entry).await
    }

    /// What is applied, as YAML or JSON.
    pub(super) fn read_config(&mut self, body: &[u8], options: &WriteOptions) -> Result<Value, ApiError> {
        if self.query.get("fieldManager").is_empty() {
            let mut errors = ErrorList::new();
            errors.required(&Path::new("fieldManager"), "is required for apply patch");
            return Err(errors.into_invalid("meta.k8s.io", "PatchOptions", ""));
        }
        let read = codec::yaml::read(body).map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
        let (config, problem) = read;
        let twice = problem.map(|problem| format!("error strict decoding YAML: error converting YAML to JSON: {problem}"));
        match (twice, options.validation) {
            (Some(why), Validation::Strict) => return Err(ApiError::bad_request(why)),
            (Some(why), Validation::Warn) => self.warnings.push(why),
            _ => {}
        }
        Ok(config)
    }
}

struct Apply {
    config: Value,
    options: WriteOptions,
}

impl Apply {
    /// The object to write, in the stored version, with its defaults.
    fn applied(&self, call: &mut Call<'_>, live: Option<&Value>) -> Result<Value, ApiError> {
        let live = live.map(|live| {
            let mut live = live.clone();
            call.serve(&mut live);
            live
        });
        let now = time::format(call.registry.config.clock.now());
        let force = self.options.force.unwrap_or(false);
        let managing = call.managing(&self.options.manager, &now, force);
        let merged = apply::apply(&call.schema(), live.as_ref(), &self.config, &managing)?;
        let mut tree = call.canonical(merged, Validation::Ignore)?;
        call.check_namespace(&mut tree)?;
        call.check_name(&mut tree)?;
        if live.is_none() {
            super::create::wipe_system_fields(&mut tree);
            object::meta_mut(&mut tree).remove("resourceVersion");
        }
        call.settle(&mut tree);
        Ok(tree)
    }
}

#[async_trait]
impl Change for Apply {
    async fn wanted(&mut self, call: &mut Call<'_>, old: &Value) -> Result<Value, ApiError> {
        let config_version = object::resource_version(&self.config).to_owned();
        let mut tree = self.applied(call, Some(old))?;
        if !config_version.is_empty() {
            object::meta_mut(&mut tree).insert("resourceVersion".into(), Value::from(config_version));
        }
        Ok(tree)
    }
}
