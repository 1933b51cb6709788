//! The resources there are: which are kept where, in which version, and in which versions they are served.
//!
//! Deliberately absent: resources that keep nothing (reviews, `componentstatuses`) are the server's own.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tiphys_kinds::Strategy;
use tiphys_meta::{ApiError, Gvk, Gvr};
use tiphys_schema::{Facts, Kind, ResourceFacts};

use crate::cache::Cache;
use crate::convert::Conversion;
use crate::storage::encryption::Encryption;
use crate::storage::{Shape, keys};

/// One stored resource with all versions in which it is served.
pub(crate) struct Resource {
    /// In the version that is stored.
    pub(crate) gvr: Gvr,
    pub(crate) namespaced: bool,
    prefix: Bytes,
    pub(crate) shape: Arc<Shape>,
    pub(crate) kind: &'static Kind,
    pub(crate) strategy: &'static Strategy,
    pub(crate) cache: Cache,
    pub(crate) served: Vec<Served>,
    /// Objects end with a lease of the configured length.
    pub(crate) expires: bool,
}

/// A version of a resource.
pub(crate) struct Served {
    pub(crate) gvr: Gvr,
    pub(crate) gvk: Gvk,
    pub(crate) api_version: String,
    pub(crate) kind: &'static Kind,
    pub(crate) facts: &'static ResourceFacts,
    pub(crate) conversion: Conversion,
}

impl Resource {
    fn new(facts: &'static ResourceFacts, kind: &'static Kind, encryption: &Encryption) -> Resource {
        let gvr = facts.gvr.clone();
        let strategy = tiphys_kinds::strategy(&gvr);
        let expires = &*gvr.resource == "events";
        let shape = Shape {
            gvk: facts.kind.clone(),
            api_version: facts.kind.api_version(),
            namespaced: facts.namespaced,
            fields: strategy.fields,
            sealer: encryption.of(&gvr.group, &gvr.resource),
        };
        Resource {
            namespaced: facts.namespaced,
            prefix: keys::builtin_prefix(&gvr.group, &gvr.resource).into(),
            gvr,
            shape: Arc::new(shape),
            kind,
            strategy,
            cache: Cache::new(expires),
            served: Vec::new(),
            expires,
        }
    }

    pub(crate) fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// What the keys of a namespace begin with; of everything where it is empty.
    pub(crate) fn prefix_of(&self, namespace: &str) -> Bytes {
        if namespace.is_empty() || !self.namespaced {
            return self.prefix.clone();
        }
        [&self.prefix[..], namespace.as_bytes(), b"/"].concat().into()
    }

    pub(crate) fn key(&self, namespace: &str, name: &str) -> Bytes {
        if self.namespaced {
            [&self.prefix[..], namespace.as_bytes(), b"/", name.as_bytes()].concat().into()
        } else {
            [&self.prefix[..], name.as_bytes()].concat().into()
        }
    }

    /// What messages call the kind: `Deployment`.
    pub(crate) fn kind_name(&self) -> &str {
        &self.shape.gvk.kind
    }
}

impl Served {
    fn new(facts: &'static ResourceFacts, kind: &'static Kind, home: &Gvr) -> Served {
        Served {
            gvr: facts.gvr.clone(),
            gvk: facts.kind.clone(),
            api_version: facts.kind.api_version(),
            kind,
            facts,
            conversion: Conversion::between(home, &facts.gvr),
        }
    }

    pub(crate) fn has_verb(&self, subresource: &str, verb: &str) -> bool {
        if subresource.is_empty() {
            return self.facts.verbs.contains(&verb);
        }
        self.facts.subresources.iter().any(|s| s.name == subresource && s.verbs.contains(&verb))
    }

    /// Renames a field label to what is kept of it, or says that it is not supported.
    pub(crate) fn field_label(&self, resource: &Resource, label: &mut String) -> Result<(), ApiError> {
        if matches!(label.as_str(), "metadata.name" | "metadata.namespace") {
            return Ok(());
        }
        if let Some(home) = self.conversion.field_label(label) {
            *label = home.to_owned();
        }
        let names = resource.strategy.selectable_field_names;
        if names.contains(&label.as_str()) {
            return Ok(());
        }
        let message = match &*resource.gvr.resource {
            "jobs" => format!("field label \"{label}\" not supported for Job"),
            _ if names.iter().all(|n| n.starts_with("metadata.")) => {
                format!("\"{label}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            }
            _ => format!("field label not supported: {label}"),
        };
        Err(ApiError::bad_request(message))
    }
}

/// All resources, by what names them.
pub(crate) struct Resources {
    all: Vec<Arc<Resource>>,
    by_gvr: HashMap<Gvr, (usize, usize)>,
    by_prefix: HashMap<Bytes, usize>,
}

impl Resources {
    pub(crate) fn builtin(encryption: &Encryption) -> Resources {
        let facts = Facts::builtin();
        let mut homes: Vec<Resource> = Vec::new();
        let mut by_home: HashMap<(String, String), usize> = HashMap::new();
        for (resource, kind) in stored(facts) {
            let at = (home_group(&resource.gvr).to_owned(), resource.gvr.resource.to_string());
            if let std::collections::hash_map::Entry::Vacant(place) = by_home.entry(at) {
                place.insert(homes.len());
                homes.push(Resource::new(resource, kind, encryption));
            }
        }
        for (resource, kind) in stored(facts) {
            let at = (home_group(&resource.gvr).to_owned(), resource.gvr.resource.to_string());
            if let Some(home) = by_home.get(&at).and_then(|i| homes.get_mut(*i)) {
                let served = Served::new(resource, kind, &home.gvr);
                home.served.push(served);
            }
        }
        Resources::index(homes.into_iter().map(Arc::new).collect())
    }

    fn index(all: Vec<Arc<Resource>>) -> Resources {
        let mut by_gvr = HashMap::new();
        let mut by_prefix = HashMap::new();
        for (i, resource) in all.iter().enumerate() {
            by_prefix.insert(resource.prefix.clone(), i);
            for (j, served) in resource.served.iter().enumerate() {
                by_gvr.insert(served.gvr.clone(), (i, j));
            }
        }
        Resources { all, by_gvr, by_prefix }
    }

    /// The resource, and which of its versions it is.
    pub(crate) fn find(&self, gvr: &Gvr) -> Option<(&Arc<Resource>, usize)> {
        let (i, j) = *self.by_gvr.get(gvr)?;
        Some((self.all.get(i)?, j))
    }

    pub(crate) fn all(&self) -> &[Arc<Resource>] {
        &self.all
    }

    /// The resource that a key belongs to: its prefix ends at the third or at the fourth slash.
    pub(crate) fn of_key(&self, key: &[u8]) -> Option<&Arc<Resource>> {
        self.position_of_key(key).and_then(|i| self.all.get(i))
    }

    pub(crate) fn position_of_key(&self, key: &[u8]) -> Option<usize> {
        let mut slashes = key.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).skip(2).take(2);
        slashes.find_map(|end| self.by_prefix.get(&key[..=end])).copied()
    }
}

/// Resources that keep objects: those that can be read by name and listed.
fn stored(facts: &'static Facts) -> impl Iterator<Item = (&'static ResourceFacts, &'static Kind)> {
    let kept = |r: &&ResourceFacts| r.verbs.contains(&"get") && r.verbs.contains(&"list") && &*r.gvr.resource != "componentstatuses";
    facts.resources().filter(kept).filter_map(|r| Some((r, facts.kind(&r.kind)?)))
}

/// Events of both groups are kept together, in the core group (`AddCohabitatingResources` upstream).
fn home_group(gvr: &Gvr) -> &str {
    match (&*gvr.group, &*gvr.resource) {
        ("events.k8s.io", "events") => "",
        (group, _) => group,
    }
}
