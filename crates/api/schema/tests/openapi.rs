//! Our OpenAPI documents against upstream's, without its prose and without CBOR, which is off by default.

mod upstream;

use serde_json::{Value, json};
use tiphys_schema::openapi::{self, Custom};

fn theirs(name: &str) -> Value {
    let dir = upstream::module("k8s.io/kubernetes@v1.36.3").join("api/openapi-spec");
    let bytes = std::fs::read(dir.join(name)).expect("document");
    let mut document = serde_json::from_slice(&bytes).expect("JSON");
    strip(&mut document);
    document
}

fn v2(custom: &[Custom]) -> Value {
    serde_json::from_slice(&openapi::v2_json(custom)).expect("JSON")
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("application/cbor");
            map.remove("application/cbor-seq");
            map.remove("application/apply-patch+cbor");
            if map.get("description").is_some_and(Value::is_string) {
                map.remove("description");
            }
            if let Some(version) = map.get_mut("version")
                && version == "unversioned"
            {
                *version = "v1.36.3".into();
            }
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => {
            list.retain(|v| !v.as_str().is_some_and(|t| t.contains("cbor")));
            list.iter_mut().for_each(strip);
        }
        _ => {}
    }
}

fn differences(path: &str, ours: &Value, theirs: &Value, into: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let null = Value::Null;
                differences(&format!("{path} > {key}"), a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null), into);
            }
        }
        _ if ours == theirs => {}
        _ => {
            let cut = |v: &Value| v.to_string().chars().take(160).collect::<String>();
            into.push(format!("{path}: ours {}, upstream's {}", cut(ours), cut(theirs)));
        }
    }
}

fn check(found: Vec<String>) {
    let shown: Vec<&String> = found.iter().take(12).collect();
    assert!(found.is_empty(), "{} differences: {shown:#?}", found.len());
}

/// Their windows alone are durations.
fn only_of_metrics(definition: &str) -> bool {
    definition.starts_with("io.k8s.metrics.") || definition == "io.k8s.apimachinery.pkg.apis.meta.v1.Duration"
}

/// Upstream, a server of its own brings this group.
const METRICS: &str = "metrics.k8s.io";

#[test]
fn version_3() {
    let mut found = Vec::new();
    for path in openapi::v3_paths(&[]).into_iter().filter(|p| !p.contains(METRICS)) {
        let mut ours: Value = serde_json::from_slice(&openapi::v3(&path, &[]).expect("document")).expect("JSON");
        strip(&mut ours);
        let schemas = ours["components"].as_object_mut().expect("components");
        schemas.retain(|_, v| *v != json!({}));
        differences(&path, &ours, &theirs(&format!("v3/{}_openapi.json", path.replace('/', "__"))), &mut found);
    }
    check(found);
}

#[test]
fn version_2() {
    let mut ours = v2(&[]);
    strip(&mut ours);
    ours["paths"].as_object_mut().expect("paths").retain(|path, _| !path.contains(METRICS));
    ours["definitions"].as_object_mut().expect("definitions").retain(|name, _| !only_of_metrics(name));
    let mut theirs = theirs("swagger.json");
    resolve_parameters(&mut theirs);
    // What upstream serves only where alpha and beta versions are switched on, and what is no resource.
    let paths = theirs["paths"].as_object_mut().expect("paths");
    let served = |p: &str| {
        !p.contains("alpha") && !p.contains("beta") && !p.starts_with("/logs") && !p.starts_with("/.well") && !p.starts_with("/openid")
    };
    paths.retain(|path, _| served(path) && !path.contains("internal.apiserver") && !path.contains("storagemigration"));
    let reached = ours["definitions"].as_object().expect("definitions").clone();
    let definitions = theirs["definitions"].as_object_mut().expect("definitions");
    definitions.retain(|name, _| reached.contains_key(name));
    for document in [&mut ours, &mut theirs] {
        for options in ["DeleteOptions", "WatchEvent"] {
            document["definitions"][format!("io.k8s.apimachinery.pkg.apis.meta.v1.{options}")]["x-kubernetes-group-version-kind"] =
                Value::Null;
        }
    }
    theirs.as_object_mut().expect("document").remove("parameters");
    let mut found = Vec::new();
    differences("", &ours, &theirs, &mut found);
    check(found);
}

/// Upstream's version 2 keeps parameters in one place and refers to them.
fn resolve_parameters(document: &mut Value) {
    let parameters = document["parameters"].clone();
    fn walk(value: &mut Value, parameters: &Value) {
        match value {
            Value::Object(map) => {
                let target = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/parameters/"));
                if let Some(target) = target {
                    *value = parameters[target].clone();
                } else {
                    map.values_mut().for_each(|v| walk(v, parameters));
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|v| walk(v, parameters)),
            _ => {}
        }
    }
    walk(&mut document["paths"], &parameters);
}

fn custom(schema: Option<Value>) -> Custom {
    Custom {
        group: "stable.example.com".into(),
        version: "v1".into(),
        plural: "crontabs".into(),
        kind: "CronTab".into(),
        list_kind: "CronTabList".into(),
        namespaced: true,
        status: true,
        scale: false,
        schema,
    }
}

#[test]
fn custom_resources() {
    let schema = json!({"type": "object", "description": "A table.", "properties": {"spec": {
        "type": "object", "required": ["cron", "maybe"],
        "properties": {
            "cron": {"type": "string", "default": "* * * * *", "pattern": "^.*$"},
            "maybe": {"type": "string", "nullable": true},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"x": {"type": "string"}}},
        },
    }}});
    let known = [custom(Some(schema.clone()))];
    let v2 = v2(&known);
    let definition = &v2["definitions"]["com.example.stable.v1.CronTab"];
    assert_eq!(definition["description"], "A table.");
    assert_eq!(definition["properties"]["metadata"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let gvk = json!([{"group": "stable.example.com", "kind": "CronTab", "version": "v1"}]);
    assert_eq!(definition["x-kubernetes-group-version-kind"], gvk);
    let spec = &definition["properties"]["spec"];
    assert_eq!(spec["required"], json!(["cron"]));
    assert_eq!(spec["properties"]["cron"], schema["properties"]["spec"]["properties"]["cron"]);
    assert_eq!(spec["properties"]["maybe"], json!({}));
    assert_eq!(spec["properties"]["port"], json!({"x-kubernetes-int-or-string": true}));
    assert_eq!(spec["properties"]["free"], json!({"x-kubernetes-preserve-unknown-fields": true}));
    assert_eq!(spec["properties"]["pod"]["required"], json!(["kind", "apiVersion"]));
    let list = &v2["definitions"]["com.example.stable.v1.CronTabList"];
    assert_eq!(list["properties"]["items"]["items"], json!({"$ref": "#/definitions/com.example.stable.v1.CronTab"}));
    let path = &v2["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}/status"];
    assert_eq!(path["patch"]["operationId"], "patchStableExampleComV1NamespacedCronTabStatus");
    assert!(!openapi::v2_proto(&known).is_empty());
    let v3: Value = serde_json::from_slice(&openapi::v3("apis/stable.example.com/v1", &known).expect("document")).expect("JSON");
    let spec = &v3["components"]["schemas"]["com.example.stable.v1.CronTab"]["properties"]["spec"];
    assert_eq!(spec["properties"]["maybe"], json!({"type": "string", "nullable": true}));
    assert!(openapi::v3_paths(&known).contains(&"apis/stable.example.com".to_owned()));
}

#[test]
fn a_custom_resource_of_which_nothing_is_known() {
    for schema in
        [None, Some(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}}))]
    {
        let v2 = v2(&[custom(schema)]);
        let gvk = json!([{"group": "stable.example.com", "kind": "CronTab", "version": "v1"}]);
        let definition = &v2["definitions"]["com.example.stable.v1.CronTab"];
        assert_eq!(*definition, json!({"type": "object", "x-kubernetes-group-version-kind": gvk}));
    }
}

#[test]
fn index_and_protobuf() {
    let documents = openapi::v3_documents(&[]);
    let index = openapi::v3_index(&documents);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("url");
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    assert_eq!(url.len(), "/openapi/v3/apis/apps/v1?hash=".len() + 128);
    let proto = openapi::v2_proto(&[]);
    // Field 1 is the version of the format.
    assert!(proto.starts_with(b"\x0a\x032.0"));
}

/// What has no description although it could have one: types, and fields that are no bare references.
fn undescribed(name: &str, schema: &Value, into: &mut Vec<String>) {
    let described = |v: &Value| v.get("description").is_some_and(Value::is_string);
    if !described(schema) {
        into.push(name.to_owned());
    }
    for (field, property) in schema["properties"].as_object().into_iter().flatten() {
        if property.get("$ref").is_none() && !described(property) {
            into.push(format!("{name}.{field}"));
        }
    }
}

#[test]
fn everything_is_described() {
    let mut found = Vec::new();
    for path in openapi::v3_paths(&[]) {
        let document: Value = serde_json::from_slice(&openapi::v3(&path, &[]).expect("document")).expect("JSON");
        for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
            undescribed(name, schema, &mut found);
        }
    }
    found.sort();
    found.dedup();
    check(found);
}
