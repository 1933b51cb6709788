//! Wrong objects made of right ones, one field at a time.

use serde_json::{Map, Value, json};

/// A place in an object.
type Path = Vec<String>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mutation {
    /// `drop spec.replicas`.
    pub(crate) name: String,
    path: Path,
    /// None takes the field away.
    value: Option<Value>,
}

impl Mutation {
    pub(crate) fn apply(&self, object: &Value) -> Value {
        let mut out = object.clone();
        let (last, parents) = self.path.split_last().map_or(("", &[][..]), |(l, p)| (l.as_str(), p));
        let mut at = &mut out;
        for step in parents {
            at = match at {
                Value::Array(list) => match step.parse::<usize>().ok().and_then(|i| list.get_mut(i)) {
                    Some(item) => item,
                    None => return out,
                },
                other => &mut other[step.as_str()],
            };
        }
        match (at, &self.value) {
            (Value::Array(list), value) => replace(list, last, value.as_ref()),
            (Value::Object(map), None) => drop(map.remove(last)),
            (Value::Object(map), Some(value)) => drop(map.insert(last.to_owned(), value.clone())),
            _ => {}
        }
        out
    }

    /// The same change as a JSON patch on what the server made of the object.
    pub(crate) fn json_patch(&self) -> Value {
        let pointer: String = self.path.iter().map(|s| format!("/{}", s.replace('~', "~0").replace('/', "~1"))).collect();
        match &self.value {
            None => json!([{"op": "remove", "path": pointer}]),
            Some(value) => json!([{"op": "add", "path": pointer, "value": value}, {"op": "replace", "path": pointer, "value": value}]),
        }
    }
}

fn replace(list: &mut Vec<Value>, at: &str, value: Option<&Value>) {
    let Some(i) = at.parse::<usize>().ok().filter(|i| *i < list.len()) else { return };
    match value {
        Some(value) => list[i] = value.clone(),
        None => drop(list.remove(i)),
    }
}

/// What can be wrong when an object is made: fields that are missing, of a wrong type, of a wrong value, unknown.
pub(crate) fn wrong(object: &Value) -> Vec<Mutation> {
    let mut out = Vec::new();
    each(object, &mut |path, value| {
        let mut push = |what: &str, value: Option<Value>| out.push(mutation(what, path, value));
        push("drop", None);
        push("type", Some(wrong_type(value)));
        for (what, value) in wrong_values(value) {
            push(what, Some(value));
        }
    });
    out
}

/// What can be changed in an object that is there.
pub(crate) fn changes(object: &Value) -> Vec<Mutation> {
    let mut out = Vec::new();
    each(object, &mut |path, value| {
        let mut push = |what: &str, value: Option<Value>| out.push(mutation(what, path, value));
        match value {
            Value::String(text) => push("other", Some(json!(format!("{text}x")))),
            Value::Number(n) => push("other", Some(json!(n.as_i64().unwrap_or(0) + 1))),
            Value::Bool(b) => push("flip", Some(json!(!b))),
            Value::Array(_) | Value::Object(_) | Value::Null => {}
        }
        push("drop", None);
    });
    out
}

fn mutation(what: &str, path: &[String], value: Option<Value>) -> Mutation {
    Mutation { name: format!("{what} {}", path.join(".")), path: path.to_vec(), value }
}

fn wrong_type(value: &Value) -> Value {
    match value {
        Value::String(_) => json!(7),
        Value::Array(_) => json!({"a": "b"}),
        _ => json!("text"),
    }
}

fn wrong_values(value: &Value) -> Vec<(&'static str, Value)> {
    match value {
        Value::String(_) => vec![("empty", json!("")), ("bad", json!("Not Valid!"))],
        Value::Number(_) => vec![("negative", json!(-1)), ("zero", json!(0)), ("huge", json!(2_000_000_000))],
        Value::Bool(b) => vec![("flip", json!(!b))],
        Value::Array(list) => {
            let twice = list.first().map(|first| ("twice", Value::Array(list.iter().chain([first]).cloned().collect())));
            [("empty", json!([]))].into_iter().chain(twice).collect()
        }
        Value::Object(map) => {
            let mut more: Map<String, Value> = map.clone();
            more.insert("unknownField".into(), json!(1));
            vec![("empty", json!({})), ("unknown", Value::Object(more))]
        }
        Value::Null => vec![],
    }
}

/// Every place below the root but the object's own metadata and type; all its own metadata where it is annotated so is another suite's affair.
fn each(object: &Value, visit: &mut impl FnMut(&[String], &Value)) {
    let Some(map) = object.as_object() else { return };
    for (key, value) in map.iter().filter(|(k, _)| !matches!(k.as_str(), "apiVersion" | "kind" | "metadata")) {
        descend(&mut vec![key.clone()], value, visit);
    }
}

fn descend(path: &mut Path, value: &Value, visit: &mut impl FnMut(&[String], &Value)) {
    visit(path, value);
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v)).collect(),
        // Items of one list are alike.
        Value::Array(list) => list.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => return,
    };
    for (key, child) in children {
        path.push(key);
        descend(path, child, visit);
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_wrong_at_a_time() {
        let object = json!({"kind": "X", "metadata": {"name": "n"}, "spec": {"list": [{"n": 1}], "on": true}});
        let names: Vec<String> = wrong(&object).into_iter().map(|m| m.name).collect();
        assert!(names.contains(&"negative spec.list.0.n".to_owned()), "{names:?}");
        assert!(!names.iter().any(|n| n.contains("metadata") || n.contains("kind")));
        for m in wrong(&object) {
            let changed = m.apply(&object);
            assert!(changed != object && changed["kind"] == "X" && changed["metadata"] == object["metadata"], "{}", m.name);
        }
        let dropped = wrong(&object).into_iter().find(|m| m.name == "drop spec.list.0").map(|m| m.apply(&object));
        assert_eq!(dropped, Some(json!({"kind": "X", "metadata": {"name": "n"}, "spec": {"list": [], "on": true}})));
    }

    #[test]
    fn changes_are_patches() {
        let object = json!({"spec": {"a/b": "x"}});
        let patches: Vec<Value> = changes(&object).iter().map(Mutation::json_patch).collect();
        assert!(patches.contains(&json!([{"op": "remove", "path": "/spec/a~1b"}])), "{patches:?}");
    }
}
