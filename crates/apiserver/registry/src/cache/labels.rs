//! Which objects have which label, so that a list by label looks only at those. Made when a large cache is first listed so, kept from then on:
//! caches that nobody lists by label pay nothing, and a start decodes nothing for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::storage::Entry;

/// Keys of objects by label and value.
pub(super) struct Labels(HashMap<Box<str>, HashMap<Box<str>, BTreeSet<Bytes>>>);

impl Labels {
    pub(super) fn of(entries: &BTreeMap<Bytes, Arc<Entry>>) -> Labels {
        let mut labels = Labels(HashMap::new());
        entries.values().for_each(|entry| labels.add(entry));
        labels
    }

    /// An object was written over what it was before.
    pub(super) fn put(&mut self, previous: Option<&Entry>, entry: &Entry) {
        if let Some(previous) = previous {
            // Most writes leave the labels alone.
            if previous.labels().eq(entry.labels()) {
                return;
            }
            self.remove(previous);
        }
        self.add(entry);
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        for (name, value) in entry.labels() {
            let Some(values) = self.0.get_mut(name) else { continue };
            let Some(keys) = values.get_mut(value) else { continue };
            keys.remove(entry.key());
            if keys.is_empty() {
                values.remove(value);
            }
            if values.is_empty() {
                self.0.remove(name);
            }
        }
    }

    fn add(&mut self, entry: &Entry) {
        for (name, value) in entry.labels() {
            if !self.0.contains_key(name) {
                self.0.insert(name.into(), HashMap::new());
            }
            let Some(values) = self.0.get_mut(name) else { continue };
            match values.get_mut(value) {
                Some(keys) => drop(keys.insert(entry.key().clone())),
                None => drop(values.insert(value.into(), BTreeSet::from([entry.key().clone()]))),
            }
        }
    }

    /// Keys from `start` on that begin with `prefix`, of objects whose label `name` is `value`.
    pub(super) fn under<'a>(&'a self, (name, value): (&str, &str), prefix: &'a [u8], start: &[u8]) -> impl Iterator<Item = &'a Bytes> {
        let keys = self.0.get(name).and_then(|values| values.get(value));
        let from = Bound::Included(start.max(prefix)).map(Bytes::copy_from_slice);
        let range = keys.map(|keys| keys.range((from, Bound::Unbounded)));
        range.into_iter().flatten().take_while(move |key| key.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tiphys_meta::Gvr;

    use crate::cache::{Cache, INDEXED_FROM};
    use crate::resource::Resources;
    use crate::storage::Draft;

    /// Whatever was written and deleted before and after the index was made: it finds what a look at every object finds.
    #[test]
    fn the_index_finds_what_a_scan_finds() {
        let resources = Resources::builtin(&crate::Encryption::default());
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
        };
        for round in 1..6 {
            (0..2 * INDEXED_FROM).for_each(|i| write(&cache, i, round));
            for group in ["0", "1", "2", "3", "none"] {
                for prefix in [resource.prefix_of(""), resource.prefix_of("a"), resource.prefix_of("b")] {
                    let start = resource.key("b", "c2");
                    for start in [&prefix, &start] {
                        let has = |entry: &crate::storage::Entry| entry.labels().any(|l| l == ("group", group));
                        let scanned: Vec<_> =
                            cache.list(&prefix, start).0.into_iter().filter(|e| has(e)).map(|e| e.key().clone()).collect();
                        let found: Vec<_> =
                            cache.list_labelled(&prefix, start, ("group", group)).0.iter().map(|e| e.key().clone()).collect();
                        assert_eq!(found, scanned, "round {round}, group {group}");
                    }
                }
            }
        }
    }
}
