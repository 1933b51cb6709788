//! Version 2: one document for everything.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::definitions::{self, Form, REF};
use super::paths::{self, Answer, Body, Operation, Parameter, Paths};
use super::{Custom, Sink, routes, v3};
use crate::facts::Facts;

/// What clients see as the version of the API in both documents.
pub(super) const VERSION: &str = "v1.36.3";

/// Writes the document into the sink, group version by group version.
pub(super) fn write(custom: &[Custom], sink: &mut dyn Sink) {
    let mut homes: Vec<(&str, &str)> = Facts::builtin().groups().iter().flat_map(|g| g.versions.iter().map(|v| (g.name, *v))).collect();
    homes.extend(custom.iter().map(|c| (c.group.as_str(), c.version.as_str())));
    homes.sort_unstable();
    homes.dedup();
    let mut roots = BTreeSet::new();
    let mut put = |paths: Paths| {
        print(paths, &mut |path, item| {
            definitions::collect_refs(&item, &mut roots);
            sink.path(path, &item);
        });
    };
    ["version", "api", "apis"].iter().for_each(|root| put(paths::of_root(root)));
    for (i, (group, version)) in homes.iter().enumerate() {
        if !group.is_empty() && (i == 0 || homes[i - 1].0 != *group) {
            put(paths::of_root(&format!("apis/{group}")));
        }
        put(paths::of_version(group, version, &routes(group, version, custom)));
    }
    let is_custom = |name: &str| custom.iter().any(|c| c.definition_name() == name);
    definitions::each(roots, &homes, custom, Form::V2, &mut |name, schema| {
        let schema = if is_custom(name) { rename_refs(schema) } else { down(schema) };
        sink.definition(name, &schema);
    });
}

const OLD_REF: &str = "#/definitions/";

/// A custom schema is in version 2 already, but for references.
fn rename_refs(schema: Value) -> Value {
    match schema {
        Value::Object(mut map) => {
            if let Some(Value::Array(all)) = map.get("allOf")
                && let [one] = &all[..]
                && let Some(target) = one.get("$ref").and_then(Value::as_str)
            {
                let target = target.replacen(REF, OLD_REF, 1);
                map.remove("allOf");
                map.insert("$ref".into(), json!(target));
            }
            map.into_iter().map(|(name, value)| (name, rename_refs(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(list) => list.into_iter().map(rename_refs).collect(),
        other => other,
    }
}

/// A schema of version 3 as version 2 knows it: no defaults, references without siblings, no alternatives.
fn down(schema: Value) -> Value {
    let Value::Object(mut map) = schema else { return schema };
    map.remove("default");
    map.remove("nullable");
    for dropped in ["not", "anyOf"] {
        map.remove(dropped);
    }
    if let Some(Value::String(target)) = map.get_mut("$ref") {
        *target = target.replacen(REF, OLD_REF, 1);
    }
    if let Some(Value::Array(all)) = map.remove("allOf")
        && let [one] = &all[..]
        && let Some(target) = one.get("$ref").and_then(Value::as_str)
    {
        map.insert("$ref".into(), json!(target.replacen(REF, OLD_REF, 1)));
    }
    if map.remove("oneOf").is_some() && !map.contains_key("type") {
        map.insert("type".into(), json!("string"));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.remove(key) {
            map.insert(key.into(), down(inner));
        }
    }
    if let Some(Value::Object(properties)) = map.remove("properties") {
        let properties: Map<String, Value> = properties.into_iter().map(|(k, v)| (k, down(v))).collect();
        map.insert("properties".into(), Value::Object(properties));
    }
    Value::Object(map)
}

fn print(paths: Paths, run: &mut dyn FnMut(&str, Value)) {
    for (path, operations) in paths {
        let shared = v3::shared_parameters(&operations);
        let mut item = Map::new();
        for (method, operation) in &operations {
            item.insert((*method).to_owned(), print_operation(operation, &shared));
        }
        if !shared.is_empty() {
            item.insert("parameters".into(), shared.iter().map(print_parameter).collect());
        }
        run(&path, Value::Object(item));
    }
}

fn print_operation(operation: &Operation, shared: &[Parameter]) -> Value {
    let schema = match &operation.answer {
        Answer::Ref(name) => json!({"$ref": format!("{OLD_REF}{name}")}),
        Answer::Text => json!({"type": "string"}),
    };
    let mut responses = json!({"401": {"description": "Unauthorized"}});
    for code in operation.codes {
        responses[*code] = json!({"description": v3::described(code), "schema": schema});
    }
    let consumes = match (&operation.body, &operation.action) {
        (Some(Body::Patch), _) => json!(v3::patches(operation)),
        (_, Some(_)) => json!(["*/*"]),
        // Documents about the API say what they produce.
        _ => json!(v3::media_types(operation)),
    };
    let mut printed = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "schemes": ["https"],
        "consumes": consumes,
        "produces": v3::media_types(operation),
        "responses": responses,
    });
    let body = match &operation.body {
        Some(Body::Object(name, required)) => Some((name.as_str(), *required)),
        Some(Body::Patch) => Some(("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", true)),
        None => None,
    };
    let mut own: Vec<Value> = Vec::new();
    if let Some((name, required)) = body {
        let mut parameter = json!({"in": "body", "name": "body", "schema": {"$ref": format!("{OLD_REF}{name}")}});
        if required {
            parameter["required"] = json!(true);
        }
        own.push(parameter);
    }
    own.extend(operation.parameters.iter().filter(|p| !shared.contains(p)).map(print_parameter));
    if !own.is_empty() {
        printed["parameters"] = own.into();
    }
    if let Some((action, gvk)) = &operation.action {
        printed["x-kubernetes-action"] = json!(action);
        printed["x-kubernetes-group-version-kind"] = json!({"group": gvk.group, "kind": gvk.kind, "version": gvk.version});
    }
    printed
}

fn print_parameter(parameter: &Parameter) -> Value {
    let mut printed = json!({"in": parameter.place, "name": parameter.name, "type": parameter.kind, "uniqueItems": true});
    if parameter.place == "path" {
        printed["required"] = json!(true);
    }
    printed
}
