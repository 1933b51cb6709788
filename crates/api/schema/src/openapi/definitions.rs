//! Schemas of types, as version 3 has them; version 2 is made from these.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Custom;
use super::words::{self, Words};
use crate::facts::{Facts, Field, Shape, Type};

pub(super) const REF: &str = "#/components/schemas/";

/// The version of OpenAPI that custom resources are to be described in; what is built in is always described in version 3 here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V2,
    V3,
}

/// Hands out all definitions that the roots reach, one by one: all at once would be many times the size of the document. `home` are the group
/// versions of the document: options and watch events are registered for them, too.
pub(super) fn each(roots: BTreeSet<String>, home: &[(&str, &str)], custom: &[Custom], form: Form, run: &mut dyn FnMut(&str, Value)) {
    let words = words::shared();
    let mut done = BTreeSet::new();
    let mut open = roots;
    while let Some(name) = open.pop_first() {
        if let Some(schema) = definition(&name, home, custom, form, &words) {
            let mut found = Vec::new();
            collect_refs(&schema, &mut found);
            open.extend(found.into_iter().filter(|f| *f != name && !done.contains(f)));
            run(&name, schema);
        }
        done.insert(name);
    }
}

/// The names of all schemas that a tree refers to.
pub(super) fn collect_refs(value: &Value, into: &mut impl Extend<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(target) if key == "$ref" => into.extend(target.rsplit_once('/').map(|(_, name)| name.to_owned())),
                    other => collect_refs(other, into),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|v| collect_refs(v, into)),
        _ => {}
    }
}

fn definition(name: &str, home: &[(&str, &str)], custom: &[Custom], form: Form, words: &Words) -> Option<Value> {
    if let Some(mut schema) = special(name).or_else(|| Facts::builtin().type_named(name).map(|ty| of_type(ty, home))) {
        words.describe(name, &mut schema);
        return Some(schema);
    }
    custom.iter().find_map(|c| match () {
        () if c.definition_name() == name => Some(of_custom(c, form)),
        () if c.list_definition_name() == name => Some(of_custom_list(c)),
        () => None,
    })
}

/// Types whose JSON is not what their fields say.
fn special(name: &str) -> Option<Value> {
    Some(match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" | "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => {
            json!({"format": "date-time", "type": "string"})
        }
        "io.k8s.apimachinery.pkg.apis.meta.v1.Duration" => json!({"type": "string"}),
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"
        | "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
        | "io.k8s.apimachinery.pkg.runtime.RawExtension" => json!({"type": "object"}),
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => json!({}),
        "io.k8s.apimachinery.pkg.version.Info" => version_info(),
        _ => return None,
    })
}

fn version_info() -> Value {
    const REQUIRED: [(&str, &str); 9] = [
        ("major", "The first number of the version."),
        ("minor", "The second number of the version."),
        ("gitVersion", "The whole version, as v1.36.3."),
        ("gitCommit", "The commit that the program was built from."),
        ("gitTreeState", "clean, or dirty if the sources had changes beside the commit."),
        ("buildDate", "When the program was built, by RFC 3339."),
        ("goVersion", "The version of the compiler."),
        ("compiler", "The name of the compiler."),
        ("platform", "Operating system and architecture, as linux/amd64."),
    ];
    const OPTIONAL: [(&str, &str); 4] = [
        ("emulationMajor", "The first number of the version whose behaviour is emulated."),
        ("emulationMinor", "The second number of the version whose behaviour is emulated."),
        ("minCompatibilityMajor", "The first number of the oldest version that this one works together with."),
        ("minCompatibilityMinor", "The second number of the oldest version that this one works together with."),
    ];
    let required = REQUIRED.map(|(name, words)| (name.to_owned(), json!({"default": "", "type": "string", "description": words})));
    let optional = OPTIONAL.map(|(name, words)| (name.to_owned(), json!({"type": "string", "description": words})));
    let properties: Map<String, Value> = required.into_iter().chain(optional).collect();
    json!({"description": "Which program this is.", "properties": properties, "required": REQUIRED.map(|(name, _)| name), "type": "object"})
}

fn of_type(ty: &'static Type, home: &[(&str, &str)]) -> Value {
    let mut schema = Map::new();
    let index = ty.index();
    if !index.flat().is_empty() {
        let properties: Map<String, Value> = index.flat().iter().map(|f| (f.field.name.to_owned(), property(f.field))).collect();
        schema.insert("properties".into(), Value::Object(properties));
    }
    let required = required(ty);
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    schema.insert("type".into(), json!("object"));
    let kinds = kinds(ty, home);
    if !kinds.is_empty() {
        schema.insert("x-kubernetes-group-version-kind".into(), Value::Array(kinds));
    }
    if let Some(map_type) = ty.map_type() {
        schema.insert("x-kubernetes-map-type".into(), json!(map_type));
    }
    if let Some(unions) = ty.unions().and_then(|u| serde_json::from_str(u).ok()) {
        schema.insert("x-kubernetes-unions".into(), unions);
    }
    Value::Object(schema)
}

/// Required fields in the order of the Go struct.
fn required(ty: &'static Type) -> Vec<&'static str> {
    let mut names = Vec::new();
    for field in ty.fields() {
        match field.shape {
            Shape::Message(inner) if field.inline() => {
                // OpenAPI marks fields of inlined structs on the struct that is published; look there first.
                names.extend(required(inner.get()));
            }
            _ if field.required() => names.push(field.name),
            _ => {}
        }
    }
    names
}

/// The kinds whose objects are of the type.
fn kinds(ty: &'static Type, home: &[(&str, &str)]) -> Vec<Value> {
    let facts = Facts::builtin();
    let mut gvks: Vec<(&str, &str, &str)> = facts
        .kinds()
        .filter(|k| k.type_name() == ty.name && k.gvk.group != "meta.k8s.io")
        .map(|k| (&*k.gvk.group, &*k.gvk.version, &*k.gvk.kind))
        .collect();
    if matches!(ty.short_name(), "DeleteOptions" | "WatchEvent") {
        gvks.extend(home.iter().map(|(group, version)| (*group, *version, ty.short_name())));
    }
    gvks.sort_unstable();
    gvks.dedup();
    gvks.into_iter().map(|(group, version, kind)| json!({"group": group, "kind": kind, "version": version})).collect()
}

fn property(field: &'static Field) -> Value {
    let mut schema = Map::new();
    let default = field.default().and_then(|d| serde_json::from_str::<Value>(d).ok());
    match reference(field.shape) {
        Some(target) if field.bare_reference() => {
            schema.insert("$ref".into(), json!(target));
        }
        Some(target) => {
            schema.insert("allOf".into(), json!([{"$ref": target}]));
        }
        None => inline_shape(field, field.shape, &mut schema),
    }
    if let Some(default) = default {
        schema.insert("default".into(), default);
    }
    extensions(field, &mut schema);
    Value::Object(schema)
}

fn extensions(field: &Field, schema: &mut Map<String, Value>) {
    let keys: Vec<&str> = field.list_map_keys().collect();
    if !keys.is_empty() {
        schema.insert("x-kubernetes-list-map-keys".into(), json!(keys));
    }
    let texts = [
        ("x-kubernetes-list-type", field.list_type()),
        ("x-kubernetes-map-type", field.map_type()),
        ("x-kubernetes-patch-merge-key", field.merge_key()),
        ("x-kubernetes-patch-strategy", field.patch_strategy()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            schema.insert(name.into(), json!(text));
        }
    }
}

/// The schema that a shape refers to, if it is not written in place.
fn reference(shape: &Shape) -> Option<String> {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
    const CRD: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
    let name = match shape {
        Shape::Message(ty) => ty.get().name.to_owned(),
        Shape::Time => format!("{META}.Time"),
        Shape::MicroTime => format!("{META}.MicroTime"),
        Shape::Duration => format!("{META}.Duration"),
        Shape::FieldsV1 => format!("{META}.FieldsV1"),
        Shape::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity".into(),
        Shape::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString".into(),
        Shape::Raw => "io.k8s.apimachinery.pkg.runtime.RawExtension".into(),
        Shape::Json => format!("{CRD}.JSON"),
        Shape::OrBool(_) => format!("{CRD}.JSONSchemaPropsOrBool"),
        Shape::OrArray(_) => format!("{CRD}.JSONSchemaPropsOrArray"),
        Shape::OrStrings(_) => format!("{CRD}.JSONSchemaPropsOrStringArray"),
        _ => return None,
    };
    Some(format!("{REF}{name}"))
}

fn inline_shape(field: &Field, shape: &Shape, schema: &mut Map<String, Value>) {
    let (kind, format) = match shape {
        Shape::Bool => ("boolean", ""),
        Shape::I32 => ("integer", "int32"),
        Shape::I64 => ("integer", "int64"),
        Shape::U32 => ("integer", "int64"),
        Shape::U64 => ("integer", "int64"),
        Shape::F64 => ("number", "double"),
        Shape::Bytes => ("string", "byte"),
        Shape::Any | Shape::Map(_) => ("object", ""),
        Shape::List(_) | Shape::Items(_) => ("array", ""),
        _ => ("string", ""),
    };
    schema.insert("type".into(), json!(kind));
    // Only a field that is no list says another format than its type's (`StatusCause` and the like do not).
    let format = field.format().filter(|_| std::ptr::eq(shape, field.shape)).unwrap_or(format);
    if !format.is_empty() {
        schema.insert("format".into(), json!(format));
    }
    match shape {
        Shape::List(of) | Shape::Items(of) => drop(schema.insert("items".into(), element(field, of, true))),
        Shape::Map(of) => drop(schema.insert("additionalProperties".into(), element(field, of, true))),
        _ => {}
    }
}

/// The schema of list items and map values. The default that the facts tell is that of the outermost elements.
fn element(field: &Field, shape: &Shape, outer: bool) -> Value {
    let default = field.element_default().filter(|_| outer).and_then(|d| serde_json::from_str::<Value>(d).ok());
    let mut schema = Map::new();
    match (reference(shape), &default) {
        (Some(target), None) => drop(schema.insert("$ref".into(), json!(target))),
        (Some(target), Some(_)) => drop(schema.insert("allOf".into(), json!([{"$ref": target}]))),
        (None, _) => inline_element(field, shape, &mut schema),
    }
    if let Some(default) = default {
        schema.insert("default".into(), default);
    }
    Value::Object(schema)
}

fn inline_element(field: &Field, shape: &Shape, schema: &mut Map<String, Value>) {
    inline_shape(field, shape, schema);
    // Lists within maps: their items are strings that default to nothing.
    if let (Shape::List(of) | Shape::Items(of), Some(items)) = (shape, schema.get_mut("items"))
        && **of == Shape::Str
    {
        *items = json!({"default": "", "type": "string"});
    }
}

/// A custom resource. Where nothing is known of it, or anything may be in it, properties are not told: clients would refuse all others.
fn of_custom(custom: &Custom, form: Form) -> Value {
    let keeps_unknown = |s: &Value| s.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let mut schema = match &custom.schema {
        Some(schema) if form == Form::V3 || !keeps_unknown(schema) => {
            let mut schema = if form == Form::V2 { to_v2(schema) } else { schema.clone() };
            add_embedded(&mut schema, form);
            add_properties(&mut schema);
            schema
        }
        _ => json!({"type": "object"}),
    };
    schema["x-kubernetes-group-version-kind"] = json!([gvk(custom, &custom.kind)]);
    schema
}

fn add_properties(schema: &mut Value) {
    let meta = format!("{REF}io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    schema["properties"]["apiVersion"] = json!({"type": "string", "description": words::API_VERSION});
    schema["properties"]["kind"] = json!({"type": "string", "description": words::KIND});
    schema["properties"]["metadata"] = json!({"allOf": [{"$ref": meta}], "description": words::METADATA});
}

/// Objects within objects have the fields of all objects.
fn add_embedded(schema: &mut Value, form: Form) {
    let flag = |s: &Value, name: &str| s.get(name) == Some(&Value::Bool(true));
    for_each_child(schema, &mut |child| add_embedded(child, form));
    let keeps_unknown = form == Form::V2 && flag(schema, "x-kubernetes-preserve-unknown-fields");
    if keeps_unknown || !flag(schema, "x-kubernetes-embedded-resource") {
        return;
    }
    add_properties(schema);
    let mut required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
    for name in ["kind", "apiVersion"] {
        if !required.contains(&json!(name)) {
            required.push(json!(name));
        }
    }
    schema["required"] = Value::Array(required);
}

fn for_each_child(schema: &mut Value, run: &mut impl FnMut(&mut Value)) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(&mut *run);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(child @ Value::Object(_)) = schema.get_mut(name) {
            run(child);
        }
    }
}

/// What of a structural schema version 2 can say, and kubectl can bear: no alternatives, no nulls, no properties where others are kept, too.
fn to_v2(schema: &Value) -> Value {
    let mut schema = schema.clone();
    reduce(&mut schema);
    schema
}

fn reduce(schema: &mut Value) {
    let nullable = |s: &Value| s.get("nullable") == Some(&Value::Bool(true));
    let Value::Object(map) = schema else { return };
    for junctor in ["allOf", "oneOf", "anyOf", "not"] {
        map.remove(junctor);
    }
    let keeps_unknown = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let is_nullable = map.remove("nullable") == Some(Value::Bool(true));
    if is_nullable {
        map.remove("type");
    }
    if is_nullable || keeps_unknown {
        map.remove("items");
        map.remove("properties");
    }
    let untyped = match map.get("type").and_then(Value::as_str) {
        Some("array") => !map.contains_key("items"),
        Some("object") => keeps_unknown,
        _ => false,
    };
    if untyped {
        map.remove("type");
    }
    let may_be_null: Vec<String> = match map.get("properties") {
        Some(Value::Object(properties)) => properties.iter().filter(|(_, p)| nullable(p)).map(|(name, _)| name.clone()).collect(),
        _ => Vec::new(),
    };
    let drop_all = map.get("additionalProperties").is_some_and(nullable);
    if let Some(Value::Array(required)) = map.get_mut("required") {
        required.retain(|name| !drop_all && !name.as_str().is_some_and(|n| may_be_null.iter().any(|m| m == n)));
        if required.is_empty() {
            map.remove("required");
        }
    }
    for_each_child(schema, &mut reduce);
}

fn of_custom_list(custom: &Custom) -> Value {
    let item = format!("{REF}{}", custom.definition_name());
    let meta = format!("{REF}io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": words::API_VERSION},
            "kind": {"type": "string", "description": words::KIND},
            "metadata": {"allOf": [{"$ref": meta}], "description": words::LIST_METADATA},
            "items": {"type": "array", "items": {"$ref": item}, "description": words::ITEMS},
        },
        "x-kubernetes-group-version-kind": [gvk(custom, &custom.list_kind)],
    })
}

fn gvk(custom: &Custom, kind: &str) -> Value {
    json!({"group": custom.group, "kind": kind, "version": custom.version})
}
