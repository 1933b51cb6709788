//! The multi-version index: every key with its history since the last compaction, all in memory.
//!
//! It knows nothing of disks or visibility: the writer applies ahead of what readers may see, and readers name the revision they read at.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use crate::types::{Event, EventKind, KeyRange, KeyValue, LeaseId, Revision};

/// One state of a key. `version` 0 is a tombstone.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) value: Bytes,
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    pub(crate) version: i64,
    pub(crate) lease: LeaseId,
}

impl Version {
    fn tombstone(revision: Revision) -> Self {
        Version { value: Bytes::new(), create_revision: 0, mod_revision: revision, version: 0, lease: 0 }
    }

    fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    pub(crate) fn pair(&self, key: &Bytes) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// The newest version stands apart, since most keys have only that one.
#[derive(Debug)]
struct History {
    latest: Version,
    older: Vec<Version>,
}

impl History {
    fn position_at(&self, revision: Revision) -> usize {
        self.older.partition_point(|version| version.mod_revision <= revision)
    }

    /// The newest version not after `revision`, tombstones included.
    fn at_or_tombstone(&self, revision: Revision) -> Option<&Version> {
        if self.latest.mod_revision <= revision {
            return Some(&self.latest);
        }
        self.position_at(revision).checked_sub(1).map(|at| &self.older[at])
    }

    fn supersede(&mut self, latest: Version) {
        if self.older.is_empty() {
            // Most keys that change at all change once before they are compacted; a vector would make room for four.
            self.older.reserve_exact(1);
        }
        self.older.push(std::mem::replace(&mut self.latest, latest));
    }

    fn at(&self, revision: Revision) -> Option<&Version> {
        self.at_or_tombstone(revision).filter(|version| !version.is_tombstone())
    }

    /// Drops what no reader at `revision` or later can see; true when nothing is left.
    fn compact(&mut self, revision: Revision) -> bool {
        if self.latest.mod_revision <= revision {
            self.older = Vec::new();
            return self.latest.is_tombstone();
        }
        let keep_from = self.position_at(revision).saturating_sub(1);
        self.older.drain(..keep_from);
        if self.older.first().is_some_and(|oldest| oldest.is_tombstone() && oldest.mod_revision <= revision) {
            self.older.remove(0);
        }
        self.older.shrink_to_fit();
        false
    }
}

/// What a put did: the pair as it is now and as it was.
pub(crate) struct Change {
    pub(crate) kv: KeyValue,
    pub(crate) prev: Option<KeyValue>,
}

/// What a scan is after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan {
    pub(crate) revision: Revision,
    /// Pairs to collect at most.
    pub(crate) limit: usize,
    pub(crate) keys_only: bool,
    /// Keys to visit at most before the scan is handed back, so that no lock is held for long.
    pub(crate) budget: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) kvs: Vec<KeyValue>,
    pub(crate) count: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: BTreeMap<Bytes, History>,
    /// Every change since the last compaction, by revision: what watchers replay and what compaction has to visit.
    changes: VecDeque<(Revision, Bytes)>,
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// None when nothing can be in between, for which the map would panic.
fn bounds<'a>(range: &'a KeyRange, after: Option<&'a [u8]>) -> Option<Bounds<'a>> {
    let start = match after {
        Some(key) => Bound::Excluded(key),
        None => Bound::Included(&range.start[..]),
    };
    let from = after.unwrap_or(&range.start);
    match &range.end[..] {
        [] if after.is_some() => None,
        [] => Some((start, Bound::Included(&range.start[..]))),
        [0] => Some((start, Bound::Unbounded)),
        end if from < end => Some((start, Bound::Excluded(end))),
        _ => None,
    }
}

impl Index {
    /// The key's state at `revision`.
    pub(crate) fn at(&self, key: &[u8], revision: Revision) -> Option<&Version> {
        self.keys.get(key)?.at(revision)
    }

    /// The keys of `range` that live now.
    pub(crate) fn live_keys(&self, range: &KeyRange) -> Vec<Bytes> {
        let Some(bounds) = bounds(range, None) else { return Vec::new() };
        self.keys.range::<[u8], _>(bounds).filter(|(_, history)| !history.latest.is_tombstone()).map(|(key, _)| key.clone()).collect()
    }

    /// Collects pairs of `range` after the key `after`; answers with the key to go on after when the budget ran out.
    pub(crate) fn scan(&self, range: &KeyRange, after: Option<&[u8]>, scan: Scan, into: &mut Scanned) -> Option<Bytes> {
        let mut budget = scan.budget;
        for (key, history) in self.keys.range::<[u8], _>(bounds(range, after)?) {
            if let Some(version) = history.at(scan.revision) {
                into.count += 1;
                if into.kvs.len() < scan.limit {
                    let mut pair = version.pair(key);
                    if scan.keys_only {
                        pair.value = Bytes::new();
                    }
                    into.kvs.push(pair);
                }
            }
            budget -= 1;
            if budget == 0 {
                return Some(key.clone());
            }
        }
        None
    }

    /// Puts at `revision`. Key and value are kept as they are: slices of a larger buffer would keep all of it alive.
    pub(crate) fn put(&mut self, revision: Revision, key: Bytes, value: Bytes, lease: LeaseId) -> Change {
        let mut fresh = Version { value, create_revision: revision, mod_revision: revision, version: 1, lease };
        let key = self.keys.get_key_value(&key).map(|(known, _)| known.clone()).unwrap_or(key);
        self.changes.push_back((revision, key.clone()));
        let Some(history) = self.keys.get_mut(&key) else {
            let kv = fresh.pair(&key);
            self.keys.insert(key, History { latest: fresh, older: Vec::new() });
            return Change { kv, prev: None };
        };
        if !history.latest.is_tombstone() {
            fresh.create_revision = history.latest.create_revision;
            fresh.version = history.latest.version + 1;
        }
        let kv = fresh.pair(&key);
        let prev = (!history.latest.is_tombstone()).then(|| history.latest.pair(&key));
        history.supersede(fresh);
        Change { kv, prev }
    }

    /// Deletes at `revision`; answers with the pair that was there.
    pub(crate) fn delete(&mut self, revision: Revision, key: &[u8]) -> Option<KeyValue> {
        let (key, _) = self.keys.get_key_value(key)?;
        let key = key.clone();
        let history = self.keys.get_mut(&key)?;
        if history.latest.is_tombstone() {
            return None;
        }
        let prev = history.latest.pair(&key);
        history.supersede(Version::tombstone(revision));
        self.changes.push_back((revision, key));
        Some(prev)
    }

    /// The events of `range` from revision `from` to `until`, in whole revisions, stopping after about `budget` changes;
    /// answers with the last revision that was covered.
    pub(crate) fn events(&self, range: &KeyRange, from: Revision, until: Revision, budget: usize) -> (Vec<Event>, Revision) {
        let first = self.changes.partition_point(|(revision, _)| *revision < from);
        let mut events = Vec::new();
        let mut last = from;
        for (visited, (revision, key)) in self.changes.range(first..).enumerate() {
            if *revision > until {
                break;
            }
            if visited >= budget && *revision != last {
                return (events, last);
            }
            last = *revision;
            if range.contains(key) {
                events.extend(self.event(*revision, key));
            }
        }
        (events, until)
    }

    fn event(&self, revision: Revision, key: &Bytes) -> Option<Event> {
        let history = self.keys.get(key)?;
        let version = history.at_or_tombstone(revision).filter(|version| version.mod_revision == revision)?;
        let prev = history.at(revision - 1).map(|version| version.pair(key));
        let kind = if version.is_tombstone() { EventKind::Delete } else { EventKind::Put };
        Some(Event { kind, kv: version.pair(key), prev })
    }

    /// Drops the history of up to `budget` changes not after `revision`; true when there is more to do.
    pub(crate) fn compact(&mut self, revision: Revision, budget: usize) -> bool {
        for _ in 0..budget {
            match self.changes.front() {
                Some((changed, _)) if *changed <= revision => {}
                _ => return false,
            }
            let Some((_, key)) = self.changes.pop_front() else { return false };
            if self.keys.get_mut(&key).is_some_and(|history| history.compact(revision)) {
                self.keys.remove(&key);
            }
        }
        true
    }

    pub(crate) fn trim(&mut self) {
        self.changes.shrink_to_fit();
    }

    /// Takes the pairs of a snapshot, which come in order, as the whole content.
    pub(crate) fn load(pairs: Vec<(Bytes, Version)>) -> Self {
        let keys = pairs.into_iter().map(|(key, latest)| (key, History { latest, older: Vec::new() })).collect();
        Index { keys, changes: VecDeque::new() }
    }

    /// All live pairs with a lease; for rebuilding the lease table.
    pub(crate) fn leased(&self) -> impl Iterator<Item = (LeaseId, &Bytes)> {
        self.keys.iter().filter(|(_, history)| history.latest.lease != 0).map(|(key, history)| (history.latest.lease, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: &mut Index, revision: Revision, key: &[u8], value: &[u8]) {
        index.put(revision, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value), 0);
    }

    fn all() -> KeyRange {
        KeyRange::prefix("")
    }

    fn names(index: &Index, range: &KeyRange, revision: Revision) -> Vec<String> {
        let mut found = Scanned::default();
        let scan = Scan { revision, limit: usize::MAX, keys_only: false, budget: usize::MAX };
        assert!(index.scan(range, None, scan, &mut found).is_none());
        found.kvs.iter().map(|kv| format!("{}={}", String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(&kv.value))).collect()
    }

    #[test]
    fn each_revision_reads_as_it_was() {
        let mut index = Index::default();
        put(&mut index, 2, b"a", b"1");
        put(&mut index, 3, b"b", b"1");
        put(&mut index, 4, b"a", b"2");
        index.delete(5, b"a");
        put(&mut index, 6, b"a", b"3");
        let expected: [(Revision, &[&str]); 6] =
            [(1, &[]), (2, &["a=1"]), (3, &["a=1", "b=1"]), (4, &["a=2", "b=1"]), (5, &["b=1"]), (6, &["a=3", "b=1"])];
        for (revision, content) in expected {
            assert_eq!(names(&index, &all(), revision), content, "at {revision}");
        }
        assert_eq!(index.at(b"a", 6).map(|version| (version.create_revision, version.version)), Some((6, 1)));
        assert_eq!(index.at(b"a", 4).map(|version| (version.create_revision, version.version)), Some((2, 2)));
    }

    #[test]
    fn compaction_keeps_what_can_still_be_read() {
        for compacted in 2..=7 {
            let mut index = Index::default();
            put(&mut index, 2, b"a", b"1");
            put(&mut index, 3, b"b", b"1");
            put(&mut index, 4, b"a", b"2");
            index.delete(5, b"a");
            put(&mut index, 6, b"a", b"3");
            index.delete(7, b"b");
            let before: Vec<_> = (compacted..=7).map(|revision| names(&index, &all(), revision)).collect();
            while index.compact(compacted, 1) {}
            let after: Vec<_> = (compacted..=7).map(|revision| names(&index, &all(), revision)).collect();
            assert_eq!(before, after, "compacted at {compacted}");
        }
    }

    #[test]
    fn a_compacted_tombstone_leaves_nothing() {
        let mut index = Index::default();
        put(&mut index, 2, b"a", b"1");
        index.delete(3, b"a");
        while index.compact(3, 100) {}
        assert!(index.keys.is_empty() && index.changes.is_empty());
    }

    #[test]
    fn events_carry_the_previous_pair_and_stop_between_revisions() {
        let mut index = Index::default();
        put(&mut index, 2, b"a", b"1");
        put(&mut index, 2, b"b", b"1");
        put(&mut index, 3, b"a", b"2");
        index.delete(4, b"a");
        let (events, reached) = index.events(&all(), 2, 4, 1);
        assert_eq!((events.len(), reached), (2, 2));
        let (events, reached) = index.events(&all(), 3, 4, 100);
        assert_eq!(reached, 4);
        assert_eq!(events[0].prev.as_ref().map(|kv| &kv.value[..]), Some(&b"1"[..]));
        assert_eq!((events[1].kind, events[1].kv.mod_revision), (EventKind::Delete, 4));
        assert_eq!(events[1].prev.as_ref().map(|kv| &kv.value[..]), Some(&b"2"[..]));
    }

    #[test]
    fn ranges_have_etcds_bounds() {
        let mut index = Index::default();
        for key in ["a", "b", "b/1", "b0", "c"] {
            put(&mut index, 2, key.as_bytes(), b"");
        }
        let cases: [(&str, &[u8], &[&str]); 5] = [
            ("b", b"", &["b="]),
            ("b", b"c", &["b=", "b/1=", "b0="]),
            ("b/", b"b0", &["b/1="]),
            ("b0", &[0], &["b0=", "c="]),
            ("c", b"a", &[]),
        ];
        for (start, end, expected) in cases {
            let range = KeyRange { start: start.into(), end: Bytes::copy_from_slice(end) };
            assert_eq!(names(&index, &range, 2), expected, "{range:?}");
        }
        assert_eq!(names(&index, &KeyRange::prefix("b/"), 2), ["b/1="]);
    }
}
