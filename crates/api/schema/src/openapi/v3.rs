//! Version 3: one document for each group version.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::definitions::{self, Form, REF};
use super::paths::{self, Answer, Body, Operation, Parameter, Paths, Produces};
use super::{Custom, Sink, routes};

/// Writes the document of a path into the sink.
pub(super) fn write(path: &str, custom: &[Custom], sink: &mut dyn Sink) {
    let home = path.strip_prefix("apis/").or_else(|| path.strip_prefix("api/")).unwrap_or("");
    let version = home.split_once('/').or_else(|| path.starts_with("api/").then_some(("", home)));
    let all = match version {
        Some((group, version)) => paths::of_version(group, version, &routes(group, version, custom)),
        None => paths::of_root(path),
    };
    let mut roots = BTreeSet::new();
    print(all, &mut |path, item| {
        definitions::collect_refs(&item, &mut roots);
        sink.path(path, &item);
    });
    let home: Vec<(&str, &str)> = version.into_iter().collect();
    definitions::each(roots, &home, custom, Form::V3, &mut |name, schema| sink.definition(name, &schema));
}

pub(super) fn security() -> Value {
    json!({"BearerToken": {"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"}})
}

fn print(paths: Paths, run: &mut dyn FnMut(&str, Value)) {
    for (path, operations) in paths {
        let shared = shared_parameters(&operations);
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

/// Parameters that all operations of a path have stand at the path.
pub(super) fn shared_parameters(operations: &BTreeMap<&'static str, Operation>) -> Vec<Parameter> {
    let Some(first) = operations.values().next() else { return Vec::new() };
    let shared = first.parameters.iter().filter(|p| operations.values().all(|o| o.parameters.contains(p)));
    shared.cloned().collect()
}

fn print_operation(operation: &Operation, shared: &[Parameter]) -> Value {
    let mut printed = json!({"operationId": operation.id, "tags": [operation.tag], "responses": responses(operation)});
    let own: Vec<Value> = operation.parameters.iter().filter(|p| !shared.contains(p)).map(print_parameter).collect();
    if !own.is_empty() {
        printed["parameters"] = own.into();
    }
    if let Some((action, gvk)) = &operation.action {
        printed["x-kubernetes-action"] = json!(action);
        printed["x-kubernetes-group-version-kind"] = json!({"group": gvk.group, "kind": gvk.kind, "version": gvk.version});
    }
    match &operation.body {
        Some(Body::Object(name, required)) => {
            printed["requestBody"] = json!({"content": {"*/*": {"schema": {"$ref": format!("{REF}{name}")}}}});
            if *required {
                printed["requestBody"]["required"] = json!(true);
            }
        }
        Some(Body::Patch) => {
            let patch = json!({"schema": {"$ref": format!("{REF}io.k8s.apimachinery.pkg.apis.meta.v1.Patch")}});
            let content: Map<String, Value> = patches(operation).iter().map(|t| ((*t).to_owned(), patch.clone())).collect();
            printed["requestBody"] = json!({"content": content, "required": true});
        }
        None => {}
    }
    printed
}

/// The patches that an operation takes; custom resources know no strategic one.
pub(super) fn patches(operation: &Operation) -> &'static [&'static str] {
    const BUILT_IN: [&str; 4] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    const CUSTOM: [&str; 3] = [BUILT_IN[0], BUILT_IN[1], BUILT_IN[3]];
    if operation.custom { &CUSTOM } else { &BUILT_IN }
}

fn responses(operation: &Operation) -> Value {
    let schema = match &operation.answer {
        Answer::Ref(name) => json!({"$ref": format!("{REF}{name}")}),
        Answer::Text => json!({"type": "string"}),
    };
    let content: Map<String, Value> = media_types(operation).iter().map(|t| ((*t).to_owned(), json!({"schema": schema}))).collect();
    let mut all = json!({"401": {"description": "Unauthorized"}});
    for code in operation.codes {
        all[*code] = json!({"description": described(code), "content": content});
    }
    all
}

/// The words of HTTP for a code, which OpenAPI requires.
pub(super) fn described(code: &str) -> &'static str {
    match code {
        "201" => "Created",
        "202" => "Accepted",
        _ => "OK",
    }
}

pub(super) fn media_types(operation: &Operation) -> &'static [&'static str] {
    match operation.produces {
        Produces::Objects | Produces::Watch if operation.custom => &["application/json", "application/yaml"],
        Produces::Objects => &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"],
        Produces::Watch => &[
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
            "application/json;stream=watch",
            "application/vnd.kubernetes.protobuf;stream=watch",
        ],
        Produces::Log => &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"],
        Produces::Anything => &["*/*"],
        Produces::Keys => &["application/json"],
    }
}

fn print_parameter(parameter: &Parameter) -> Value {
    let mut printed = json!({"in": parameter.place, "name": parameter.name, "schema": {"type": parameter.kind, "uniqueItems": true}});
    if parameter.place == "path" {
        printed["required"] = json!(true);
    }
    printed
}
