//! Walks over typed trees: validation, sets of fields, comparison, merging, removal. Each follows upstream's walker of the same name.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::schema::{Atom, List, MapTy, Relation, ScalarKind, Ty};
use super::set::{Path, PathElement, Set};

/// What an atom turns out to be for a value.
pub(super) enum Form<'s> {
    Map(MapTy<'s>),
    Scalar(ScalarKind),
    List(List<'s>),
    Nothing,
}

impl Form<'_> {
    pub(super) fn same_kind(&self, other: &Form<'_>) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// A value chooses among what the atom allows; where it does not fit, a map goes first, then a scalar, then a list.
pub(super) fn form<'s>(atom: Atom<'s>, value: Option<&Value>) -> Form<'s> {
    match (value, atom) {
        (Some(Value::Bool(_) | Value::Number(_) | Value::String(_)), Atom { scalar: Some(kind), .. }) => Form::Scalar(kind),
        (Some(Value::Array(_)), Atom { list: Some(list), .. }) => Form::List(list),
        (_, Atom { map: Some(map), .. }) => Form::Map(map),
        (_, Atom { scalar: Some(kind), .. }) => Form::Scalar(kind),
        (_, Atom { list: Some(list), .. }) => Form::List(list),
        _ => Form::Nothing,
    }
}

fn field(name: &str) -> PathElement {
    PathElement::Field(name.to_owned())
}

// ---- atomics ----

/// The paths in a value at which it merges as a whole.
pub(super) fn atomics(ty: Ty<'_>, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    atomics_at(ty, value, &mut String::new(), &mut found);
    found
}

fn atomics_at(ty: Ty<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let atom = ty.atom();
    let length = path.len();
    match (value, atom.map, atom.list) {
        (Value::Object(fields), Some(map), _) => {
            if map.atomic {
                found.push(path.clone());
            }
            for (name, value) in fields {
                // Below what no field declares, upstream does not look.
                let Some(ty) = map.field(name) else { continue };
                path.push('.');
                path.push_str(name);
                atomics_at(ty, value, path, found);
                path.truncate(length);
            }
        }
        (Value::Array(items), _, Some(list)) => {
            if list.relation == super::schema::Relation::Atomic {
                found.push(path.clone());
            }
            for (i, item) in items.iter().enumerate() {
                path.push_str(&format!("[{i}]"));
                atomics_at(list.element, item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

// ---- validation ----

/// Whether the tree fits the type; errors with their paths, in upstream's words.
pub(super) fn validate(ty: Ty<'_>, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    validate_at(ty, value, &mut String::new(), &mut errors);
    errors
}

fn validate_at(ty: Ty<'_>, value: &Value, path: &mut String, errors: &mut Vec<String>) {
    match form(ty.atom(), Some(value)) {
        Form::Scalar(kind) => errors.extend(scalar_error(kind, value).map(|e| at(path, &e))),
        Form::Map(map) => match value {
            Value::Object(fields) => validate_map(&map, fields, path, errors),
            Value::Null => {}
            other => errors.push(at(path, &format!("expected map, got {}", go_value(other)))),
        },
        Form::List(list) => match value {
            Value::Array(items) => validate_list(&list, items, path, errors),
            Value::Null => {}
            other => errors.push(at(path, &format!("expected list, got {}", go_value(other)))),
        },
        Form::Nothing => errors.push(at(path, "schema error: invalid atom: inlined")),
    }
}

fn at(path: &str, message: &str) -> String {
    if path.is_empty() { message.to_owned() } else { format!("{path}: {message}") }
}

fn validate_map(map: &MapTy<'_>, fields: &Map<String, Value>, path: &mut String, errors: &mut Vec<String>) {
    let length = path.len();
    for (name, value) in fields {
        path.push('.');
        path.push_str(name);
        match map.type_of(name) {
            Some(ty) => validate_at(ty, value, path, errors),
            None => {
                // As upstream: one such field ends the reading of its map.
                errors.push(at(path, "field not declared in schema"));
                return path.truncate(length);
            }
        }
        path.truncate(length);
    }
}

fn validate_list(list: &List<'_>, items: &[Value], path: &mut String, errors: &mut Vec<String>) {
    let length = path.len();
    let mut seen = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let element = match list.relation {
            Relation::Atomic => PathElement::Index(i),
            _ => match list.element_of(item) {
                Ok(element) => element,
                Err(e) => return errors.push(at(path, &format!("element {i}: {e}"))),
            },
        };
        if !seen.insert(element.clone()) {
            errors.push(at(path, &format!("duplicate entries for key {element}")));
        }
        path.push_str(&element.to_string());
        validate_at(list.element, item, path, errors);
        path.truncate(length);
    }
}

fn scalar_error(kind: ScalarKind, value: &Value) -> Option<String> {
    let fits = match (kind, value) {
        (_, Value::Null) => true,
        (ScalarKind::Numeric, v) => v.is_number(),
        (ScalarKind::Text, v) => v.is_string(),
        (ScalarKind::Boolean, v) => v.is_boolean(),
        (ScalarKind::Untyped, v) => !v.is_array() && !v.is_object(),
    };
    let go_type = match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    (!fits).then(|| match kind {
        ScalarKind::Numeric => format!("expected numeric (int or float), got {go_type}"),
        ScalarKind::Text => format!("expected string, got &value.valueUnstructured{{Value:{value}}}"),
        ScalarKind::Boolean => format!("expected boolean, got {}", go_value(value)),
        ScalarKind::Untyped => format!("expected any scalar, got {}", go_value(value)),
    })
}

/// A wrapped value as Go's `%v` prints it.
fn go_value(value: &Value) -> String {
    match value {
        Value::String(s) => format!("&{{{s}}}"),
        other => format!("&{{{other}}}"),
    }
}

// ---- sets ----

/// All leaves of the tree and all items of its lists by key.
pub(super) fn field_set(ty: Ty<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    field_set_at(ty, value, &mut Vec::new(), &mut set);
    set
}

fn field_set_at(ty: Ty<'_>, value: &Value, path: &mut Path, set: &mut Set) {
    match form(ty.atom(), Some(value)) {
        Form::Scalar(_) => set.insert(path),
        Form::Map(map) if map.atomic => set.insert(path),
        Form::List(List { relation: Relation::Atomic, .. }) => set.insert(path),
        Form::Map(map) => {
            for (name, child) in value.as_object().into_iter().flatten() {
                path.push(field(name));
                field_set_at(map.type_of(name).unwrap_or(Ty::Unknown), child, path, set);
                let empty = child.is_null() || child.as_object().is_some_and(Map::is_empty);
                if empty || map.field(name).is_none() {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Form::List(list) => list_set(&list, value, path, set),
        Form::Nothing => {}
    }
}

fn list_set(list: &List<'_>, value: &Value, path: &mut Path, set: &mut Set) {
    let mut counts: BTreeMap<PathElement, usize> = BTreeMap::new();
    let items: Vec<(PathElement, &Value)> =
        value.as_array().into_iter().flatten().filter_map(|item| Some((list.element_of(item).ok()?, item))).collect();
    for (element, _) in &items {
        *counts.entry(element.clone()).or_default() += 1;
    }
    for (element, item) in items {
        let single = counts.get(&element) == Some(&1);
        path.push(element);
        // Duplicates are owned as a whole.
        if single {
            field_set_at(list.element, item, path, set);
        }
        set.insert(path);
        path.pop();
    }
}

// ---- comparison ----

#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

impl Comparison {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// What a value that stands on one side only comes with: everything in it, whose place and each of whose parts is new or gone.
fn below(ty: Ty<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    match (form(ty.atom(), Some(value)), value) {
        (Form::Map(map), Value::Object(fields)) if !map.atomic => {
            for (name, value) in fields {
                set.put(field(name), below(map.type_of(name).unwrap_or(Ty::Unknown), value));
            }
        }
        (Form::List(list), Value::Array(items)) if list.relation != Relation::Atomic => {
            for item in items {
                // What is there twice counts as one thing, whose parts nobody looks at.
                match list.element_of(item) {
                    Ok(element) if set.has(&element) => set.prune(&element),
                    Ok(element) => set.put(element, below(list.element, item)),
                    Err(_) => {}
                }
            }
        }
        _ => {}
    }
    set
}

pub(super) fn compare(ty: Ty<'_>, old: &Value, new: &Value) -> Comparison {
    let mut comparer = Comparer { result: Comparison::default(), path: Vec::new() };
    comparer.compare(ty, Some(old), Some(new));
    comparer.result
}

struct Comparer {
    result: Comparison,
    path: Path,
}

impl Comparer {
    fn compare(&mut self, ty: Ty<'_>, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, None) => {}
            (None, Some(new)) => self.result.added.graft(&self.path, below(ty, new)),
            (Some(old), None) => self.result.removed.graft(&self.path, below(ty, old)),
            (Some(old), Some(new)) => {
                let (before, after) = (form(ty.atom(), Some(old)), form(ty.atom(), Some(new)));
                if !before.same_kind(&after) {
                    self.handle(before, old, new);
                }
                self.handle(after, old, new);
            }
        }
    }

    fn handle(&mut self, form: Form<'_>, old: &Value, new: &Value) {
        match form {
            Form::Scalar(_) => self.leaf(old, new),
            Form::Map(map) => {
                let (a, b) = (old.as_object(), new.as_object());
                if map.atomic || (a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty)) {
                    return self.leaf(old, new);
                }
                self.maps(&map, a, b);
            }
            Form::List(list) => {
                let (a, b) = (old.as_array(), new.as_array());
                if list.relation == Relation::Atomic || (a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty)) {
                    return self.leaf(old, new);
                }
                self.lists(&list, a.map_or(&[], |v| v), b.map_or(&[], |v| v));
            }
            Form::Nothing => {}
        }
    }

    /// A leaf is compared as a whole.
    fn leaf(&mut self, old: &Value, new: &Value) {
        if old != new {
            self.result.modified.insert(&self.path);
        }
    }

    fn maps(&mut self, map: &MapTy<'_>, old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>) {
        let empty = Map::new();
        let (old, new) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
        // Both are sorted: one pass over the two.
        let (mut left, mut right) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return,
            };
            let a = if order.is_le() { left.next() } else { None };
            let b = if order.is_ge() { right.next() } else { None };
            let Some((name, _)) = a.or(b) else { return };
            let (a, b) = (a.map(|(_, v)| v), b.map(|(_, v)| v));
            // What is equal needs no walk; most is.
            if a != b {
                self.path.push(field(name));
                self.compare(map.type_of(name).unwrap_or(Ty::Unknown), a, b);
                self.path.pop();
            }
        }
    }

    fn lists(&mut self, list: &List<'_>, old: &[Value], new: &[Value]) {
        let mut items: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for item in old {
            if let Ok(element) = list.element_of(item) {
                items.entry(element).or_default().0.push(item);
            }
        }
        for item in new {
            if let Ok(element) = list.element_of(item) {
                items.entry(element).or_default().1.push(item);
            }
        }
        for (element, (before, after)) in items {
            self.path.push(element);
            match (&before[..], &after[..]) {
                (a, b) if a.len() <= 1 && b.len() <= 1 => self.compare(list.element, a.first().copied(), b.first().copied()),
                // Duplicates count as one thing.
                (a, b) if a.len() >= 2 && b.len() >= 2 => {
                    if a != b {
                        self.result.modified.insert(&self.path);
                    }
                }
                (a, b) if a.len() >= 2 => {
                    if let Some(one) = b.first() {
                        self.compare(list.element, None, Some(one));
                    }
                    self.result.removed.insert(&self.path);
                }
                (a, _) => {
                    if let Some(one) = a.first() {
                        self.compare(list.element, Some(one), None);
                    }
                    self.result.added.insert(&self.path);
                }
            }
            self.path.pop();
        }
    }
}

// ---- merging ----

/// The live object with the configuration on top. Nothing is removed; lists by key take the configuration's order.
pub(super) fn merge(ty: Ty<'_>, live: &Value, config: &Value) -> Result<Value, Vec<String>> {
    let mut errors = Vec::new();
    let merged = merge_at(ty, Some(live), Some(config), &mut errors);
    if errors.is_empty() { Ok(merged.unwrap_or(Value::Null)) } else { Err(errors) }
}

fn merge_at(ty: Ty<'_>, live: Option<&Value>, config: Option<&Value>, errors: &mut Vec<String>) -> Option<Value> {
    // Where the two are of different form, the configuration's decides.
    let form = if config.is_none() { form(ty.atom(), live) } else { form(ty.atom(), config) };
    let whole = || config.or(live).cloned();
    match form {
        Form::Map(map) => {
            let (a, b) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
            if map.atomic || (a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty)) {
                return whole();
            }
            merge_maps(&map, a, b, errors)
        }
        Form::List(list) => {
            let (a, b) = (live.and_then(Value::as_array), config.and_then(Value::as_array));
            if list.relation == Relation::Atomic || (a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty)) {
                return whole();
            }
            merge_lists(&list, a.map_or(&[], |v| v), b.map_or(&[], |v| v), errors)
        }
        Form::Scalar(_) | Form::Nothing => whole(),
    }
}

fn merge_maps(
    map: &MapTy<'_>,
    live: Option<&Map<String, Value>>,
    config: Option<&Map<String, Value>>,
    errors: &mut Vec<String>,
) -> Option<Value> {
    let empty = Map::new();
    let (live, config) = (live.unwrap_or(&empty), config.unwrap_or(&empty));
    let names: BTreeSet<&String> = live.keys().chain(config.keys()).collect();
    let mut merged = Map::new();
    for name in names {
        let ty = map.type_of(name).unwrap_or(Ty::Unknown);
        if let Some(value) = merge_at(ty, live.get(name), config.get(name), errors) {
            merged.insert(name.clone(), value);
        }
    }
    (!merged.is_empty()).then_some(Value::Object(merged))
}

static NULL: Value = Value::Null;

/// The items of a list by what tells them apart, in order.
fn index<'v>(
    list: &List<'_>,
    items: &'v [Value],
    duplicates: bool,
    errors: &mut Vec<String>,
) -> (Vec<PathElement>, BTreeMap<PathElement, &'v Value>) {
    let (mut order, mut by_element) = (Vec::with_capacity(items.len()), BTreeMap::new());
    for (i, item) in items.iter().enumerate() {
        let element = match list.element_of(item) {
            Ok(element) => element,
            Err(e) => {
                errors.push(format!("element {i}: {e}"));
                continue;
            }
        };
        if by_element.contains_key(&element) {
            if !duplicates {
                errors.push(format!("duplicate entries for key {element}"));
                continue;
            }
            // Duplicates are not merged with what is applied.
            by_element.insert(element.clone(), &NULL);
        } else {
            by_element.insert(element.clone(), item);
        }
        order.push(element);
    }
    (order, by_element)
}

/// Interleaves live and configured items: configured ones in their order, live ones where they stood among them.
fn merge_lists(list: &List<'_>, live: &[Value], config: &[Value], errors: &mut Vec<String>) -> Option<Value> {
    let (right, by_right) = index(list, config, false, errors);
    let (left, by_left) = index(list, live, true, errors);
    if !errors.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let mut shared = right.iter().filter(|e| by_left.contains_key(e)).peekable();
    let mut done: BTreeSet<&PathElement> = BTreeSet::new();
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if let (Some(a), Some(b)) = (left.get(l), right.get(r)) {
            if a == b {
                done.insert(a);
                out.extend(merge_at(list.element, by_left.get(a).copied(), by_right.get(a).copied(), errors));
                (l, r) = (l + 1, r + 1);
                shared.next();
                continue;
            }
            if by_right.contains_key(a) && shared.peek().is_some_and(|next| *next != a) {
                // Shared, but its turn comes later.
                l += 1;
                continue;
            }
        }
        if let Some(a) = left.get(l) {
            if !by_right.contains_key(a) {
                out.extend(merge_at(list.element, live.get(l), None, errors));
                l += 1;
                continue;
            }
            if done.contains(a) {
                l += 1;
            }
        }
        if let Some(b) = right.get(r) {
            done.insert(b);
            out.extend(merge_at(list.element, by_left.get(b).copied(), by_right.get(b).copied(), errors));
            r += 1;
            if shared.peek() == Some(&b) {
                shared.next();
            }
        }
    }
    (!out.is_empty()).then_some(Value::Array(out))
}

// ---- removal ----

/// The tree without the fields and items of the set. What is atomic goes only as a whole.
pub(super) fn remove(ty: Ty<'_>, value: &Value, set: &Set) -> Value {
    match form(ty.atom(), Some(value)) {
        Form::Scalar(_) => value.clone(),
        Form::Map(map) => match value {
            Value::Object(fields) if !map.atomic && !fields.is_empty() => remove_from_map(&map, fields, set),
            _ => Value::Null,
        },
        Form::List(list) => match value {
            Value::Array(items) if list.relation != Relation::Atomic && !items.is_empty() => remove_from_list(&list, items, set),
            _ => Value::Null,
        },
        Form::Nothing => Value::Null,
    }
}

fn remove_from_map(map: &MapTy<'_>, fields: &Map<String, Value>, set: &Set) -> Value {
    let mut left = Map::new();
    for (name, value) in fields {
        let element = field(name);
        if set.has(&element) {
            continue;
        }
        let value = match set.below(&element) {
            Some(below) => remove(map.type_of(name).unwrap_or(Ty::Unknown), value, below),
            None => value.clone(),
        };
        left.insert(name.clone(), value);
    }
    if left.is_empty() { Value::Null } else { Value::Object(left) }
}

fn remove_from_list(list: &List<'_>, items: &[Value], set: &Set) -> Value {
    let mut left = Vec::with_capacity(items.len());
    for item in items {
        let Ok(element) = list.element_of(item) else {
            left.push(item.clone());
            continue;
        };
        if set.has(&element) {
            continue;
        }
        left.push(match set.below(&element) {
            Some(below) => remove(list.element, item, below),
            None => item.clone(),
        });
    }
    if left.is_empty() { Value::Null } else { Value::Array(left) }
}
