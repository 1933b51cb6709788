//! Sets of fields: a tree of path elements, and its form on the wire, `FieldsV1`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use super::schema::Ty;

/// One step into an object. Their order is upstream's: fields, keys, values, indexes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PathElement {
    Field(String),
    /// An item of a list by the fields that tell it apart, sorted by name.
    Key(Vec<(String, Scalar)>),
    /// An item of a set of scalars.
    Value(Scalar),
    Index(usize),
}

pub(crate) type Path = Vec<PathElement>;

/// A JSON value with upstream's total order: numbers, strings, booleans, lists, maps, null.
#[derive(Debug, Clone)]
pub(crate) struct Scalar(pub(crate) Value);

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        fn rank(value: &Value) -> u8 {
            match value {
                Value::Number(_) => 0,
                Value::String(_) => 1,
                Value::Bool(_) => 2,
                Value::Array(_) => 3,
                Value::Object(_) => 4,
                Value::Null => 5,
            }
        }
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
            },
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) => rank(a).cmp(&rank(b)).then_with(|| a.to_string().cmp(&b.to_string())),
        }
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(fields) => {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", value.0)).collect();
                write!(f, "[{}]", fields.join(","))
            }
            PathElement::Value(value) => write!(f, "[={}]", value.0),
            PathElement::Index(i) => write!(f, "[{i}]"),
        }
    }
}

impl PathElement {
    /// `f:name`, `k:{…}`, `v:…`, `i:…`.
    pub(crate) fn encode(&self) -> String {
        match self {
            PathElement::Field(name) => ["f:", name].concat(),
            PathElement::Key(fields) => {
                let map: Map<String, Value> = fields.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
                ["k:", &printed(&map)].concat()
            }
            PathElement::Value(value) => ["v:", &printed(&value.0)].concat(),
            PathElement::Index(i) => format!("i:{i}"),
        }
    }

    /// Elements of a kind that is not known are skipped, as upstream skips them.
    fn decode(text: &str) -> Option<PathElement> {
        let (kind, rest) = text.split_once(':')?;
        Some(match kind {
            "f" => PathElement::Field(rest.to_owned()),
            "k" => match serde_json::from_str(rest).ok()? {
                Value::Object(map) => PathElement::Key(map.into_iter().map(|(name, value)| (name, Scalar(value))).collect()),
                _ => return None,
            },
            "v" => PathElement::Value(Scalar(serde_json::from_str(rest).ok()?)),
            "i" => PathElement::Index(rest.parse().ok()?),
            _ => return None,
        })
    }
}

/// A tree is always printable.
fn printed(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Set {
    members: BTreeSet<PathElement>,
    children: BTreeMap<PathElement, Set>,
}

impl Set {
    pub(crate) fn of_paths(paths: &[&[&str]]) -> Set {
        let mut set = Set::default();
        for path in paths {
            set.insert(&path.iter().map(|name| PathElement::Field((*name).to_owned())).collect::<Path>());
        }
        set
    }

    pub(crate) fn of_path(path: &[PathElement]) -> Set {
        let mut set = Set::default();
        set.insert(path);
        set
    }

    /// Adds a field; the object as a whole is owned by nobody.
    pub(crate) fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] if self.members.contains(last) => {}
            [last] => drop(self.members.insert(last.clone())),
            // Most paths share their beginning with others: nothing is copied for what is there already.
            [first, rest @ ..] => match self.children.get_mut(first) {
                Some(child) => child.insert(rest),
                None => self.children.entry(first.clone()).or_default().insert(rest),
            },
        }
    }

    /// Adds an element, which is a member, with what is below it.
    pub(crate) fn put(&mut self, element: PathElement, below: Set) {
        if !below.is_empty() {
            self.children.insert(element.clone(), below);
        }
        self.members.insert(element);
    }

    /// Forgets what is below an element.
    pub(crate) fn prune(&mut self, element: &PathElement) {
        self.children.remove(element);
    }

    /// Adds a field with everything below it.
    pub(crate) fn graft(&mut self, path: &[PathElement], below: Set) {
        match path {
            [] => self.absorb(below),
            [last] => match self.children.get_mut(last) {
                Some(there) => {
                    there.absorb(below);
                    self.members.insert(last.clone());
                }
                None => self.put(last.clone(), below),
            },
            [first, rest @ ..] => match self.children.get_mut(first) {
                Some(child) => child.graft(rest, below),
                None => self.children.entry(first.clone()).or_default().graft(rest, below),
            },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Set::is_empty)
    }

    pub(crate) fn has(&self, element: &PathElement) -> bool {
        self.members.contains(element)
    }

    pub(crate) fn below(&self, element: &PathElement) -> Option<&Set> {
        self.children.get(element).filter(|s| !s.is_empty())
    }

    pub(crate) fn union(&self, other: &Set) -> Set {
        let mut all = self.clone();
        all.members.extend(other.members.iter().cloned());
        for (element, set) in &other.children {
            let here = all.children.entry(element.clone()).or_default();
            *here = here.union(set);
        }
        all
    }

    /// Union in place.
    pub(crate) fn absorb(&mut self, mut other: Set) {
        self.members.append(&mut other.members);
        for (element, set) in other.children {
            match self.children.get_mut(&element) {
                Some(here) => here.absorb(set),
                None => drop(self.children.insert(element, set)),
            }
        }
    }

    /// Difference in place; see `recursive_difference` for what `recursive` means. Whether anything was there to remove.
    pub(crate) fn remove_all(&mut self, other: &Set, recursive: bool) -> bool {
        let mut removed = false;
        for member in &other.members {
            removed |= self.members.remove(member);
            if recursive {
                removed |= self.children.remove(member).is_some();
            }
        }
        for (element, there) in &other.children {
            if let Some(here) = self.children.get_mut(element) {
                removed |= here.remove_all(there, recursive);
                if here.is_empty() {
                    self.children.remove(element);
                }
            }
        }
        removed
    }

    pub(crate) fn intersection(&self, other: &Set) -> Set {
        let both = self.children.iter().filter_map(|(e, s)| Some((e, s.intersection(other.children.get(e)?))));
        Set {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: both.filter(|(_, s)| !s.is_empty()).map(|(e, s)| (e.clone(), s)).collect(),
        }
    }

    /// What is here and not there: a parent does not stand for its children, nor they for it.
    pub(crate) fn difference(&self, other: &Set) -> Set {
        self.subtract(other, false)
    }

    /// The same, but what is there takes everything below it with it.
    pub(crate) fn recursive_difference(&self, other: &Set) -> Set {
        self.subtract(other, true)
    }

    fn subtract(&self, other: &Set, recursive: bool) -> Set {
        let left =
            self.children.iter().filter(|(e, _)| !recursive || !other.members.contains(e)).map(|(e, s)| match other.children.get(e) {
                Some(there) => (e, s.subtract(there, recursive)),
                None => (e, s.clone()),
            });
        Set {
            members: self.members.difference(&other.members).cloned().collect(),
            children: left.filter(|(_, s)| !s.is_empty()).map(|(e, s)| (e.clone(), s)).collect(),
        }
    }

    /// Adds the named fields on the way to each member.
    pub(crate) fn with_named_fields(&self, ty: Ty<'_>) -> Set {
        let atom = ty.atom();
        let mut named = Set { members: self.members.clone(), children: BTreeMap::new() };
        for (element, set) in &self.children {
            let child = match (element, &atom.map, &atom.list) {
                (PathElement::Field(name), Some(map), _) => {
                    let field = map.field(name);
                    if field.is_some() {
                        named.members.insert(element.clone());
                    }
                    field.or(map.element).unwrap_or(Ty::Unknown)
                }
                (PathElement::Key(_), _, Some(list)) => list.element,
                _ => Ty::Unknown,
            };
            named.children.insert(element.clone(), set.with_named_fields(child));
        }
        named
    }

    /// All members with their paths.
    pub(crate) fn paths(&self) -> Vec<Path> {
        let mut all = Vec::new();
        self.collect(&mut Vec::new(), &mut all);
        all
    }

    fn collect(&self, path: &mut Path, into: &mut Vec<Path>) {
        for member in &self.members {
            let mut full = path.clone();
            full.push(member.clone());
            into.push(full);
        }
        for (element, set) in &self.children {
            path.push(element.clone());
            set.collect(path, into);
            path.pop();
        }
    }

    /// Whether one of the members is a member of what is written, too; the latter is not read into a set for that.
    pub(crate) fn meets(&self, fields: &Value) -> bool {
        let there = |element: &PathElement| fields.get(element.encode());
        self.members.iter().any(|member| there(member).is_some_and(is_member))
            || self.children.iter().any(|(element, below)| there(element).is_some_and(|fields| below.meets(fields)))
    }

    /// Whether all members are members of what is written, too.
    pub(crate) fn is_within(&self, fields: &Value) -> bool {
        let there = |element: &PathElement| fields.get(element.encode());
        self.members.iter().all(|member| there(member).is_some_and(is_member))
            && self.children.iter().all(|(element, below)| below.is_empty() || there(element).is_some_and(|fields| below.is_within(fields)))
    }

    /// `FieldsV1`.
    pub(crate) fn encode(&self) -> Value {
        Value::Object(self.encode_map(false))
    }

    fn encode_map(&self, member: bool) -> Map<String, Value> {
        let mut map = Map::new();
        if member && !(self.members.is_empty() && self.children.is_empty()) {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for element in &self.members {
            if !self.children.contains_key(element) {
                map.insert(element.encode(), Value::Object(Map::new()));
            }
        }
        for (element, set) in &self.children {
            map.insert(element.encode(), Value::Object(set.encode_map(self.members.contains(element))));
        }
        map
    }

    pub(crate) fn decode(fields: &Value) -> Set {
        Set::decode_map(fields).0
    }

    /// The set, and whether its root is a member itself.
    fn decode_map(fields: &Value) -> (Set, bool) {
        let mut set = Set::default();
        let mut member = false;
        for (key, value) in fields.as_object().into_iter().flatten() {
            if key == "." {
                member = true;
                continue;
            }
            let Some(element) = PathElement::decode(key) else { continue };
            let (below, is_member) = Set::decode_map(value);
            if is_member {
                set.members.insert(element.clone());
            }
            if !below.members.is_empty() || !below.children.is_empty() {
                set.children.insert(element, below);
            }
        }
        let leaf = set.members.is_empty() && set.children.is_empty();
        (set, member || leaf)
    }
}

/// Whether a place of a set in `FieldsV1` is a member itself.
fn is_member(at: &Value) -> bool {
    at.as_object().is_none_or(|below| below.is_empty() || below.contains_key("."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_v1_round_trips() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:replicas": {}},
        });
        let set = Set::decode(&fields);
        assert_eq!(set.encode(), fields);
        let paths: Vec<String> = set.paths().iter().map(|p| p.iter().map(ToString::to_string).collect()).collect();
        assert!(paths.contains(&".spec.ports[port=80,protocol=\"TCP\"].port".to_owned()), "{paths:?}");
        assert!(paths.contains(&".metadata.finalizers[=\"x\"]".to_owned()), "{paths:?}");
    }

    #[test]
    fn differences() {
        let set = Set::of_paths(&[&["a", "b", "c"], &["a", "b"], &["d"]]);
        assert_eq!(set.difference(&Set::of_paths(&[&["a", "b"]])), Set::of_paths(&[&["a", "b", "c"], &["d"]]));
        assert_eq!(set.recursive_difference(&Set::of_paths(&[&["a", "b"]])), Set::of_paths(&[&["d"]]));
        assert_eq!(set.intersection(&Set::of_paths(&[&["a", "b", "c"], &["e"]])), Set::of_paths(&[&["a", "b", "c"]]));
    }
}
