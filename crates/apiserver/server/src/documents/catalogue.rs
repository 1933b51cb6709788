//! What is served, as discovery shows it: the built-in groups, those of custom resources and those that other servers answer for.
//!
//! Whoever brings groups sets all of them at once under a source of its own ([`Catalogue::set`]); what a client reads is made anew then, and
//! handed out as it is until the next change.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tiphys_schema::discovery::{self, Form, Group, Version};

use super::etag_of;

/// Who brings groups that are not built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// CustomResourceDefinitions.
    Custom,
    /// APIServices behind which another server stands.
    Remote,
}

/// A version of a group, with the priorities that its APIService has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extra {
    pub(crate) group: String,
    pub(crate) version: Version,
    pub(crate) group_priority: i64,
    pub(crate) version_priority: i64,
}

impl Extra {
    /// The priorities that all custom resources have upstream.
    fn custom(group: &str, version: Version) -> Self {
        Extra { group: group.to_owned(), version, group_priority: 1000, version_priority: 100 }
    }

    /// The versions of groups of custom resources, each with all its resources.
    pub(crate) fn all_custom(groups: Vec<Group>) -> Vec<Extra> {
        let mut all: BTreeMap<(String, String), Version> = BTreeMap::new();
        for Group { name, versions } in groups {
            for version in versions {
                let key = (name.clone(), version.version.clone());
                match all.get_mut(&key) {
                    Some(same) => same.resources.extend(version.resources),
                    None => drop(all.insert(key, version)),
                }
            }
        }
        let sorted = |mut version: Version| {
            version.resources.sort_by(|a, b| a.name.cmp(&b.name));
            version
        };
        all.into_iter().map(|((group, _), version)| Extra::custom(&group, sorted(version))).collect()
    }
}

/// An aggregated document with its tag.
pub(crate) struct Aggregated {
    pub(crate) body: bytes::Bytes,
    pub(crate) etag: String,
}

/// All groups at one time.
pub(crate) struct Shown {
    pub(crate) groups: Vec<Group>,
    core: OnceLock<Aggregated>,
    others: OnceLock<Aggregated>,
}

impl Shown {
    fn new(groups: Vec<Group>) -> Self {
        Shown { groups, core: OnceLock::new(), others: OnceLock::new() }
    }

    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == name)
    }

    pub(crate) fn aggregated(&self, core: bool) -> &Aggregated {
        let kept = if core { &self.core } else { &self.others };
        kept.get_or_init(|| {
            let body: bytes::Bytes = discovery::aggregated(&self.groups, core, Form::V2).to_string().into();
            Aggregated { etag: etag_of(&body), body }
        })
    }
}

pub struct Catalogue {
    extras: Mutex<BTreeMap<Source, Vec<Extra>>>,
    shown: ArcSwap<Shown>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Catalogue { extras: Mutex::default(), shown: ArcSwap::from_pointee(Shown::new(discovery::builtin())) }
    }
}

impl Catalogue {
    /// Replaces everything that the source brought before.
    pub(crate) fn set(&self, source: Source, extras: Vec<Extra>) {
        let mut all = self.extras.lock();
        if all.get(&source).is_some_and(|old| *old == extras) {
            return;
        }
        all.insert(source, extras);
        self.shown.store(Arc::new(Shown::new(compose(all.values().flatten()))));
    }

    pub(crate) fn shown(&self) -> Arc<Shown> {
        self.shown.load_full()
    }
}

/// The built-in groups with the others among them by their priority, as upstream's aggregator sorts them.
fn compose<'a>(extras: impl Iterator<Item = &'a Extra>) -> Vec<Group> {
    let mut groups = discovery::builtin();
    let mut priorities: Vec<i64> = groups.iter().map(|g| super::priorities::of_group(&g.name)).collect();
    let mut by_group: BTreeMap<&str, Vec<&Extra>> = BTreeMap::new();
    extras.for_each(|extra| by_group.entry(&extra.group).or_default().push(extra));
    for (name, mut versions) in by_group {
        versions.sort_by(|a, b| {
            let by_priority = Reverse(a.version_priority).cmp(&Reverse(b.version_priority));
            by_priority.then_with(|| discovery::version_order(&a.version.version, &b.version.version))
        });
        // Two sources may bring one version: the later one in the order of sources is who answers for it.
        let mut kept: Vec<Version> = Vec::new();
        for extra in &versions {
            match kept.iter_mut().find(|v| v.version == extra.version.version) {
                Some(same) => *same = extra.version.clone(),
                None => kept.push(extra.version.clone()),
            }
        }
        if let Some(there) = groups.iter_mut().find(|g| g.name == name) {
            // Who registers a built-in version answers for it: metrics-server for `metrics.k8s.io`.
            there.versions.retain(|v| !kept.iter().any(|k| k.version == v.version));
            discovery::add(&mut groups, Group { name: name.to_owned(), versions: kept });
            continue;
        }
        let priority = versions.iter().map(|e| e.group_priority).max().unwrap_or(0);
        let behind = |i: usize, g: &Group| priorities[i] < priority || (priorities[i] == priority && g.name.as_str() > name);
        let at = groups.iter().enumerate().position(|(i, g)| behind(i, g)).unwrap_or(groups.len());
        groups.insert(at, Group { name: name.to_owned(), versions: kept });
        priorities.insert(at, priority);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extra(group: &str, version: &str, group_priority: i64, version_priority: i64) -> Extra {
        let version = Version { version: version.into(), resources: Vec::new(), stale: false };
        Extra { group: group.into(), version, group_priority, version_priority }
    }

    #[test]
    fn groups_stand_by_their_priority() {
        let catalogue = Catalogue::default();
        // Behind these stands `metrics.k8s.io` alone.
        let before = catalogue.shown().groups.len() - 1;
        let custom = [
            extra("b.example.com", "v1beta1", 1000, 100),
            extra("b.example.com", "v1", 1000, 100),
            extra("a.example.com", "v1", 1000, 100),
        ];
        catalogue.set(Source::Custom, custom.to_vec());
        catalogue.set(Source::Remote, vec![extra("wardle.example.com", "v1alpha1", 2000, 200)]);
        let shown = catalogue.shown();
        let names: Vec<&str> = shown.groups[before..].iter().map(|g| g.name.as_str()).collect();
        assert_eq!(names, ["wardle.example.com", "a.example.com", "b.example.com", "metrics.k8s.io"]);
        let versions: Vec<&str> = shown.groups[before + 2].versions.iter().map(|v| v.version.as_str()).collect();
        assert_eq!(versions, ["v1", "v1beta1"]);
        let tag = shown.aggregated(false).etag.clone();
        catalogue.set(Source::Remote, vec![]);
        assert_ne!(catalogue.shown().aggregated(false).etag, tag);
        assert!(catalogue.shown().group("wardle.example.com").is_none());
    }

    #[test]
    fn who_registers_a_built_in_version_answers_for_it() {
        let catalogue = Catalogue::default();
        let resources =
            || catalogue.shown().group("metrics.k8s.io").map(|g| g.versions.iter().map(|v| v.resources.len()).collect::<Vec<_>>());
        assert_eq!(resources(), Some(vec![2]));
        catalogue.set(Source::Remote, vec![extra("metrics.k8s.io", "v1beta1", 100, 100)]);
        assert_eq!(resources(), Some(vec![0]));
        catalogue.set(Source::Remote, vec![]);
        assert_eq!(resources(), Some(vec![2]));
    }
}
