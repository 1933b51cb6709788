//! Between the version that is stored and the others that are served. Most differ in nothing but their name.
//!
//! Deliberately absent: custom resources' conversion, which comes with them.

mod autoscaling;
mod events;

use serde_json::Value;
use tiphys_meta::Gvr;

/// How a served version comes from the stored one.
#[derive(Clone, Copy)]
pub(crate) enum Conversion {
    /// It is the stored version.
    Same,
    /// Only `apiVersion` differs.
    Renamed,
    Pair {
        to_stored: fn(&mut Value),
        to_served: fn(&mut Value),
        field_label: fn(&str) -> Option<&'static str>,
    },
}

impl Conversion {
    pub(crate) fn between(stored: &Gvr, served: &Gvr) -> Conversion {
        match (&*served.group, &*served.version, &*served.resource) {
            _ if stored == served => Conversion::Same,
            ("events.k8s.io", _, "events") => {
                Conversion::Pair { to_stored: events::to_core, to_served: events::from_core, field_label: events::field_label }
            }
            ("autoscaling", "v1", "horizontalpodautoscalers") => {
                Conversion::Pair { to_stored: autoscaling::v1_to_v2, to_served: autoscaling::v2_to_v1, field_label: |_| None }
            }
            _ => Conversion::Renamed,
        }
    }

    pub(crate) fn to_stored(self, tree: &mut Value) {
        if let Conversion::Pair { to_stored, .. } = self {
            to_stored(tree);
        }
    }

    pub(crate) fn to_served(self, tree: &mut Value) {
        if let Conversion::Pair { to_served, .. } = self {
            to_served(tree);
        }
    }

    pub(crate) fn field_label(self, label: &str) -> Option<&'static str> {
        match self {
            Conversion::Pair { field_label, .. } => field_label(label),
            _ => None,
        }
    }
}

/// Renames fields of a map.
fn rename(tree: &mut Value, pairs: impl IntoIterator<Item = (&'static str, &'static str)>) {
    let Some(map) = tree.as_object_mut() else { return };
    let moved: Vec<(&str, Value)> = pairs.into_iter().filter_map(|(from, to)| map.remove(from).map(|v| (to, v))).collect();
    moved.into_iter().for_each(|(to, value)| {
        map.insert(to.to_owned(), value);
    });
}
