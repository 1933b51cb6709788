//! Objects inside custom resources (`x-kubernetes-embedded-resource`): they have a type, and metadata as all objects have.

use serde_json::{Map, Value};
use tiphys_meta::{ErrorList, ErrorType, FieldError, names};

use super::{additional, flag, properties};
use crate::codec::{Strictness, json};

/// What to do about metadata that no object can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// A client sent it: it is told.
    Refuse,
    /// It was stored before anybody looked: it goes.
    Drop,
}

/// Brings types and metadata of embedded objects into canonical form. Returns the fields that their metadata does not know, sorted, as
/// `unknown field "spec.template.metadata.foo"`; or what does not fit.
pub fn coerce(schema: &Value, object: &mut Value, misfit: Misfit) -> Result<Vec<String>, FieldError> {
    let mut unknown = Vec::new();
    walk(schema, object, "", &mut |value, path| coerce_one(value, path, misfit, &mut unknown))?;
    unknown.sort();
    Ok(unknown)
}

/// Every embedded object, outer ones first, with its path.
fn walk<E>(
    schema: &Value,
    value: &mut Value,
    path: &str,
    see: &mut impl FnMut(&mut Map<String, Value>, &str) -> Result<(), E>,
) -> Result<(), E> {
    match value {
        Value::Object(map) => {
            if flag(schema, "x-kubernetes-embedded-resource") {
                see(map, path)?;
            }
            for (name, value) in map {
                match (properties(schema).and_then(|p| p.get(name)), additional(schema).flatten()) {
                    (Some(of), _) => walk(of, value, &below(path, name), see)?,
                    (None, Some(of)) => walk(of, value, &format!("{path}[{name}]"), see)?,
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(of) = schema.get("items") {
                for (i, item) in items.iter_mut().enumerate() {
                    walk(of, item, &format!("{path}[{i}]"), see)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn invalid(field: String, value: Value, detail: impl Into<String>) -> FieldError {
    FieldError { kind: ErrorType::Invalid, field, value: Some(value), detail: detail.into() }
}

fn coerce_one(map: &mut Map<String, Value>, path: &str, misfit: Misfit, unknown: &mut Vec<String>) -> Result<(), FieldError> {
    for name in ["apiVersion", "kind"] {
        let Some(value) = map.get(name).filter(|v| !v.is_string()).cloned() else { continue };
        if misfit == Misfit::Refuse {
            return Err(invalid(below(path, name), value, "must be a string"));
        }
        map.remove(name);
    }
    let Some(metadata) = map.get("metadata").cloned() else { return Ok(()) };
    let mut holder = Value::Object(Map::from_iter([("metadata".to_owned(), metadata.clone())]));
    match json::canonicalize_metadata(&mut holder, Strictness::Strict) {
        Ok(problems) => {
            map.insert("metadata".into(), holder["metadata"].take());
            unknown.extend(problems.iter().map(|p| p.replacen("\"metadata", &format!("\"{}", below(path, "metadata")), 1)));
            Ok(())
        }
        Err(error) if misfit == Misfit::Refuse => Err(invalid(below(path, "metadata"), metadata, error.to_string())),
        Err(_) => Ok(()),
    }
}

/// Embedded objects say their type; what they say must be possible.
pub fn validate(schema: &Value, object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    // The walk of coercion does for reading too: embedded objects are few, and most schemas have none.
    if mentions(schema) {
        let never = walk(schema, &mut object.clone(), "", &mut |map, path| {
            check_one(map, path, &mut errors);
            Ok::<(), std::convert::Infallible>(())
        });
        match never {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }
    errors
}

/// Whether a schema has embedded objects anywhere.
fn mentions(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) || map.values().any(mentions),
        Value::Array(list) => list.iter().any(mentions),
        _ => false,
    }
}

fn check_one(map: &Map<String, Value>, path: &str, errors: &mut ErrorList) {
    for name in ["apiVersion", "kind"] {
        let field = below(path, name);
        match map.get(name) {
            None => errors.push(FieldError { kind: ErrorType::Required, field, value: None, detail: String::new() }),
            Some(Value::String(text)) if text.is_empty() => errors.push(invalid(field, Value::from(""), "must not be empty")),
            Some(Value::String(text)) if name == "apiVersion" && text.matches('/').count() > 1 => {
                errors.push(invalid(field, Value::from(text.as_str()), format!("unexpected GroupVersion string: {text}")));
            }
            Some(Value::String(text)) if name == "kind" => {
                let messages = names::dns1035_label(&text.to_lowercase());
                if !messages.is_empty() {
                    let why = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
                    errors.push(invalid(field, Value::from(text.as_str()), why));
                }
            }
            Some(Value::String(_)) => {}
            Some(other) => errors.push(invalid(field, other.clone(), "must be a string")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"pods": {"type": "array", "items": {
            "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}}}})
    }

    #[test]
    fn metadata_is_cleaned() {
        let mut object = json!({"spec": {"pods": [{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "foo": 1}}]}});
        let unknown = coerce(&schema(), &mut object, Misfit::Refuse).unwrap();
        assert_eq!(unknown, ["unknown field \"spec.pods[0].metadata.foo\""]);
        assert_eq!(object["spec"]["pods"][0]["metadata"], json!({"name": "a"}));
        let mut object = json!({"spec": {"pods": [{"kind": 1}]}});
        assert_eq!(coerce(&schema(), &mut object.clone(), Misfit::Refuse).unwrap_err().field, "spec.pods[0].kind");
        assert_eq!(coerce(&schema(), &mut object, Misfit::Drop), Ok(Vec::new()));
        assert_eq!(object, json!({"spec": {"pods": [{}]}}));
    }

    #[test]
    fn types_are_required() {
        let errors = validate(&schema(), &json!({"spec": {"pods": [{"kind": "P_", "apiVersion": ""}, {}]}}));
        let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["spec.pods[0].apiVersion", "spec.pods[0].kind", "spec.pods[1].apiVersion", "spec.pods[1].kind"]);
    }
}
