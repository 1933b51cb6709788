//! Structural schemas: what a CustomResourceDefinition says about its objects, and what follows from it: pruning, defaults, validation.
//!
//! A schema is the tree of `spec.versions[].schema.openAPIV3Schema`, as it stands in the definition. All functions are pure; errors and unknown
//! fields come in upstream's words and order. [`crate::codec::json::decode_custom`] reads the objects, [`crate::apply`] and [`crate::openapi`] take
//! the same schemas.
//!
//! Deliberately absent: CEL rules (`x-kubernetes-validations`), and whether a schema is structural at all, which is validation of the definition
//! and lives with its kind.

pub mod embedded;
mod formats;
mod jsonpath;
mod patterns;
mod validate;

use serde_json::{Map, Value};

pub use jsonpath::{JsonPath, JsonPathError};
pub use validate::{validate, validate_at, validate_items};

const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

/// The schema of what is not listed among the properties: `Some(None)` lets anything through whose fields are all unknown, as upstream does for
/// `additionalProperties: true`.
fn additional(schema: &Value) -> Option<Option<&Value>> {
    match schema.get("additionalProperties")? {
        Value::Bool(true) => Some(None),
        of @ Value::Object(_) => Some(Some(of)),
        _ => None,
    }
}

/// Removes the fields that the schema does not know, and returns their paths, sorted: `spec.foo[0].bar`. `None` knows nothing but the metadata.
pub fn prune(schema: Option<&Value>, object: &mut Value) -> Vec<String> {
    let empty = Value::Object(Map::new());
    let schema = schema.unwrap_or(&empty);
    let mut pruner = Pruner { unknown: Vec::new(), path: String::new() };
    pruner.prune(Some(schema), object, true);
    pruner.unknown.sort();
    pruner.unknown
}

/// `unknown field "spec.foo"` for each path, as strict decoding reports them.
pub fn unknown_fields(paths: &[String]) -> Vec<String> {
    paths.iter().map(|path| format!("unknown field \"{path}\"")).collect()
}

struct Pruner {
    unknown: Vec<String>,
    path: String,
}

impl Pruner {
    fn below(&mut self, step: &str, run: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !self.path.is_empty() && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        run(self);
        self.path.truncate(length);
    }

    fn record(&mut self, name: &str) {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.unknown.push(format!("{}{dot}{name}", self.path));
    }

    fn prune(&mut self, schema: Option<&Value>, value: &mut Value, root: bool) {
        let keep_unknown = schema.is_some_and(|s| flag(s, "x-kubernetes-preserve-unknown-fields"));
        match value {
            Value::Object(map) => self.prune_map(schema, map, root, keep_unknown),
            Value::Array(list) => {
                let items = schema.and_then(|s| s.get("items"));
                // Where unknown fields are kept, items without a schema are kept whole.
                if keep_unknown && items.is_none() {
                    return;
                }
                for (i, item) in list.iter_mut().enumerate() {
                    self.below(&format!("[{i}]"), |p| p.prune(items, item, false));
                }
            }
            _ => {}
        }
    }

    fn prune_map(&mut self, schema: Option<&Value>, map: &mut Map<String, Value>, root: bool, keep_unknown: bool) {
        let embedded = root || schema.is_some_and(|s| flag(s, "x-kubernetes-embedded-resource"));
        let names: Vec<String> = map.keys().cloned().collect();
        for name in names {
            let is_meta = META_FIELDS.contains(&name.as_str());
            if embedded && is_meta && schema.is_some() {
                continue;
            }
            let known = schema.and_then(properties).and_then(|p| p.get(&name)).map(Some);
            match (known.or_else(|| schema.and_then(additional)), map.get_mut(&name)) {
                (Some(of), Some(value)) => self.below(&name, |p| p.prune(of, value, false)),
                _ if keep_unknown => {}
                _ => {
                    if !is_meta || !self.path.is_empty() {
                        self.record(&name);
                    }
                    map.remove(&name);
                }
            }
        }
    }
}

/// Fills in defaults. Nulls that may not be are taken for absent; where there is no default they go.
pub fn default(schema: &Value, object: &mut Value) {
    drop_nulls(schema, object);
    fill(schema, object);
}

fn may_not_be_null(schema: &Value, value: &Value) -> bool {
    value.is_null() && !flag(schema, "nullable")
}

fn default_of(schema: &Value) -> Option<&Value> {
    schema.get("default").filter(|d| !d.is_null())
}

/// Removes nulls that may not be and that no default replaces.
pub fn drop_nulls(schema: &Value, value: &mut Value) {
    let schema_of = |name: &str| properties(schema).and_then(|p| p.get(name)).or_else(|| additional(schema).flatten());
    match value {
        Value::Object(map) => {
            map.retain(|name, v| schema_of(name).is_none_or(|s| !may_not_be_null(s, v) || default_of(s).is_some()));
            for (name, v) in map {
                if let Some(schema) = schema_of(name) {
                    drop_nulls(schema, v);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                list.iter_mut().for_each(|v| drop_nulls(items, v));
            }
        }
        _ => {}
    }
}

fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in properties(schema).into_iter().flatten() {
                if let Some(default) = default_of(property)
                    && map.get(name).is_none_or(|v| may_not_be_null(property, v))
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, v) in map {
                match (properties(schema).and_then(|p| p.get(name)), additional(schema).flatten()) {
                    (Some(property), _) => fill(property, v),
                    (None, Some(of)) => fill_null(of, v),
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                list.iter_mut().for_each(|v| fill_null(items, v));
            }
        }
        _ => {}
    }
}

fn fill_null(schema: &Value, value: &mut Value) {
    if may_not_be_null(schema, value)
        && let Some(default) = default_of(schema)
    {
        *value = default.clone();
    }
    fill(schema, value);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pruning() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "integer"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"k": {"type": "object"}}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true},
        }}}});
        let mut object = json!({
            "apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a"}, "top": 1,
            "spec": {
                "a": "1", "b": 1, "metadata": {},
                "list": [{"x": 1, "y": 2}], "map": {"k": {"x": 1, "z": 1}},
                "free": {"any": {"thing": 1}, "k": {"gone": 1}},
                "pod": {"apiVersion": "v1", "kind": "Pod", "spec": {}},
            },
        });
        let unknown = prune(Some(&schema), &mut object);
        let paths = ["spec.b", "spec.free.k.gone", "spec.list[0].y", "spec.map.k.z", "spec.metadata", "spec.pod.spec", "top"];
        assert_eq!(unknown, paths);
        let left = json!({
            "apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a"},
            "spec": {
                "a": "1", "list": [{"x": 1}], "map": {"k": {"x": 1}}, "free": {"any": {"thing": 1}, "k": {}},
                "pod": {"apiVersion": "v1", "kind": "Pod"},
            },
        });
        assert_eq!(object, left);
        assert_eq!(unknown_fields(&unknown[..1]), [r#"unknown field "spec.b""#]);
    }

    #[test]
    fn defaults() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
            "a": {"type": "string", "default": "x"},
            "n": {"type": "string", "nullable": true, "default": "y"},
            "gone": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "integer", "default": 3}}}},
        }}}});
        let mut object = json!({});
        default(&schema, &mut object);
        assert_eq!(object, json!({"spec": {"a": "x", "n": "y"}}));
        let mut object = json!({"spec": {"a": null, "n": null, "gone": null, "list": [{}, {"d": 1}]}});
        default(&schema, &mut object);
        assert_eq!(object, json!({"spec": {"a": "x", "n": null, "list": [{"d": 3}, {"d": 1}]}}));
    }
}
