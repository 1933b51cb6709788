//! Two answers side by side, and the list of differences that are known.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::http::Answer;

/// Where two answers differ: `.spec.replicas`, ours, theirs.
pub(crate) type Difference = (String, Value, Value);

pub(crate) fn differences(ours: &Answer, theirs: &Answer) -> Vec<Difference> {
    let mut out = Vec::new();
    walk("code", &json!(ours.code), &json!(theirs.code), &mut out);
    walk("content-type", &json!(ours.content_type), &json!(theirs.content_type), &mut out);
    walk("warnings", &json!(ours.warnings), &json!(theirs.warnings), &mut out);
    walk("", &ours.body, &theirs.body, &mut out);
    out
}

fn walk(path: &str, ours: &Value, theirs: &Value, out: &mut Vec<Difference>) {
    match (ours, theirs) {
        _ if ours == theirs => {}
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let none = json!("<absent>");
            for key in keys {
                walk(&format!("{path}.{key}"), a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if named(a) && named(b) => by_name(path, a, b, out),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                walk(&format!("{path}[{i}]"), a, b, out);
            }
        }
        _ => out.push((path.to_owned(), ours.clone(), theirs.clone())),
    }
}

fn name(v: &Value) -> Option<&str> {
    v["metadata"]["name"].as_str().or_else(|| v["name"].as_str())
}

fn named(list: &[Value]) -> bool {
    let names: BTreeSet<Option<&str>> = list.iter().map(name).collect();
    !names.contains(&None) && names.len() == list.len()
}

/// Lists of objects: one more or less is one difference, not a hundred. Their order counts too.
fn by_name(path: &str, ours: &[Value], theirs: &[Value], out: &mut Vec<Difference>) {
    let find = |list: &[Value], wanted: Option<&str>| list.iter().find(|v| name(v) == wanted).cloned();
    for a in ours {
        let at = format!("{path}[{}]", name(a).unwrap_or(""));
        match find(theirs, name(a)) {
            Some(b) => walk(&at, a, &b, out),
            None => out.push((at, a.clone(), json!("<absent>"))),
        }
    }
    for b in theirs.iter().filter(|b| find(ours, name(b)).is_none()) {
        out.push((format!("{path}[{}]", name(b).unwrap_or("")), json!("<absent>"), b.clone()));
    }
    let order = |list: &[Value], other: &[Value]| -> Vec<String> {
        list.iter().filter(|v| find(other, name(v)).is_some()).filter_map(|v| name(v).map(str::to_owned)).collect()
    };
    let (a, b) = (order(ours, theirs), order(theirs, ours));
    if a != b {
        out.push((format!("{path} order"), json!(a), json!(b)));
    }
}

/// Lines of `known.txt`: `PATTERN | FIELD | REASON`; `*` stands for anything. Empty lines and those that begin with `#` are skipped. A reason that
/// begins with `sometimes:` is one of timing: the entry may find nothing.
#[derive(Debug)]
pub(crate) struct Known {
    entries: Vec<Entry>,
    used: BTreeSet<usize>,
}

#[derive(Debug)]
struct Entry {
    id: String,
    field: String,
    sometimes: bool,
}

impl Known {
    pub(crate) fn parse(text: &str) -> Result<Known> {
        let mut entries = Vec::new();
        for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
            let parts: Vec<&str> = line.splitn(3, " | ").map(str::trim).collect();
            let [id, field, reason] = parts[..] else { bail!("known.txt: {line:?} is not PATTERN | FIELD | REASON") };
            if reason.is_empty() {
                bail!("known.txt: {line:?} gives no reason");
            }
            entries.push(Entry { id: id.to_owned(), field: field.to_owned(), sometimes: reason.starts_with("sometimes:") });
        }
        Ok(Known { entries, used: BTreeSet::new() })
    }

    pub(crate) fn read(path: &std::path::Path) -> Result<Known> {
        Known::parse(&std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
    }

    pub(crate) fn has(&mut self, id: &str, difference: &Difference) -> bool {
        let matching = self.entries.iter().position(|entry| glob(&entry.id, id) && glob(&entry.field, &difference.0));
        self.used.extend(matching);
        matching.is_some()
    }

    /// Entries that no difference needed: they have to go, so that the list only shrinks.
    pub(crate) fn unused(&self) -> Vec<String> {
        let left = self.entries.iter().enumerate().filter(|(i, entry)| !entry.sometimes && !self.used.contains(i));
        left.map(|(_, entry)| format!("{} | {}", entry.id, entry.field)).collect()
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => {
            let Some(tail) = text.strip_prefix(head) else { return false };
            (0..=tail.len()).filter(|i| tail.is_char_boundary(*i)).any(|i| glob(rest, &tail[i..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_their_place() {
        let mut out = Vec::new();
        let item = |name: &str, v: i32| json!({"metadata": {"name": name}, "v": v});
        walk(
            "",
            &json!({"a": [1, {"b": 2}], "items": [item("x", 1), item("z", 1)]}),
            &json!({"a": [1, {"b": 3}], "items": [item("x", 2), item("y", 1)]}),
            &mut out,
        );
        let paths: Vec<&str> = out.iter().map(|d| d.0.as_str()).collect();
        assert_eq!(paths, [".a[1].b", ".items[x].v", ".items[z]", ".items[y]"]);
    }

    #[test]
    fn known_differences_are_counted() {
        let mut known = Known::parse("# why\nget * | .a.* | because\nlist | * | so\n").expect("parses");
        assert!(known.has("get pods", &(".a.b".into(), json!(1), json!(2))));
        assert!(!known.has("get pods", &(".b".into(), json!(1), json!(2))));
        assert_eq!(known.unused(), ["list | *"]);
        assert!(Known::parse("get | x | sometimes: a race").is_ok_and(|known| known.unused().is_empty()));
        assert!(Known::parse("get | x |").is_err());
        assert!(Known::parse(include_str!("known.txt")).is_ok_and(|known| !known.unused().is_empty()));
    }
}
