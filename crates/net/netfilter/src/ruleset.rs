//! A table as a value, and the difference of two.

use std::collections::BTreeMap;

use crate::expr::{Expr, Verdict};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainType {
    Filter,
    Nat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// Where a base chain hangs in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    pub chain_type: ChainType,
    pub point: HookPoint,
    pub priority: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule(pub Vec<Expr>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

/// A field of a set's key. In a concatenation each takes a multiple of four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Ipv4,
    Protocol,
    Port,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetData {
    /// A plain set.
    None,
    /// A verdict map.
    Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ElementValue {
    None,
    Verdict(Verdict),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub key: Vec<Field>,
    pub data: SetData,
    /// Elements are ranges: `elements` then holds the first key, and the last is given in `ranges`.
    pub interval: bool,
    /// Elements are added by rules and end after this time. Never changed by a diff.
    pub dynamic_timeout_ms: Option<u64>,
    pub elements: BTreeMap<Vec<u8>, ElementValue>,
    /// Of an interval set: start → end (exclusive; empty: to the end of all addresses).
    pub ranges: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One table of the `ip` family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, Set>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    pub end: Option<Vec<u8>>,
    pub value: ElementValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    AddTable,
    DeleteTable,
    AddSet { name: String, set: Set },
    DeleteSet { name: String },
    AddChain { name: String, hook: Option<Hook> },
    FlushChain { name: String },
    DeleteChain { name: String },
    AddRule { chain: String, rule: Rule },
    AddElements { set: String, key: Vec<Field>, data: SetData, elements: Vec<Element> },
    DeleteElements { set: String, key: Vec<Field>, data: SetData, elements: Vec<Element> },
}

impl Field {
    pub(crate) fn len(self) -> usize {
        match self {
            Field::Ipv4 => 4,
            Field::Protocol => 1,
            Field::Port => 2,
        }
    }

    /// nftables' number of the type, which only shows in listings.
    pub(crate) fn type_number(self) -> u32 {
        match self {
            Field::Ipv4 => 7,
            Field::Protocol => 12,
            Field::Port => 13,
        }
    }
}

impl Set {
    pub fn new(key: &[Field], data: SetData) -> Set {
        Set { key: key.to_vec(), data, interval: false, dynamic_timeout_ms: None, elements: BTreeMap::new(), ranges: BTreeMap::new() }
    }

    pub(crate) fn shape(&self) -> (&[Field], SetData, bool, Option<u64>) {
        (&self.key, self.data, self.interval, self.dynamic_timeout_ms)
    }

    fn element(&self, key: &Vec<u8>, value: &ElementValue) -> Element {
        Element { key: key.clone(), end: self.ranges.get(key).cloned(), value: value.clone() }
    }
}

/// The changes that turn `old` into `new`, in an order that the kernel takes in one transaction:
/// new sets and chains first, references away before what they point at.
pub fn diff(old: &Ruleset, new: &Ruleset) -> Vec<Change> {
    let mut changes = Vec::new();
    add_sets_and_chains(old, new, &mut changes);
    delete_elements(old, new, &mut changes);
    rewrite_chains(old, new, &mut changes);
    add_elements(old, new, &mut changes);
    delete_gone(old, new, &mut changes);
    changes
}

/// A set or base chain whose shape changed is another one: it is deleted and made anew.
fn same_set(old: &Ruleset, name: &str, set: &Set) -> bool {
    old.sets.get(name).is_some_and(|o| o.shape() == set.shape())
}

fn same_chain(old: &Ruleset, name: &str, chain: &Chain) -> bool {
    old.chains.get(name).is_some_and(|o| o.hook == chain.hook)
}

fn add_sets_and_chains(old: &Ruleset, new: &Ruleset, changes: &mut Vec<Change>) {
    for (name, chain) in &new.chains {
        if !same_chain(old, name, chain) {
            changes.push(Change::AddChain { name: name.clone(), hook: chain.hook });
        }
    }
    for (name, set) in &new.sets {
        if !same_set(old, name, set) {
            let empty = Set { elements: BTreeMap::new(), ranges: BTreeMap::new(), ..set.clone() };
            changes.push(Change::AddSet { name: name.clone(), set: empty });
        }
    }
}

fn delete_elements(old: &Ruleset, new: &Ruleset, changes: &mut Vec<Change>) {
    for (name, was) in &old.sets {
        let is = new.sets.get(name);
        let stays = |key: &Vec<u8>, value: &ElementValue| {
            is.is_some_and(|set| set.elements.get(key) == Some(value) && set.ranges.get(key) == was.ranges.get(key))
        };
        let elements: Vec<Element> = was.elements.iter().filter(|(k, v)| !stays(k, v)).map(|(k, v)| was.element(k, v)).collect();
        if !elements.is_empty() {
            changes.push(Change::DeleteElements { set: name.clone(), key: was.key.clone(), data: was.data, elements });
        }
    }
}

fn rewrite_chains(old: &Ruleset, new: &Ruleset, changes: &mut Vec<Change>) {
    let no_rules = Vec::new();
    let rules_of = |set: &Ruleset, name: &str| set.chains.get(name).map(|c| c.rules.clone()).unwrap_or_default();
    for (name, was) in &old.chains {
        let is = new.chains.get(name).map_or(&no_rules, |c| &c.rules);
        if was.rules != *is && !was.rules.is_empty() {
            changes.push(Change::FlushChain { name: name.clone() });
        }
    }
    for (name, chain) in &new.chains {
        if rules_of(old, name) != chain.rules {
            changes.extend(chain.rules.iter().map(|rule| Change::AddRule { chain: name.clone(), rule: rule.clone() }));
        }
    }
}

fn add_elements(old: &Ruleset, new: &Ruleset, changes: &mut Vec<Change>) {
    for (name, is) in &new.sets {
        let was = old.sets.get(name).filter(|o| o.shape() == is.shape());
        let there = |key: &Vec<u8>, value: &ElementValue| {
            was.is_some_and(|set| set.elements.get(key) == Some(value) && set.ranges.get(key) == is.ranges.get(key))
        };
        let elements: Vec<Element> = is.elements.iter().filter(|(k, v)| !there(k, v)).map(|(k, v)| is.element(k, v)).collect();
        if !elements.is_empty() {
            changes.push(Change::AddElements { set: name.clone(), key: is.key.clone(), data: is.data, elements });
        }
    }
}

fn delete_gone(old: &Ruleset, new: &Ruleset, changes: &mut Vec<Change>) {
    for name in old.chains.keys().filter(|n| !new.chains.contains_key(*n)) {
        changes.push(Change::DeleteChain { name: name.clone() });
    }
    for name in old.sets.keys().filter(|n| !new.sets.contains_key(*n)) {
        changes.push(Change::DeleteSet { name: name.clone() });
    }
}
