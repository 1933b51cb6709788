//! A kernel for tests: takes changes, keeps the resulting ruleset, and refuses what nftables would.

use std::collections::BTreeMap;

use crate::expr::{Expr, Verdict};
use crate::ruleset::{Chain, Change, Element, ElementValue, Ruleset};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fake {
    pub ruleset: Ruleset,
}

impl Fake {
    /// All changes or none. The error names the change and nftables' reason.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), String> {
        let mut next = self.ruleset.clone();
        for change in changes {
            step(&mut next, change).map_err(|why| format!("{why}: {change:?}"))?;
        }
        dangling(&next)?;
        self.ruleset = next;
        Ok(())
    }
}

fn step(rules: &mut Ruleset, change: &Change) -> Result<(), &'static str> {
    const MISSING: &str = "No such file or directory";
    match change {
        Change::AddTable => {}
        Change::DeleteTable => *rules = Ruleset::default(),
        Change::AddSet { name, set } => {
            if rules.sets.insert(name.clone(), set.clone()).is_some() {
                return Err("File exists");
            }
        }
        Change::DeleteSet { name } => {
            rules.sets.remove(name).ok_or(MISSING)?;
        }
        Change::AddChain { name, hook } => {
            rules.chains.entry(name.clone()).or_insert_with(|| Chain { hook: *hook, rules: Vec::new() });
        }
        Change::FlushChain { name } => rules.chains.get_mut(name).ok_or(MISSING)?.rules.clear(),
        Change::DeleteChain { name } => {
            let chain = rules.chains.remove(name).ok_or(MISSING)?;
            if chain.hook.is_none() && referenced(rules, name) {
                return Err("Device or resource busy");
            }
        }
        Change::AddRule { chain, rule } => rules.chains.get_mut(chain).ok_or(MISSING)?.rules.push(rule.clone()),
        Change::AddElements { set, elements, .. } => return add(rules, set, elements),
        Change::DeleteElements { set, elements, .. } => {
            let set = rules.sets.get_mut(set).ok_or(MISSING)?;
            for element in elements {
                set.elements.remove(&element.key).ok_or(MISSING)?;
                set.ranges.remove(&element.key);
            }
        }
    }
    Ok(())
}

fn add(rules: &mut Ruleset, set: &str, elements: &[Element]) -> Result<(), &'static str> {
    let set = rules.sets.get_mut(set).ok_or("No such file or directory")?;
    for element in elements {
        if set.elements.insert(element.key.clone(), element.value.clone()).is_some_and(|was| was != element.value) {
            return Err("File exists");
        }
        if let Some(end) = &element.end {
            set.ranges.insert(element.key.clone(), end.clone());
        }
    }
    Ok(())
}

fn targets(rules: &Ruleset) -> impl Iterator<Item = &str> {
    let from_rules = rules.chains.values().flat_map(|c| &c.rules).flat_map(|r| &r.0).filter_map(|e| match e {
        Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain.as_str()),
        _ => None,
    });
    let from_maps = rules.sets.values().flat_map(|s| s.elements.values()).filter_map(|v| match v {
        ElementValue::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain.as_str()),
        _ => None,
    });
    from_rules.chain(from_maps)
}

fn referenced(rules: &Ruleset, chain: &str) -> bool {
    targets(rules).any(|t| t == chain)
}

fn dangling(rules: &Ruleset) -> Result<(), String> {
    if let Some(chain) = targets(rules).find(|t| !rules.chains.contains_key(*t)) {
        return Err(format!("No such file or directory: jump to the missing chain {chain}"));
    }
    let sets: &BTreeMap<_, _> = &rules.sets;
    let used = rules.chains.values().flat_map(|c| &c.rules).flat_map(|r| &r.0).filter_map(|e| match e {
        Expr::InSet { set, .. } | Expr::Update { set, .. } | Expr::VerdictMap { map: set, .. } => Some(set),
        _ => None,
    });
    match used.into_iter().find(|name| !sets.contains_key(*name)) {
        Some(name) => Err(format!("No such file or directory: a rule uses the missing set {name}")),
        None => Ok(()),
    }
}
