//! Version 2 in protobuf, by the messages of gnostic's `openapi.v2.Document`; kubectl asks for it in this form.
//!
//! Only what our documents hold is written. Values of extensions and defaults travel as YAML text, and JSON is YAML.

use std::convert::Infallible;

use serde_json::{Map, Value};

use super::Sink;
use crate::codec::proto::wire::{put_bytes, put_int, put_nested, put_tag};

type Object = Map<String, Value>;

/// Gathers the parts of the document.
#[derive(Default)]
pub(super) struct Writer {
    paths: Vec<u8>,
    definitions: Vec<u8>,
}

impl Sink for Writer {
    fn path(&mut self, name: &str, item: &Value) {
        named_one(&mut self.paths, 2, name, item, path_item);
    }

    fn definition(&mut self, name: &str, schema_value: &Value) {
        named_one(&mut self.definitions, 1, name, schema_value, schema);
    }
}

impl Writer {
    /// The document, with what stands around its paths and definitions.
    pub(super) fn finish(self, around: &Value) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.paths.len() + self.definitions.len() + 512);
        text(&mut out, 1, around.get("swagger"));
        message(&mut out, 2, around.get("info"), |out, info| {
            text(out, 1, info.get("title"));
            text(out, 2, info.get("version"));
        });
        put_bytes(&mut out, 8, &self.paths);
        put_bytes(&mut out, 9, &self.definitions);
        for requirement in list(around.get("security")) {
            nested(&mut out, 12, |out| {
                named(out, 1, Some(requirement), |out, value| list(Some(value)).for_each(|scope| text(out, 1, Some(scope))));
            });
        }
        nested(&mut out, 13, |out| {
            named(out, 1, around.get("securityDefinitions"), |out, value| {
                message(out, 2, Some(value), |out, key| {
                    for (number, field) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
                        text(out, number, key.get(field));
                    }
                });
            });
        });
        out
    }
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn text(out: &mut Vec<u8>, number: u16, value: Option<&Value>) {
    if let Some(text) = value.and_then(Value::as_str).filter(|t| !t.is_empty()) {
        put_bytes(out, number, text.as_bytes());
    }
}

fn flag(out: &mut Vec<u8>, number: u16, value: Option<&Value>) {
    if value == Some(&Value::Bool(true)) {
        put_int(out, number, 1);
    }
}

fn integer(out: &mut Vec<u8>, number: u16, value: Option<&Value>) {
    if let Some(value) = value.and_then(Value::as_i64).filter(|n| *n != 0) {
        put_int(out, number, value);
    }
}

fn double(out: &mut Vec<u8>, number: u16, value: Option<&Value>) {
    if let Some(value) = value.and_then(Value::as_f64).filter(|n| *n != 0.0) {
        put_tag(out, number, crate::codec::proto::wire::FIXED64);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

fn nested(out: &mut Vec<u8>, number: u16, content: impl FnOnce(&mut Vec<u8>)) {
    let done: Result<(), Infallible> = put_nested(out, number, |out| {
        content(out);
        Ok(())
    });
    match done {
        Ok(()) => {}
    }
}

fn message(out: &mut Vec<u8>, number: u16, value: Option<&Value>, content: impl FnOnce(&mut Vec<u8>, &Object)) {
    if let Some(Value::Object(object)) = value {
        nested(out, number, |out| content(out, object));
    }
}

/// A map as gnostic has it: messages of a name and a value.
fn named(out: &mut Vec<u8>, number: u16, value: Option<&Value>, content: impl Fn(&mut Vec<u8>, &Value)) {
    for (name, value) in value.and_then(Value::as_object).into_iter().flatten() {
        named_one(out, number, name, value, &content);
    }
}

fn named_one(out: &mut Vec<u8>, number: u16, name: &str, value: &Value, content: impl Fn(&mut Vec<u8>, &Value)) {
    nested(out, number, |out| {
        put_bytes(out, 1, name.as_bytes());
        nested(out, 2, |out| content(out, value));
    });
}

/// `Any`: YAML text.
fn any(out: &mut Vec<u8>, value: &Value) {
    put_bytes(out, 2, format!("{value}\n").as_bytes());
}

fn extensions(out: &mut Vec<u8>, number: u16, object: &Object) {
    for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
        nested(out, number, |out| {
            put_bytes(out, 1, name.as_bytes());
            nested(out, 2, |out| any(out, value));
        });
    }
}

fn path_item(out: &mut Vec<u8>, item: &Value) {
    let methods = ["get", "put", "post", "delete", "options", "head", "patch"];
    for (number, method) in (2..).zip(methods) {
        message(out, number, item.get(method), operation);
    }
    list(item.get("parameters")).for_each(|p| parameter(out, 9, p));
}

fn operation(out: &mut Vec<u8>, operation: &Object) {
    list(operation.get("tags")).for_each(|t| text(out, 1, Some(t)));
    text(out, 3, operation.get("description"));
    text(out, 5, operation.get("operationId"));
    list(operation.get("produces")).for_each(|t| text(out, 6, Some(t)));
    list(operation.get("consumes")).for_each(|t| text(out, 7, Some(t)));
    list(operation.get("parameters")).for_each(|p| parameter(out, 8, p));
    nested(out, 9, |out| {
        named(out, 1, operation.get("responses"), |out, value| message(out, 1, Some(value), response));
    });
    list(operation.get("schemes")).for_each(|t| text(out, 10, Some(t)));
    extensions(out, 13, operation);
}

fn response(out: &mut Vec<u8>, response: &Object) {
    text(out, 1, response.get("description"));
    if let Some(of) = response.get("schema") {
        nested(out, 2, |out| nested(out, 1, |out| schema(out, of)));
    }
}

/// `ParametersItem` → `Parameter` → a body, or a query or path parameter.
fn parameter(out: &mut Vec<u8>, number: u16, value: &Value) {
    let Value::Object(p) = value else { return };
    let place = p.get("in").and_then(Value::as_str).unwrap_or("");
    nested(out, number, |out| {
        nested(out, 1, |out| match place {
            "body" => nested(out, 1, |out| {
                text(out, 1, p.get("description"));
                text(out, 2, p.get("name"));
                text(out, 3, p.get("in"));
                flag(out, 4, p.get("required"));
                if let Some(of) = p.get("schema") {
                    nested(out, 5, |out| schema(out, of));
                }
            }),
            "path" => nested(out, 2, |out| nested(out, 4, |out| simple_parameter(out, p, 5, 18))),
            _ => nested(out, 2, |out| nested(out, 3, |out| simple_parameter(out, p, 6, 20))),
        });
    });
}

fn simple_parameter(out: &mut Vec<u8>, p: &Object, kind: u16, unique: u16) {
    flag(out, 1, p.get("required"));
    text(out, 2, p.get("in"));
    text(out, 3, p.get("description"));
    text(out, 4, p.get("name"));
    text(out, kind, p.get("type"));
    flag(out, unique, p.get("uniqueItems"));
}

fn schema(out: &mut Vec<u8>, value: &Value) {
    let Value::Object(s) = value else { return };
    for (number, field) in [(1, "$ref"), (2, "format"), (3, "title"), (4, "description")] {
        text(out, number, s.get(field));
    }
    if let Some(default) = s.get("default") {
        nested(out, 5, |out| any(out, default));
    }
    for (number, field) in [(6, "multipleOf"), (7, "maximum"), (9, "minimum")] {
        double(out, number, s.get(field));
    }
    flag(out, 8, s.get("exclusiveMaximum"));
    flag(out, 10, s.get("exclusiveMinimum"));
    for (number, field) in
        [(11, "maxLength"), (12, "minLength"), (14, "maxItems"), (15, "minItems"), (17, "maxProperties"), (18, "minProperties")]
    {
        integer(out, number, s.get(field));
    }
    text(out, 13, s.get("pattern"));
    flag(out, 16, s.get("uniqueItems"));
    list(s.get("required")).for_each(|r| text(out, 19, Some(r)));
    list(s.get("enum")).for_each(|e| nested(out, 20, |out| any(out, e)));
    match s.get("additionalProperties") {
        Some(Value::Bool(allowed)) => nested(out, 21, |out| put_int(out, 2, i64::from(*allowed))),
        Some(of) => nested(out, 21, |out| nested(out, 1, |out| schema(out, of))),
        None => {}
    }
    if let Some(kind) = s.get("type") {
        nested(out, 22, |out| text(out, 1, Some(kind)));
    }
    if let Some(items) = s.get("items") {
        nested(out, 23, |out| nested(out, 1, |out| schema(out, items)));
    }
    list(s.get("allOf")).for_each(|of| nested(out, 24, |out| schema(out, of)));
    if s.contains_key("properties") {
        nested(out, 25, |out| named(out, 1, s.get("properties"), schema));
    }
    message(out, 29, s.get("externalDocs"), |out, docs| {
        text(out, 1, docs.get("description"));
        text(out, 2, docs.get("url"));
    });
    if let Some(example) = s.get("example") {
        nested(out, 30, |out| any(out, example));
    }
    extensions(out, 31, s);
}
