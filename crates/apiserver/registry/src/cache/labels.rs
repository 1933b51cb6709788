//! Which objects have which label, so that a list by label looks only at those. A label is indexed when a large cache is first listed by it,
//! and from then on: caches that nobody lists by label pay nothing, and a start decodes nothing for it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::storage::Entry;

/// Labels that are indexed at most: those that the first clients asked for. Lists by others look at every object.
const MOST: usize = 8;

/// Objects by the value of a label.
type Values = HashMap<Box<str>, BTreeMap<Bytes, Arc<Entry>>>;

/// Objects by label and value.
#[derive(Default)]
pub(super) struct Labels(HashMap<Box<str>, Values>);

fn value<'a>(entry: &'a Entry, label: &str) -> Option<&'a str> {
    entry.labels().find(|(name, _)| *name == label).map(|(_, value)| value)
}

fn add(values: &mut Values, value: &str, entry: &Arc<Entry>) {
    let (key, entry) = (entry.key().clone(), entry.clone());
    match values.get_mut(value) {
        Some(entries) => drop(entries.insert(key, entry)),
        None => drop(values.insert(value.into(), BTreeMap::from([(key, entry)]))),
    }
}

fn take(values: &mut Values, value: &str, entry: &Entry) {
    let Some(entries) = values.get_mut(value) else { return };
    entries.remove(entry.key());
    if entries.is_empty() {
        values.remove(value);
    }
}

impl Labels {
    pub(super) fn has(&self, label: &str) -> bool {
        self.0.contains_key(label)
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MOST
    }

    pub(super) fn index(&mut self, label: &str, entries: &BTreeMap<Bytes, Arc<Entry>>) {
        let mut values = Values::new();
        for entry in entries.values() {
            if let Some(value) = value(entry, label) {
                add(&mut values, value, entry);
            }
        }
        self.0.insert(label.into(), values);
    }

    /// An object was written over what it was before.
    pub(super) fn put(&mut self, previous: Option<&Entry>, entry: &Arc<Entry>) {
        for (label, values) in &mut self.0 {
            let now = value(entry, label);
            if let Some(previous) = previous
                && let before = value(previous, label)
                && before != now
            {
                before.into_iter().for_each(|before| take(values, before, previous));
            }
            now.into_iter().for_each(|now| add(values, now, entry));
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        for (label, values) in &mut self.0 {
            value(entry, label).into_iter().for_each(|value| take(values, value, entry));
        }
    }

    /// The same state of an object in another entry.
    pub(super) fn replace(&mut self, old: &Entry, same: &Arc<Entry>) {
        for (label, values) in &mut self.0 {
            value(old, label).into_iter().for_each(|value| add(values, value, same));
        }
    }

    /// Objects from `start` on whose keys begin with `prefix`, and whose label `name` is `value`.
    pub(super) fn under<'a>(&'a self, (name, value): (&str, &str), prefix: &'a [u8], start: &[u8]) -> impl Iterator<Item = &'a Arc<Entry>> {
        let entries = self.0.get(name).and_then(|values| values.get(value));
        let from = (Bound::Included(start.max(prefix)), Bound::Unbounded);
        let range = entries.map(|entries| entries.range::<[u8], _>(from));
        range.into_iter().flatten().take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_meta::Gvr;

    use crate::cache::{Cache, INDEXED_FROM};
    use crate::resource::Resources;
    use crate::storage::{Draft, Entry, Forms};

    /// Whatever was written and deleted before and after the index was made: it finds what a look at every object finds.
    #[test]
    fn the_index_finds_what_a_scan_finds() {
        let resources = Resources::builtin(&crate::Encryption::default(), Forms::new(usize::MAX));
        let (resource, _) = resources.find(&Gvr::new("", "v1", "configmaps")).expect("configmaps are kept");
        let cache = Cache::new(false);
        let mut revision = 0;
        let mut write = |cache: &Cache, i: usize, round: usize| {
            revision += 1;
            let namespace = if i.is_multiple_of(3) { "a" } else { "b" };
            let key = resource.key(namespace, &format!("c{i}"));
            if (i + round).is_multiple_of(7) {
                cache.delete(&key, revision);
                return;
            }
            let labels = if (i * round).is_multiple_of(5) { json!({}) } else { json!({"app": "x", "group": (i + round / 2) % 4}) };
            let labels: serde_json::Map<String, serde_json::Value> =
                labels.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), json!(v.to_string()))).collect();
            let tree = json!({"metadata": {"name": format!("c{i}"), "namespace": namespace, "labels": labels}});
            let draft = Draft::new(&resource.shape, key, tree).expect("it can be encoded");
            cache.put(draft.entry(revision));
            if i.is_multiple_of(50) {
                cache.trim(|| false);
            }
        };
        for round in 1..6 {
            (0..2 * INDEXED_FROM).for_each(|i| write(&cache, i, round));
            for group in ["0", "1", "2", "3", "none"] {
                for prefix in [resource.prefix_of(""), resource.prefix_of("a"), resource.prefix_of("b")] {
                    let start = resource.key("b", "c2");
                    for start in [&prefix, &start] {
                        let has = |entry: &Entry| entry.labels().any(|l| l == ("group", group));
                        let scanned: Vec<_> =
                            cache.list(&prefix, start).0.into_iter().filter(|e| has(e)).map(|e| e.key().clone()).collect();
                        let found: Vec<_> =
                            cache.list_labelled(&prefix, start, ("group", group)).0.iter().map(|e| e.key().clone()).collect();
                        assert_eq!(found, scanned, "round {round}, group {group}");
                        let newest = |e: &Entry| cache.get(e.key()).is_some_and(|kept| kept.revision() == e.revision());
                        assert!(cache.list_labelled(&prefix, start, ("group", group)).0.iter().all(|e| newest(e)), "round {round}");
                    }
                }
            }
        }
    }
}
