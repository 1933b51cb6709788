//! Discovery documents: what groups, versions and resources there are, in the aggregated form (`apidiscovery.k8s.io`) and the old one.
//!
//! [`builtin`] is what the facts say; the caller adds what custom resources and API services bring with [`add`] and renders the sum. Nothing is cached here.

use std::cmp::{Ordering, Reverse};

use serde_json::{Map, Value, json};

use crate::facts::{Facts, ResourceFacts, Subresource};

/// A group, its versions in the order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub versions: Vec<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub version: String,
    pub resources: Vec<Resource>,
    /// Whether an API service behind this version has not answered lately.
    pub stale: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resource {
    pub name: String,
    pub singular: String,
    pub kind: ResponseKind,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Vec<String>,
    pub storage_version_hash: String,
    pub subresources: Vec<SubresourceInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubresourceInfo {
    pub name: String,
    pub kind: ResponseKind,
    pub verbs: Vec<String>,
}

/// A kind; group and version are empty where they are those of the resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// The form of the aggregated documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    V2,
    V2Beta1,
}

/// Everything that is built in, in upstream's order; the core group first.
pub fn builtin() -> Vec<Group> {
    let facts = Facts::builtin();
    let version = |group: &str, version: &str| Version {
        version: version.to_owned(),
        resources: facts.resources_in(group, version).map(Resource::from).collect(),
        stale: false,
    };
    let group =
        |name: &str, versions: &[&str]| Group { name: name.to_owned(), versions: versions.iter().map(|v| version(name, v)).collect() };
    facts.groups().iter().map(|g| group(g.name, &g.versions)).collect()
}

/// Adds a group, or its versions to one that is there already. New groups stand behind the built-in ones, by name; versions by preference.
pub fn add(groups: &mut Vec<Group>, group: Group) {
    let builtin = Facts::builtin().groups();
    match groups.iter_mut().find(|g| g.name == group.name) {
        Some(there) => {
            for version in group.versions {
                match there.versions.iter_mut().find(|v| v.version == version.version) {
                    Some(same) => same.resources.extend(version.resources),
                    None => there.versions.push(version),
                }
            }
            there.versions.iter_mut().for_each(|v| v.resources.sort_by(|a, b| a.name.cmp(&b.name)));
            there.versions.sort_by(|a, b| version_order(&a.version, &b.version));
        }
        None => {
            let is_builtin = |g: &Group| builtin.iter().any(|b| b.name == g.name);
            let at = groups.iter().position(|g| !is_builtin(g) && g.name > group.name).unwrap_or(groups.len());
            groups.insert(at, group);
        }
    }
}

/// The preferred version first: stable before beta before alpha, higher before lower, and what is no Kubernetes version last, by name.
pub fn version_order(a: &str, b: &str) -> Ordering {
    match (parse_version(a), parse_version(b)) {
        (Some(a), Some(b)) => Reverse(a).cmp(&Reverse(b)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major, minor of `v1`, `v2beta3`, `v1alpha1`.
fn parse_version(text: &str) -> Option<(u8, u64, u64)> {
    let rest = text.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, suffix) = rest.split_at(digits);
    let major = major.parse().ok()?;
    match suffix {
        "" => Some((2, major, 0)),
        _ => match (suffix.strip_prefix("beta"), suffix.strip_prefix("alpha")) {
            (Some(minor), _) => Some((1, major, minor.parse().ok()?)),
            (_, Some(minor)) => Some((0, major, minor.parse().ok()?)),
            _ => None,
        },
    }
}

/// The aggregated document of `/api` (the core group alone) or `/apis` (all others).
pub fn aggregated<'a>(groups: impl IntoIterator<Item = &'a Group>, core: bool, form: Form) -> Value {
    let api_version = match form {
        Form::V2 => "apidiscovery.k8s.io/v2",
        Form::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
    };
    let items: Vec<Value> = groups.into_iter().filter(|g| g.name.is_empty() == core).map(aggregated_group).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items})
}

fn aggregated_group(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|v| {
            let mut version = json!({"version": v.version, "freshness": if v.stale { "Stale" } else { "Current" }});
            if !v.resources.is_empty() {
                version["resources"] = v.resources.iter().map(aggregated_resource).collect();
            }
            version
        })
        .collect();
    let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut value = json!({
        "resource": resource.name,
        "responseKind": resource.kind.to_value(),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    for (field, list) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !list.is_empty() {
            value[field] = json!(list);
        }
    }
    if !resource.subresources.is_empty() {
        let of = |s: &SubresourceInfo| json!({"subresource": s.name, "responseKind": s.kind.to_value(), "verbs": s.verbs});
        value["subresources"] = resource.subresources.iter().map(of).collect();
    }
    value
}

impl ResponseKind {
    fn to_value(&self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }
}

/// `/api`: versions of the core group. `address` is the server's, as `host:port`.
pub fn legacy_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`: all groups but the core one.
pub fn legacy_groups<'a>(groups: impl IntoIterator<Item = &'a Group>) -> Value {
    let list: Vec<Value> = groups.into_iter().filter(|g| !g.name.is_empty()).map(group_fields).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

/// `/apis/<group>`.
pub fn legacy_group(group: &Group) -> Value {
    let mut value = group_fields(group);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    value
}

fn group_fields(group: &Group) -> Value {
    let version = |v: &Version| json!({"groupVersion": format!("{}/{}", group.name, v.version), "version": v.version});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let preferred = versions.first().cloned().unwrap_or_else(|| json!({}));
    json!({"name": group.name, "versions": versions, "preferredVersion": preferred})
}

/// `/api/v1` and `/apis/<group>/<version>`: resources and subresources in one list.
pub fn legacy_resources(group: &str, version: &Version) -> Value {
    let mut list = Vec::new();
    for resource in &version.resources {
        list.push(legacy_resource(resource));
        list.extend(resource.subresources.iter().map(|s| legacy_subresource(resource, s)));
    }
    let group_version = if group.is_empty() { version.version.clone() } else { format!("{group}/{}", version.version) };
    let mut document = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": list});
    // As upstream: the core group's document has no apiVersion.
    if !group.is_empty() {
        document["apiVersion"] = json!("v1");
    }
    document
}

fn legacy_resource(resource: &Resource) -> Value {
    let mut value = legacy_fields(&resource.name, &resource.singular, &resource.kind, resource.namespaced, &resource.verbs);
    for (field, list) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !list.is_empty() {
            value.insert(field.into(), json!(list));
        }
    }
    if !resource.storage_version_hash.is_empty() {
        value.insert("storageVersionHash".into(), json!(resource.storage_version_hash));
    }
    Value::Object(value)
}

fn legacy_subresource(resource: &Resource, subresource: &SubresourceInfo) -> Value {
    let name = format!("{}/{}", resource.name, subresource.name);
    Value::Object(legacy_fields(&name, "", &subresource.kind, resource.namespaced, &subresource.verbs))
}

fn legacy_fields(name: &str, singular: &str, kind: &ResponseKind, namespaced: bool, verbs: &[String]) -> Map<String, Value> {
    let mut value = Map::new();
    value.insert("name".into(), json!(name));
    value.insert("singularName".into(), json!(singular));
    value.insert("namespaced".into(), json!(namespaced));
    for (field, text) in [("group", &kind.group), ("version", &kind.version)] {
        if !text.is_empty() {
            value.insert(field.into(), json!(text));
        }
    }
    value.insert("kind".into(), json!(kind.kind));
    value.insert("verbs".into(), json!(verbs));
    value
}

impl From<&ResourceFacts> for Resource {
    fn from(facts: &ResourceFacts) -> Self {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let kind_of = |kind: &tiphys_meta::Gvk| {
            let own = kind.group == facts.gvr.group && kind.version == facts.gvr.version;
            let text = |s: &str| if own { String::new() } else { s.to_owned() };
            ResponseKind { group: text(&kind.group), version: text(&kind.version), kind: kind.kind.to_string() }
        };
        let subresource = |s: &Subresource| SubresourceInfo { name: s.name.to_owned(), kind: kind_of(&s.kind), verbs: owned(&s.verbs) };
        Resource {
            name: facts.gvr.resource.to_string(),
            singular: facts.singular.to_owned(),
            kind: kind_of(&facts.kind),
            namespaced: facts.namespaced,
            short_names: owned(&facts.short_names),
            categories: owned(&facts.categories),
            verbs: owned(&facts.verbs),
            storage_version_hash: facts.storage_version_hash.to_owned(),
            subresources: facts.subresources.iter().map(subresource).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_by_preference() {
        let mut versions = ["foo1", "v1alpha1", "v10", "v2", "v1beta2", "v11beta1", "v1", "v3beta1", "foo10"];
        versions.sort_by(|a, b| version_order(a, b));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta1", "v3beta1", "v1beta2", "v1alpha1", "foo1", "foo10"]);
    }

    #[test]
    fn groups_are_added_behind_and_merged() {
        let mut groups = builtin();
        let extra = |name: &str, version: &str| Group {
            name: name.into(),
            versions: vec![Version { version: version.into(), resources: Vec::new(), stale: false }],
        };
        for (name, version) in [("z.example.com", "v1"), ("a.example.com", "v1beta1"), ("a.example.com", "v1")] {
            add(&mut groups, extra(name, version));
        }
        let names: Vec<&str> = groups.iter().rev().take(2).map(|g| g.name.as_str()).collect();
        assert_eq!(names, ["z.example.com", "a.example.com"]);
        let versions: Vec<&str> = groups[groups.len() - 2].versions.iter().map(|v| v.version.as_str()).collect();
        assert_eq!(versions, ["v1", "v1beta1"]);
    }
}
