//! What discovery and OpenAPI say of custom resources whose definitions are established.

use tiphys_schema::discovery::{Group, Resource, ResponseKind, SubresourceInfo, Version};
use tiphys_schema::openapi;

use super::{Definition, Extensions, definition};

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// Of a definition that goes, objects are neither made nor changed.
const TERMINATING: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];
const SUBRESOURCE: [&str; 3] = ["get", "patch", "update"];

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

impl Extensions {
    fn established(&self) -> impl Iterator<Item = &Definition> {
        self.all().iter().filter_map(|r| r.definition()).filter(|d| d.is_established())
    }

    /// A group for each version of each definition: the caller merges them (`discovery::add`).
    pub fn groups(&self) -> Vec<Group> {
        let served = self.established().flat_map(|d| d.versions.iter().filter(|v| v.served).map(move |v| (d, v)));
        let version =
            |d, v: &definition::Version| Version { version: v.gvr.version.to_string(), resources: vec![discovered(d, v)], stale: false };
        served.map(|(d, v)| Group { name: d.group.clone(), versions: vec![version(d, v)] }).collect()
    }

    pub fn openapi(&self) -> Vec<openapi::Custom> {
        let served = self.established().flat_map(|d| d.versions.iter().filter(|v| v.served).map(move |v| (d, v)));
        served.map(|(d, v)| published(d, v)).collect()
    }
}

fn discovered(definition: &Definition, version: &definition::Version) -> Resource {
    let names = &definition.names;
    let own = ResponseKind { group: String::new(), version: String::new(), kind: names.kind.clone() };
    let mut subresources = Vec::new();
    if version.status {
        subresources.push(SubresourceInfo { name: "status".into(), kind: own.clone(), verbs: owned(&SUBRESOURCE) });
    }
    if version.scale.is_some() {
        let kind = ResponseKind { group: "autoscaling".into(), version: "v1".into(), kind: "Scale".into() };
        subresources.push(SubresourceInfo { name: "scale".into(), kind, verbs: owned(&SUBRESOURCE) });
    }
    Resource {
        name: names.plural.clone(),
        singular: names.singular.clone(),
        kind: own,
        namespaced: definition.namespaced,
        short_names: names.short_names.clone(),
        categories: names.categories.clone(),
        verbs: owned(if definition.is_terminating() { &TERMINATING } else { &VERBS }),
        storage_version_hash: storage_version_hash(definition),
        subresources,
    }
}

/// The first eight bytes of SHA-256 of group, version and kind, in base64.
fn storage_version_hash(definition: &Definition) -> String {
    use base64::Engine as _;
    let gvk = &definition.stored().gvk;
    let text = format!("{}/{}/{}", gvk.group, gvk.version, gvk.kind);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest.as_ref().get(..8).unwrap_or_default())
}

fn published(definition: &Definition, version: &definition::Version) -> openapi::Custom {
    openapi::Custom {
        group: definition.group.clone(),
        version: version.gvr.version.to_string(),
        plural: definition.names.plural.clone(),
        kind: definition.names.kind.clone(),
        list_kind: definition.names.list_kind.clone(),
        namespaced: definition.namespaced,
        status: version.status,
        scale: version.scale.is_some(),
        schema: Some(version.schema.clone()),
    }
}
