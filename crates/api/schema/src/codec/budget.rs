//! How much memory a tree may take that a stranger's bytes are read into.
//!
//! A node of a `serde_json` map takes 640 bytes and can be asked for with three (`{},` in a list of messages that print their zero values), so that the
//! length of a body bounds nothing. What is counted here is what the allocator is asked for, as it is asked: reading stops before the tree is too large.

use std::cell::Cell;

use serde_json::Value;

use super::DecodeError;

/// Ten times the largest body that is taken (3 MiB). An object of 1.5 MiB, more than which no store takes, has room for twenty times itself.
pub const MOST_BYTES: usize = 30 << 20;

/// A node of the B-tree behind `serde_json::Map`: eleven keys and values.
const NODE: usize = 640;
const NODE_ENTRIES: usize = 11;
/// Later nodes are at least half full.
const LATER_ENTRIES: usize = 5;
/// What an allocation takes at least, with what the allocator keeps about it.
const ALLOCATION: usize = 32;
/// A list that grows holds its old half beside the new whole for a moment.
const SLOT: usize = size_of::<Value>() * 3 / 2;
const FIRST_SLOTS: usize = 4;

pub(crate) struct Budget(Cell<usize>);

/// There is no room for more.
#[derive(Debug)]
pub(crate) struct Overdrawn;

impl From<Overdrawn> for DecodeError {
    fn from(_: Overdrawn) -> Self {
        DecodeError::TooLarge
    }
}

impl Overdrawn {
    pub(crate) fn custom<E: serde::de::Error>(self) -> E {
        E::custom(DecodeError::TooLarge)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Budget(Cell::new(MOST_BYTES))
    }
}

impl Budget {
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Overdrawn> {
        match self.0.get().checked_sub(bytes) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => {
                self.0.set(0);
                Err(Overdrawn)
            }
        }
    }

    /// Something was refused; nothing more is taken then.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.0.get() == 0
    }

    /// One more item in a list that has `length`.
    pub(crate) fn item(&self, length: usize) -> Result<(), Overdrawn> {
        match length {
            0 => self.take(FIRST_SLOTS * SLOT + ALLOCATION),
            _ if length >= FIRST_SLOTS && length.is_power_of_two() => self.take(length * SLOT),
            _ => Ok(()),
        }
    }

    /// One more entry in a map that has `length`.
    pub(crate) fn entry(&self, length: usize, key: &str) -> Result<(), Overdrawn> {
        let node = match length.checked_sub(NODE_ENTRIES) {
            None if length == 0 => NODE,
            Some(beyond) if beyond.is_multiple_of(LATER_ENTRIES) => NODE,
            _ => 0,
        };
        self.take(node + text(key))
    }

    pub(crate) fn text(&self, content: &str) -> Result<(), Overdrawn> {
        self.take(text(content))
    }

    /// What stands where nothing was given.
    pub(crate) fn zero(&self, zero: Value) -> Result<Value, Overdrawn> {
        self.take(cost(&zero)).map(|()| zero)
    }

    /// A map of short keys that was filled by other means, and what is in it without being counted.
    pub(crate) fn map(&self, entries: usize, uncounted: usize) -> Result<(), Overdrawn> {
        self.take(nodes(entries) + entries * ALLOCATION + uncounted)
    }
}

fn text(content: &str) -> usize {
    if content.is_empty() { 0 } else { content.len().next_multiple_of(16) + ALLOCATION / 2 }
}

fn nodes(entries: usize) -> usize {
    match entries {
        0 => 0,
        _ => (1 + (entries + LATER_ENTRIES - 1).saturating_sub(NODE_ENTRIES) / LATER_ENTRIES) * NODE,
    }
}

/// What a tree takes beside the slot of its root.
pub fn cost(tree: &Value) -> usize {
    match tree {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(content) => text(content),
        Value::Array(list) => list.capacity() * size_of::<Value>() + list.iter().map(cost).sum::<usize>(),
        Value::Object(map) => nodes(map.len()) + map.iter().map(|(key, value)| text(key) + cost(value)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_are_as_many_as_entries_need() {
        let counted = |entries: usize| {
            let budget = Budget::default();
            (0..entries).try_for_each(|length| budget.entry(length, "")).expect("room");
            MOST_BYTES - budget.0.get()
        };
        for (entries, many) in [(0, 0), (1, 1), (11, 1), (12, 2), (16, 2), (17, 3), (100, 19)] {
            assert_eq!((nodes(entries), counted(entries)), (many * NODE, many * NODE), "{entries}");
        }
    }

    #[test]
    fn what_is_overdrawn_stays_so() {
        let budget = Budget::default();
        assert!(budget.take(MOST_BYTES - 1).is_ok() && !budget.is_overdrawn());
        assert!(budget.take(2).is_err() && budget.is_overdrawn());
        assert!(budget.take(1).is_err());
    }

    #[test]
    fn a_tree_costs_its_parts() {
        assert_eq!(cost(&json!(1)), 0);
        assert_eq!(cost(&json!("a")), 32);
        assert!(cost(&json!({"a": {"b": [1, 2, "c"]}})) > 2 * NODE);
    }
}
