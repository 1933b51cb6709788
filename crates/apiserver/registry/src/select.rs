//! What a list or watch is about: a part of the keys, labels, fields.

use bytes::Bytes;
use tiphys_meta::selector::Operator;
use tiphys_meta::{ApiError, FieldSelector, LabelSelector};

use crate::cache::Scope;
use crate::options::ListOptions;
use crate::resource::{Resource, Served};
use crate::storage::Entry;

pub(crate) struct Selection {
    /// The keys in question begin with this, or are this one.
    pub(crate) prefix: Bytes,
    pub(crate) scope: Scope,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(crate) fn new(
        resource: &Resource,
        served: &Served,
        namespace: &str,
        name: &str,
        options: &ListOptions,
    ) -> Result<Selection, ApiError> {
        let unreadable = |e: &dyn std::fmt::Display| ApiError::bad_request(e.to_string());
        let labels = LabelSelector::parse(&options.label_selector).map_err(|e| unreadable(&e))?;
        let mut fields = FieldSelector::parse(&options.field_selector).map_err(|e| unreadable(&e))?;
        for term in &mut fields.terms {
            served.field_label(resource, &mut term.field)?;
        }
        if !name.is_empty() {
            if fields.is_everything() {
                fields = FieldSelector::equal("metadata.name", name);
            } else if fields.exact("metadata.name") != Some(name) {
                return Err(ApiError::bad_request("fieldSelector metadata.name doesn't match requested name"));
            }
        }
        let (prefix, scope) = scope(resource, namespace, &fields);
        Ok(Selection { prefix, scope, labels, fields })
    }

    /// Nothing is selected on but the place of the keys.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// A label that everything selected has.
    pub(crate) fn label(&self) -> Option<(&str, &str)> {
        let LabelSelector::Requirements(all) = &self.labels else { return None };
        let one = all.iter().filter(|r| matches!(r.operator, Operator::Equals | Operator::DoubleEquals | Operator::In));
        one.filter_map(|r| if let [value] = &r.values[..] { Some((r.key.as_str(), value.as_str())) } else { None }).next()
    }

    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        if !entry.key().starts_with(&self.prefix) || matches!(&self.scope, Scope::One(key) if key != entry.key()) {
            return false;
        }
        self.is_everything() || (self.match_fields(entry) && self.match_labels(entry))
    }

    fn match_fields(&self, entry: &Entry) -> bool {
        self.fields.matches(|field| match field {
            "metadata.name" => Some(entry.name()),
            "metadata.namespace" => Some(entry.namespace()),
            other => entry.field(other),
        })
    }

    fn match_labels(&self, entry: &Entry) -> bool {
        self.labels.is_everything() || self.labels.matches(|key| entry.labels().find(|(k, _)| *k == key).map(|(_, v)| v))
    }
}

/// The narrowest part of the keys that holds everything selected.
fn scope(resource: &Resource, namespace: &str, fields: &FieldSelector) -> (Bytes, Scope) {
    let namespace = if namespace.is_empty() && resource.namespaced { fields.exact("metadata.namespace").unwrap_or("") } else { namespace };
    let prefix = resource.prefix_of(namespace);
    if let Some(name) = fields.exact("metadata.name")
        && !(resource.namespaced && namespace.is_empty())
        && !name.is_empty()
    {
        let key = resource.key(namespace, name);
        return (key.clone(), Scope::One(key));
    }
    if namespace.is_empty()
        && let Some(node) = fields.exact("spec.nodeName")
    {
        return (prefix, Scope::Node(node.into()));
    }
    let scope = if namespace.is_empty() { Scope::All } else { Scope::Under(prefix.clone()) };
    (prefix, scope)
}
