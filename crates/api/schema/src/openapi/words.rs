//! What the fields that all objects have are for, so that `kubectl explain` can tell of custom resources, too. Our own words.

use serde_json::{Value, json};

pub(super) const API_VERSION: &str = "APIVersion defines the group and version of the API that this object is written in.";
pub(super) const KIND: &str = "Kind is the type of this object, as its group and version name it.";
pub(super) const METADATA: &str = "Standard object's metadata: its name, its labels, who owns it, and what the server notes about it.";
pub(super) const LIST_METADATA: &str = "Standard list metadata: the revision that the list shows, and how to go on with it.";
pub(super) const ITEMS: &str = "The objects of the list.";

const OBJECT_META: [(&str, &str); 15] = [
    ("annotations", "Annotations are free texts by name, for tools and people. Nothing can be selected by them."),
    ("creationTimestamp", "CreationTimestamp is a timestamp of the server: when the object was made. It cannot be set."),
    ("deletionGracePeriodSeconds", "How many seconds the object has to end by itself. Set only together with deletionTimestamp."),
    (
        "deletionTimestamp",
        "When the object goes, at the latest. Set by the server when a deletion was asked for; finalizers may hold the object longer.",
    ),
    ("finalizers", "Who has something to do before the object may go. The object goes when the list is empty."),
    ("generateName", "The beginning of a name that the server completes, where no name is given."),
    ("generation", "A number that grows whenever the wanted state changes."),
    ("labels", "Labels are names with values by which objects are organized and selected."),
    ("managedFields", "Which fields were last written by whom. The server keeps it, for server-side apply."),
    ("name", "The name, which no other object of the kind has in the same namespace. It cannot be changed."),
    ("namespace", "The space in which the name is unique. Empty for objects of the whole cluster. It cannot be changed."),
    ("ownerReferences", "The objects that this one belongs to. When all of them are gone, this one is deleted."),
    ("resourceVersion", "The revision of the object, opaque to clients: a write that names an older one is refused."),
    ("selfLink", "Not used any more."),
    ("uid", "What tells this object from all others, at any time. Given by the server."),
];

/// Adds the descriptions of a type's fields, where there are any.
pub(super) fn describe(name: &str, schema: &mut Value) {
    if name != "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" {
        return;
    }
    for (field, words) in OBJECT_META {
        if let Some(property) = schema["properties"].get_mut(field) {
            property["description"] = json!(words);
        }
    }
}
