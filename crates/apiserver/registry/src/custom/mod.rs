//! Custom resources: what a CustomResourceDefinition adds to the API, on the same engine as the built-in kinds.
//!
//! - [`definition`]: what a definition says, read once.
//! - [`rules`]: what its schema means for an object: coercion, defaults, validation, status, generation.
//! - [`view`]: objects in a version other than the one they are stored in, by renaming or by a conversion webhook.
//! - [`table`], [`scale`]: printer columns, the scale subresource.
//! - [`follow`]: definitions take effect as the watch cache sees them; their objects are read from the store at that revision.
//! - [`documents`]: what discovery and OpenAPI publish.
//! - [`status`]: what the server says about a definition (names, established, approved). Pure.
//! - [`lifecycle`]: writes that, and deletes the objects of a definition that goes.
//!
//! An object is kept as JSON in the version it was written in, under `/registry/GROUP/PLURAL/`. A write is defaulted, admitted and validated in the
//! version of its request and converted last.
//!
//! Deliberately absent: a cache of converted objects: a webhook is asked for every read of another version.

pub(crate) mod definition;
mod documents;
pub(crate) mod follow;
pub(crate) mod lifecycle;
mod rules;
pub(crate) mod scale;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tiphys_meta::Gvr;

pub(crate) use definition::{Definition, Version};
pub(crate) use rules::STATUS;

use crate::resource::Resource;
use crate::storage::{Entry, Shape};

/// One version of a custom resource, as a request is about it.
pub(crate) struct Custom {
    pub(crate) definition: Arc<Definition>,
    at: usize,
    /// Of objects in this version.
    pub(crate) shape: Arc<Shape>,
}

impl Custom {
    pub(crate) fn new(definition: &Arc<Definition>, at: usize, shape: Arc<Shape>) -> Custom {
        Custom { definition: definition.clone(), at, shape }
    }

    pub(crate) fn version(&self) -> &Version {
        &self.definition.versions[self.at]
    }

    /// Whether the entry is in this version already.
    pub(crate) fn shows(&self, entry: &Entry) -> bool {
        entry.has_shape(&self.shape) && entry.api_version() == self.version().api_version
    }
}

/// All custom resources that there are at a time. What is made from it can be kept as long as it stays the same.
#[derive(Default)]
pub struct Extensions {
    resources: Vec<Arc<Resource>>,
    by_gvr: HashMap<Gvr, (usize, usize)>,
    by_prefix: HashMap<Bytes, usize>,
}

impl Extensions {
    fn new(resources: Vec<Arc<Resource>>) -> Extensions {
        let mut all = Extensions { resources, ..Extensions::default() };
        for (i, resource) in all.resources.iter().enumerate() {
            all.by_prefix.insert(resource.prefix().clone(), i);
            for (j, served) in resource.served.iter().enumerate() {
                all.by_gvr.insert(served.gvr.clone(), (i, j));
            }
        }
        all
    }

    pub(crate) fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    pub(crate) fn find(&self, gvr: &Gvr) -> Option<(&Arc<Resource>, usize)> {
        let (i, j) = *self.by_gvr.get(gvr)?;
        Some((self.resources.get(i)?, j))
    }

    pub(crate) fn of_prefix(&self, prefix: &[u8]) -> Option<&Arc<Resource>> {
        self.resources.get(*self.by_prefix.get(prefix)?)
    }

    /// With a resource put in, or taken out, by the name of its definition.
    fn with(&self, name: &str, resource: Option<Arc<Resource>>) -> Extensions {
        let others = self.resources.iter().filter(|r| r.definition().is_none_or(|d| d.name != name)).cloned();
        let mut all: Vec<Arc<Resource>> = others.chain(resource).collect();
        all.sort_by(|a, b| (&a.gvr.group, &a.gvr.resource).cmp(&(&b.gvr.group, &b.gvr.resource)));
        Extensions::new(all)
    }

    fn of_definition(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|r| r.definition().is_some_and(|d| d.name == name))
    }
}
