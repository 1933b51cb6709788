//! The resources there are: which are kept where, in which version, and in which versions they are served.
//!
//! Built-in resources are there from the start; custom ones come and go with their definitions (`custom::follow`).
//!
//! Deliberately absent: resources that keep nothing (reviews, `componentstatuses`, metrics) are the server's own.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tiphys_kinds::Strategy;
use tiphys_meta::{ApiError, Gvk, Gvr};
use tiphys_schema::apply::Schema;
use tiphys_schema::{Facts, Kind, ResourceFacts};

use crate::cache::Cache;
use crate::convert::Conversion;
use crate::custom::{Custom, Definition, Extensions};
use crate::storage::encryption::Encryption;
use crate::storage::{FieldNames, Fields, Forms, Shape, keys};

/// One stored resource with all versions in which it is served.
pub(crate) struct Resource {
    /// In the version that is stored.
    pub(crate) gvr: Gvr,
    pub(crate) namespaced: bool,
    prefix: Bytes,
    pub(crate) shape: Arc<Shape>,
    /// What admission and field managers see of a built-in resource; none for a custom one, whose requests' versions they see.
    pub(crate) kind: Option<&'static Kind>,
    pub(crate) strategy: &'static Strategy,
    pub(crate) cache: Cache,
    pub(crate) served: Vec<Served>,
    /// Objects end with a lease of the configured length.
    pub(crate) expires: bool,
    definition: Option<Arc<Definition>>,
}

/// A version of a resource.
pub(crate) struct Served {
    pub(crate) gvr: Gvr,
    pub(crate) gvk: Gvk,
    pub(crate) api_version: String,
    pub(crate) model: Model,
    pub(crate) conversion: Conversion,
}

/// Where what is known of a version's objects stands.
pub(crate) enum Model {
    Builtin(&'static Kind, &'static ResourceFacts),
    Custom(Custom),
}

impl Resource {
    fn new(facts: &'static ResourceFacts, kind: &'static Kind, encryption: &Encryption, forms: &Arc<Forms>) -> Resource {
        let gvr = facts.gvr.clone();
        let strategy = tiphys_kinds::strategy(&gvr);
        let expires = &*gvr.resource == "events";
        let shape = Shape {
            gvk: facts.kind.clone(),
            api_version: facts.kind.api_version(),
            namespaced: facts.namespaced,
            fields: Fields::Builtin(strategy.fields),
            sealer: encryption.of(&gvr.group, &gvr.resource),
            field_names: FieldNames::default(),
            forms: forms.clone(),
        };
        Resource {
            namespaced: facts.namespaced,
            prefix: keys::builtin_prefix(&gvr.group, &gvr.resource).into(),
            gvr,
            shape: Arc::new(shape),
            kind: Some(kind),
            strategy,
            cache: Cache::new(expires),
            served: Vec::new(),
            expires,
            definition: None,
        }
    }

    pub(crate) fn custom(definition: Arc<Definition>, encryption: &Encryption, forms: &Arc<Forms>) -> Resource {
        static NAMESPACED: Strategy = Strategy::custom(true);
        static CLUSTER: Strategy = Strategy::custom(false);
        let namespaced = definition.namespaced;
        let sealer = encryption.of(&definition.group, &definition.names.plural);
        let shape = |at| Arc::new(Shape::custom(&definition, at, sealer.clone(), forms.clone()));
        let shapes: Vec<Arc<Shape>> = (0..definition.versions.len()).map(shape).collect();
        let served = definition.versions.iter().zip(&shapes).enumerate().filter(|(_, (version, _))| version.served);
        let served = served.map(|(at, (_, shape))| Served::custom(Custom::new(&definition, at, shape.clone()))).collect();
        let stored = definition.stored();
        Resource {
            namespaced,
            prefix: keys::custom_prefix(&definition.group, &definition.names.plural).into(),
            gvr: stored.gvr.clone(),
            shape: shapes[definition.storage].clone(),
            kind: None,
            strategy: if namespaced { &NAMESPACED } else { &CLUSTER },
            cache: Cache::new(false),
            served,
            expires: false,
            definition: Some(definition),
        }
    }

    /// Of a custom resource.
    pub(crate) fn definition(&self) -> Option<&Definition> {
        self.definition.as_deref()
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
            model: Model::Builtin(kind, facts),
            conversion: Conversion::between(home, &facts.gvr),
        }
    }

    fn custom(custom: Custom) -> Served {
        let version = custom.version();
        Served {
            gvr: version.gvr.clone(),
            gvk: version.gvk.clone(),
            api_version: version.api_version.clone(),
            model: Model::Custom(custom),
            conversion: Conversion::Same,
        }
    }

    /// How configurations of this version merge.
    pub(crate) fn schema(&self) -> Schema<'_> {
        match &self.model {
            Model::Builtin(kind, _) => Schema::Kind(kind),
            Model::Custom(custom) => Schema::Custom(custom.version().gvk.clone(), &custom.version().schema),
        }
    }

    /// Of a custom resource.
    pub(crate) fn as_custom(&self) -> Option<&Custom> {
        match &self.model {
            Model::Custom(custom) => Some(custom),
            Model::Builtin(..) => None,
        }
    }

    /// Whether there is such a subresource; the resource itself has no name.
    pub(crate) fn declares(&self, subresource: &str) -> bool {
        subresource.is_empty()
            || match &self.model {
                Model::Builtin(_, facts) => facts.subresources.iter().any(|s| s.name == subresource),
                Model::Custom(custom) => custom.version().has_subresource(subresource),
            }
    }

    pub(crate) fn has_verb(&self, subresource: &str, verb: &str) -> bool {
        match (&self.model, subresource) {
            (Model::Builtin(_, facts), "") => facts.verbs.contains(&verb),
            (Model::Builtin(_, facts), _) => facts.subresources.iter().any(|s| s.name == subresource && s.verbs.contains(&verb)),
            (Model::Custom(_), "") => true,
            (Model::Custom(custom), _) => custom.version().has_subresource(subresource) && matches!(verb, "get" | "update" | "patch"),
        }
    }

    /// Renames a field label to what is kept of it, or says that it is not supported.
    pub(crate) fn field_label(&self, resource: &Resource, label: &mut String) -> Result<(), ApiError> {
        if label == "metadata.name" || (label == "metadata.namespace" && (resource.namespaced || self.as_custom().is_none())) {
            return Ok(());
        }
        if let Some(custom) = self.as_custom() {
            let known = custom.version().selectable.iter().any(|(name, _)| name == label);
            return if known { Ok(()) } else { Err(ApiError::bad_request(format!("field label not supported: {label}"))) };
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
            "resourceslices" => format!("field label not supported for {}: {label}", self.gvk),
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
    extensions: ArcSwap<Extensions>,
    /// For resources that come later.
    pub(crate) encryption: Encryption,
    /// What the forms of all entries take.
    pub(crate) forms: Arc<Forms>,
}

impl Resources {
    pub(crate) fn builtin(encryption: &Encryption, forms: Arc<Forms>) -> Resources {
        let facts = Facts::builtin();
        let mut homes: Vec<Resource> = Vec::new();
        let mut by_home: HashMap<(String, String), usize> = HashMap::new();
        for (resource, kind) in stored(facts) {
            let at = (home_group(&resource.gvr).to_owned(), resource.gvr.resource.to_string());
            if let std::collections::hash_map::Entry::Vacant(place) = by_home.entry(at) {
                place.insert(homes.len());
                homes.push(Resource::new(resource, kind, encryption, &forms));
            }
        }
        for (resource, kind) in stored(facts) {
            let at = (home_group(&resource.gvr).to_owned(), resource.gvr.resource.to_string());
            if let Some(home) = by_home.get(&at).and_then(|i| homes.get_mut(*i)) {
                let served = Served::new(resource, kind, &home.gvr);
                home.served.push(served);
            }
        }
        Resources::index(homes.into_iter().map(Arc::new).collect(), encryption.clone(), forms)
    }

    fn index(all: Vec<Arc<Resource>>, encryption: Encryption, forms: Arc<Forms>) -> Resources {
        let mut by_gvr = HashMap::new();
        let mut by_prefix = HashMap::new();
        for (i, resource) in all.iter().enumerate() {
            by_prefix.insert(resource.prefix.clone(), i);
            for (j, served) in resource.served.iter().enumerate() {
                by_gvr.insert(served.gvr.clone(), (i, j));
            }
        }
        Resources { all, by_gvr, by_prefix, extensions: ArcSwap::default(), encryption, forms }
    }

    /// The resource, and which of its versions it is.
    pub(crate) fn find(&self, gvr: &Gvr) -> Option<(Arc<Resource>, usize)> {
        match self.by_gvr.get(gvr) {
            Some((i, j)) => Some((self.all.get(*i)?.clone(), *j)),
            None => self.extensions.load().find(gvr).map(|(resource, version)| (resource.clone(), version)),
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Resource>> {
        self.all.iter().chain(self.extensions.load().all()).cloned().collect()
    }

    pub(crate) fn extensions(&self) -> Arc<Extensions> {
        self.extensions.load_full()
    }

    pub(crate) fn set_extensions(&self, extensions: Extensions) {
        self.extensions.store(Arc::new(extensions));
    }

    /// The resource that a key belongs to: its prefix ends at the third or at the fourth slash.
    pub(crate) fn of_key(&self, key: &[u8]) -> Option<Arc<Resource>> {
        let ends = || key.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).skip(2).take(2);
        let builtin = ends().find_map(|end| self.by_prefix.get(&key[..=end])).and_then(|i| self.all.get(*i)).cloned();
        builtin.or_else(|| self.extensions.load().of_prefix(&key[..=ends().nth(1)?]).cloned())
    }
}

/// Resources that keep objects: those that can be watched. `componentstatuses` and `metrics.k8s.io` can only be read.
fn stored(facts: &'static Facts) -> impl Iterator<Item = (&'static ResourceFacts, &'static Kind)> {
    let kept = |r: &&ResourceFacts| r.verbs.contains(&"get") && r.verbs.contains(&"watch");
    facts.resources().filter(kept).filter_map(|r| Some((r, facts.kind(&r.kind)?)))
}

/// Events of both groups are kept together, in the core group (`AddCohabitatingResources` upstream).
fn home_group(gvr: &Gvr) -> &str {
    match (&*gvr.group, &*gvr.resource) {
        ("events.k8s.io", "events") => "",
        (group, _) => group,
    }
}
