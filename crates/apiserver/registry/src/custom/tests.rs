//! Custom resources as clients see them, on the engine in memory.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvr};

use super::lifecycle::definitions;
use crate::config::{About, Webhooks, Write};
use crate::tests::Rig;
use crate::{EventType, Verb};

fn things(version: &'static str) -> Gvr {
    Gvr::new("example.com", version, "things")
}

fn spec_schema(properties: Value) -> Value {
    json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": properties},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }}})
}

fn version(name: &str, storage: bool, schema: Value) -> Value {
    json!({"name": name, "served": true, "storage": storage, "schema": schema})
}

fn definition(versions: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"}, "versions": versions}})
}

fn simple() -> Value {
    let mut v1 =
        version("v1", true, spec_schema(json!({"size": {"type": "integer", "default": 1, "maximum": 9}, "color": {"type": "string"}})));
    v1["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"}});
    v1["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    v1["additionalPrinterColumns"] = json!([{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]);
    definition(json!([v1]))
}

/// Creates a definition and waits until it is established.
async fn define(rig: &Rig, crd: Value) -> Value {
    let mut events = rig.ask(Verb::Watch, &definitions(), "", "").watch().await;
    rig.post(&definitions(), "", crd).await.expect("created");
    loop {
        let (_, crd) = events.next().await.expect("an event");
        if super::status::condition_is_true(&crd, "Established") {
            return crd;
        }
    }
}

fn thing(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_definition_is_served_as_soon_as_it_is_established() {
    let rig = Rig::new().await;
    let mut events = rig.ask(Verb::Watch, &definitions(), "", "").watch().await;
    assert_eq!(rig.post(&things("v1"), "default", thing("a", json!({}))).await.unwrap_err().code, 404);
    rig.post(&definitions(), "", simple()).await.expect("created");
    let mut kinds = Vec::new();
    loop {
        let (kind, crd) = events.next().await.expect("an event");
        kinds.push(kind);
        if super::status::condition_is_true(&crd, "Established") {
            break;
        }
    }
    assert_eq!(kinds, [EventType::Added, EventType::Modified, EventType::Modified]);
    let created = rig.post(&things("v1"), "default", thing("a", json!({"color": "red"}))).await.expect("created");
    assert_eq!(created["spec"], json!({"color": "red", "size": 1}));
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(rig.registry.extensions().groups().len(), 1);
    assert_eq!(rig.registry.extensions().openapi()[0].kind, "Thing");
    // It is all there after a restart.
    let again = Rig::on(rig.engine.clone()).await;
    assert_eq!(again.get(&things("v1"), "default", "a").await.expect("there"), created);
}

#[tokio::test]
async fn status_generation_and_scale() {
    let rig = Rig::new().await;
    define(&rig, simple()).await;
    let mut object = thing("a", json!({"size": 2}));
    object["status"] = json!({"replicas": 5});
    let created = rig.post(&things("v1"), "default", object).await.expect("created");
    assert_eq!(created.get("status"), None);
    let ask = || rig.ask(Verb::Patch, &things("v1"), "default", "a").content("application/merge-patch+json");
    let patched = ask().sub("status").json(json!({"spec": {"size": 7}, "status": {"replicas": 2}})).await.expect("patched");
    assert_eq!((&patched["spec"]["size"], &patched["status"]["replicas"]), (&json!(2), &json!(2)));
    assert_eq!(patched["metadata"]["generation"], 1);
    let scale = ask().sub("scale").json(json!({"spec": {"replicas": 4}})).await.expect("scaled");
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!("Scale"), &json!(4), &json!(2)));
    let scaled = rig.get(&things("v1"), "default", "a").await.expect("there");
    assert_eq!((&scaled["spec"]["size"], &scaled["metadata"]["generation"]), (&json!(4), &json!(2)));
    assert_eq!(ask().sub("nothing").json(json!({})).await.unwrap_err().code, 404);
    let refused = ask().json(json!({"spec": {"size": 20}})).await.unwrap_err();
    assert_eq!(
        refused.message,
        "Thing.example.com \"a\" is invalid: spec.size: Invalid value: 20: spec.size in body should be less than or equal to 9"
    );
}

#[tokio::test]
async fn unknown_and_double_fields() {
    let rig = Rig::new().await;
    define(&rig, simple()).await;
    let body = r#"{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a","foo":1},"spec":{"size":1,"size":2,"bar":1}}"#;
    let ask = |mode: &str| rig.ask(Verb::Create, &things("v1"), "default", "").query(&format!("fieldValidation={mode}"));
    let words = r#"duplicate field "spec.size", unknown field "metadata.foo", unknown field "spec.bar""#;
    let strict = ask("Strict").document(body).await.unwrap_err();
    assert_eq!(strict.message, format!("Thing in version \"v1\" cannot be handled as a Thing: strict decoding error: {words}"));
    let (_, made, warnings) = ask("Warn").document(body).await.expect("created");
    assert_eq!(warnings.join(", "), words);
    let made: Value = serde_json::from_slice(&made).expect("JSON");
    assert_eq!(made["spec"], json!({"size": 2}));
    assert_eq!(made["metadata"].get("foo"), None);
}

#[tokio::test]
async fn fields_select_and_columns_show() {
    let rig = Rig::new().await;
    define(&rig, simple()).await;
    for (name, color) in [("a", "red"), ("b", "blue")] {
        rig.post(&things("v1"), "default", thing(name, json!({"color": color}))).await.expect("created");
    }
    let list = |query: &str| rig.ask(Verb::List, &things("v1"), "", "").query(query);
    let red = list("fieldSelector=spec.color%3Dred").json(Value::Null).await.expect("listed");
    assert_eq!(red["items"].as_array().expect("items").len(), 1);
    let unknown = list("fieldSelector=spec.size%3D1").json(Value::Null).await.unwrap_err();
    assert!(unknown.message.ends_with("field label not supported: spec.size"), "{}", unknown.message);
    let table = list("").accept("application/json;as=Table;v=v1;g=meta.k8s.io").json(Value::Null).await.expect("a table");
    assert_eq!(table["rows"][0]["cells"], json!(["a", 1]));
    let mut events = rig.ask(Verb::Watch, &things("v1"), "", "").query("fieldSelector=spec.color%3Dred").watch().await;
    assert_eq!(events.short().await, "ADDED a");
    rig.merge(&things("v1"), "default", "a", json!({"spec": {"color": "green"}})).await.expect("changed");
    assert_eq!(events.short().await, "DELETED a");
}

#[tokio::test]
async fn defaults_show_in_what_was_stored_before() {
    let rig = Rig::new().await;
    let crd = define(&rig, definition(json!([version("v1", true, spec_schema(json!({"size": {"type": "integer"}})))]))).await;
    rig.post(&things("v1"), "default", thing("a", json!({"size": 1}))).await.expect("created");
    let mut changed = crd.clone();
    changed["spec"]["versions"][0]["schema"] = spec_schema(json!({"color": {"type": "string", "default": "red"}}));
    rig.put(&definitions(), &changed).await.expect("changed");
    let got = rig.get(&things("v1"), "default", "a").await.expect("there");
    assert_eq!(got["spec"], json!({"color": "red"}));
    let mut events = rig.ask(Verb::Watch, &things("v1"), "", "").watch().await;
    assert_eq!(events.next().await.expect("an event").1, got);
    let list = rig.ask(Verb::List, &things("v1"), "", "").json(Value::Null).await.expect("listed");
    assert_eq!(list["items"][0]["spec"], json!({"color": "red"}));
}

#[tokio::test]
async fn objects_go_before_their_definition() {
    let rig = Rig::new().await;
    define(&rig, simple()).await;
    let mut held = thing("a", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    rig.post(&things("v1"), "default", held).await.expect("created");
    let mut objects = rig.ask(Verb::Watch, &things("v1"), "", "").watch().await;
    assert_eq!(objects.short().await, "ADDED a");
    let mut crds = rig.ask(Verb::Watch, &definitions(), "", "").watch().await;
    assert_eq!(crds.short().await, "ADDED things.example.com");
    rig.delete(&definitions(), "", "things.example.com").await.expect("marked");
    assert_eq!(objects.short().await, "MODIFIED a");
    let refused = rig.post(&things("v1"), "default", thing("b", json!({}))).await.unwrap_err();
    assert!(refused.message.ends_with("create not allowed while custom resource definition is terminating"), "{}", refused.message);
    rig.merge(&things("v1"), "default", "a", json!({"metadata": {"finalizers": null}})).await.expect("let go");
    loop {
        let (kind, crd) = crds.next().await.expect("an event");
        if kind == EventType::Deleted {
            // The last state that was stored.
            assert_eq!(super::status::condition(&crd, "Terminating").expect("told")["reason"], "InstanceDeletionInProgress");
            break;
        }
    }
    assert_eq!(rig.get(&things("v1"), "default", "a").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn rules_in_cel_are_checked() {
    let rig = Rig::new().await;
    let mut crd = simple();
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    schema["x-kubernetes-validations"] = json!([{"rule": "self.size < 5", "message": "too big"}]);
    let mut broken = crd.clone();
    broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"][0]["rule"] =
        json!("self.no < 5");
    assert_eq!(rig.post(&definitions(), "", broken).await.unwrap_err().code, 422);
    define(&rig, crd).await;
    rig.post(&things("v1"), "default", thing("a", json!({"size": 4}))).await.expect("created");
    let refused = rig.post(&things("v1"), "default", thing("b", json!({"size": 6}))).await.unwrap_err();
    assert!(refused.message.contains("too big"), "{}", refused.message);
}

/// Moves `spec.size` of v1 to `spec.width` of v2 and back.
struct Converter;

#[async_trait]
impl Webhooks for Converter {
    async fn mutate(&self, _: &Write<'_>, _: &About<'_>) -> Result<Option<Value>, ApiError> {
        Ok(None)
    }

    async fn validate(&self, _: &Write<'_>, _: &About<'_>) -> Result<(), ApiError> {
        Ok(())
    }

    async fn convert(&self, client: &Value, review: &Value) -> Result<Value, String> {
        assert_eq!(client["url"], "https://example.com/convert");
        let to = review["request"]["desiredAPIVersion"].clone();
        let (from, into) = if to == "example.com/v2" { ("size", "width") } else { ("width", "size") };
        let mut objects = review["request"]["objects"].as_array().expect("objects").clone();
        for object in &mut objects {
            object["apiVersion"] = to.clone();
            if let Some(value) = object["spec"].as_object_mut().and_then(|s| s.remove(from)) {
                object["spec"][into] = value;
            }
        }
        let response = json!({"uid": review["request"]["uid"], "convertedObjects": objects, "result": {"status": "Success"}});
        Ok(json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"], "response": response}))
    }
}

#[tokio::test]
async fn versions_are_converted_by_a_webhook() {
    let rig = Rig::new().await;
    rig.registry.set_webhooks(Arc::new(Converter));
    let size = |name: &str| spec_schema(json!({name: {"type": "integer"}}));
    let mut crd = definition(json!([version("v1", true, size("size")), version("v2", false, size("width"))]));
    crd["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://example.com/convert"}}});
    let crd = define(&rig, crd).await;
    rig.post(&things("v1"), "default", thing("a", json!({"size": 3}))).await.expect("created");
    let mut second = thing("b", json!({"width": 4}));
    second["apiVersion"] = json!("example.com/v2");
    let created = rig.post(&things("v2"), "default", second).await.expect("created");
    assert_eq!((&created["apiVersion"], &created["spec"]), (&json!("example.com/v2"), &json!({"width": 4})));
    assert_eq!(rig.get(&things("v1"), "default", "b").await.expect("there")["spec"], json!({"size": 4}));
    assert_eq!(rig.registry.equivalents(&things("v1")), [things("v2")]);
    assert!(rig.registry.equivalents(&crate::tests::core("configmaps")).is_empty());
    let converted = rig.registry.converted(&things("v2"), vec![thing("a", json!({"size": 7}))]).await.expect("converted");
    assert_eq!(converted[0]["spec"], json!({"width": 7}));
    // From now on v2 is stored; what is there already stays as it is until it is written.
    let mut moved = rig.get(&definitions(), "", "things.example.com").await.expect("there");
    moved["spec"]["versions"][0]["storage"] = json!(false);
    moved["spec"]["versions"][1]["storage"] = json!(true);
    let moved = rig.put(&definitions(), &moved).await.expect("changed");
    assert_eq!(moved["status"]["storedVersions"], json!(["v1", "v2"]));
    assert_ne!(moved["metadata"]["generation"], crd["metadata"]["generation"]);
    rig.merge(&things("v2"), "default", "a", json!({})).await.expect("written anew");
    let list = rig.ask(Verb::List, &things("v2"), "default", "").json(Value::Null).await.expect("listed");
    let widths: Vec<&Value> = list["items"].as_array().expect("items").iter().map(|i| &i["spec"]["width"]).collect();
    assert_eq!(widths, [&json!(3), &json!(4)]);
    let key = rig.registry.cached(&things("v2")).and_then(|c| c.get("default", "a")).expect("kept");
    assert_eq!(key.to_value()["apiVersion"], "example.com/v2");
    let mut events = rig.ask(Verb::Watch, &things("v1"), "default", "").watch().await;
    assert_eq!(events.next().await.expect("an event").1["spec"], json!({"size": 3}));
}

#[tokio::test]
async fn apply_merges_by_the_schema() {
    let rig = Rig::new().await;
    let ports = json!({"ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
        "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}}});
    define(&rig, definition(json!([version("v1", true, spec_schema(ports))]))).await;
    let apply = |manager: &str, spec: Value| {
        let ask = rig.ask(Verb::Patch, &things("v1"), "default", "a").content("application/apply-patch+yaml");
        ask.query(&format!("fieldManager={manager}")).json(thing("a", spec))
    };
    apply("one", json!({"ports": [{"port": 1, "name": "x"}]})).await.expect("applied");
    let merged = apply("two", json!({"ports": [{"port": 2}]})).await.expect("applied");
    assert_eq!(merged["spec"]["ports"], json!([{"port": 1, "name": "x"}, {"port": 2}]));
    let conflict = apply("two", json!({"ports": [{"port": 1, "name": "y"}]})).await.unwrap_err();
    assert_eq!(conflict.code, 409);
}

/// Binds a policy that changes things as the version `version` has them.
async fn mutating(rig: &Rig, name: &str, version: &str, mutation: Value) {
    let gvr = |resource: &'static str| Gvr::new("admissionregistration.k8s.io", "v1", resource);
    let rule = json!({"operations": ["CREATE"], "apiGroups": ["example.com"], "apiVersions": [version], "resources": ["things"]});
    let spec = json!({"reinvocationPolicy": "Never", "matchConstraints": {"resourceRules": [rule]}, "mutations": [mutation]});
    rig.post(&gvr("mutatingadmissionpolicies"), "", json!({"metadata": {"name": name}, "spec": spec})).await.expect("a policy");
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    rig.post(&gvr("mutatingadmissionpolicybindings"), "", binding).await.expect("a binding");
}

#[tokio::test]
async fn policies_change_custom_resources() {
    let rig = Rig::new().await;
    define(&rig, simple()).await;
    let expression =
        "Object{spec: Object.spec{color: 'red', size: object.spec.size + 1}, metadata: Object.metadata{labels: {'seen': 'yes'}}}";
    mutating(&rig, "a", "v1", json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})).await;
    let expression = "[JSONPatch{op: 'test', path: '/spec/color', value: 'red'}, JSONPatch{op: 'add', path: '/metadata/annotations', value: {'patched': 'yes'}}]";
    mutating(&rig, "b", "v1", json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})).await;
    let made = rig.post(&things("v1"), "default", thing("t", json!({"size": 2}))).await.expect("made");
    assert_eq!(made["spec"], json!({"color": "red", "size": 3}));
    assert_eq!((&made["metadata"]["labels"], &made["metadata"]["annotations"]), (&json!({"seen": "yes"}), &json!({"patched": "yes"})));
    // What a policy makes of an object is held to the schema like anything else.
    let error = rig.post(&things("v1"), "default", thing("u", json!({"size": 9}))).await.expect_err("too large then");
    assert!(error.message.contains("spec.size") && error.code == 422, "{}", error.message);
}

#[tokio::test]
async fn a_policy_sees_the_version_that_it_names() {
    let rig = Rig::new().await;
    rig.registry.set_webhooks(Arc::new(Converter));
    let size = |name: &str| spec_schema(json!({name: {"type": "integer"}}));
    let mut crd = definition(json!([version("v1", true, size("size")), version("v2", false, size("width"))]));
    crd["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://example.com/convert"}}});
    define(&rig, crd).await;
    let expression = "Object{spec: Object.spec{width: object.spec.width + 1}}";
    mutating(&rig, "a", "v2", json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})).await;
    let made = rig.post(&things("v1"), "default", thing("t", json!({"size": 2}))).await.expect("made");
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("example.com/v1"), &json!({"size": 3})));
}
