//! Server-side apply by example: custom resources, conflicts, what is given up. The differential test covers the built-in kinds.

use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvk};
use tiphys_schema::Facts;
use tiphys_schema::apply::{self, Options, Schema};

fn by(manager: &str) -> Options<'_> {
    Options { manager, subresource: "", now: "2026-01-01T00:00:00Z", reset: &[], force: false }
}

fn gvk() -> Gvk {
    Gvk::new("example.com", "v1", "Thing")
}

fn thing(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer"},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "ports": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": {"type": "object", "properties": {
                "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"},
            }},
        },
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    }}}})
}

fn fields_of(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().expect("managed fields");
    entries.iter().find(|e| e["manager"] == manager).map(|e| e["fieldsV1"].clone()).unwrap_or_default()
}

#[test]
fn a_custom_resource_merges_by_its_schema() {
    let structural = schema();
    let schema = Schema::Custom(gvk(), &structural);
    let first = thing(json!({"size": 1, "whole": {"a": "1"}, "ports": [{"port": 80, "name": "x"}], "set": ["a"]}));
    let live = apply::apply(&schema, None, &first, &by("one")).unwrap();
    let fields = json!({"f:spec": {
        "f:size": {}, "f:whole": {}, "f:set": {"v:\"a\"": {}},
        "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}}},
    }});
    assert_eq!(fields_of(&live, "one"), fields);
    let second = thing(json!({"ports": [{"port": 81, "protocol": "UDP"}], "set": ["b"]}));
    let live = apply::apply(&schema, Some(&live), &second, &by("two")).unwrap();
    assert_eq!(live["spec"]["ports"], json!([{"port": 80, "name": "x"}, {"port": 81, "protocol": "UDP"}]));
    assert_eq!(live["spec"]["set"], json!(["a", "b"]));
    // What the first no longer applies goes; what the second applies stays.
    let live = apply::apply(&schema, Some(&live), &thing(json!({"size": 1})), &by("one")).unwrap();
    assert_eq!(live["spec"], json!({"size": 1, "ports": [{"port": 81, "protocol": "UDP"}], "set": ["b"]}));
}

#[test]
fn conflicts_are_refused_in_upstreams_words() {
    let structural = schema();
    let schema = Schema::Custom(gvk(), &structural);
    let live = apply::apply(&schema, None, &thing(json!({"size": 1, "set": ["a"]})), &by("one")).unwrap();
    let error = apply::apply(&schema, Some(&live), &thing(json!({"size": 2})), &by("two")).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.size");
    let status = ApiError::from(error).to_status();
    assert_eq!((&status["code"], &status["reason"]), (&json!(409), &json!("Conflict")));
    let cause = json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.size"}]);
    assert_eq!(status["details"]["causes"], cause);
    let forced = apply::apply(&schema, Some(&live), &thing(json!({"size": 2})), &Options { force: true, ..by("two") }).unwrap();
    assert_eq!(forced["spec"]["size"], 2);
    assert_eq!(fields_of(&forced, "one"), json!({"f:spec": {"f:set": {"v:\"a\"": {}}}}));
    // Two that want the same share it.
    let shared = apply::apply(&schema, Some(&live), &thing(json!({"size": 1})), &by("two")).unwrap();
    assert_eq!(fields_of(&shared, "two"), json!({"f:spec": {"f:size": {}}}));
}

#[test]
fn an_update_takes_what_it_changes() {
    let schema = Schema::Deduced(gvk());
    let live = apply::apply(&schema, None, &thing(json!({"a": {"x": 1, "y": 2}, "list": [1]})), &by("one")).unwrap();
    assert_eq!(fields_of(&live, "one"), json!({"f:spec": {".": {}, "f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:list": {}}}));
    let mut new = live.clone();
    new["spec"]["a"]["x"] = json!(5);
    new["spec"]["list"] = json!([1, 2]);
    apply::update(&schema, Some(&live), &mut new, &by("two"));
    assert_eq!(fields_of(&new, "two"), json!({"f:spec": {"f:a": {"f:x": {}}, "f:list": {}}}));
    assert_eq!(fields_of(&new, "one"), json!({"f:spec": {".": {}, "f:a": {".": {}, "f:y": {}}}}));
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let pod = Schema::Kind(Facts::builtin().kind(&Gvk::new("", "v1", "Pod")).expect("kind"));
    let config = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n"}, "spec": spec});
    let refused = |config: Value| apply::apply(&pod, None, &config, &by("m")).unwrap_err().to_string();
    let prefix = "failed to create typed patch object (n/a; /v1, Kind=Pod): ";
    assert_eq!(refused(config(json!({"foo": 1}))), format!("{prefix}.spec.foo: field not declared in schema"));
    let wrong = config(json!({"containers": [{"name": "c", "ports": [{"containerPort": "x"}]}]}));
    let place = ".spec.containers[name=\"c\"].ports[containerPort=\"x\",protocol=\"TCP\"].containerPort";
    assert_eq!(refused(wrong), format!("{prefix}{place}: expected numeric (int or float), got string"));
    let twice = config(json!({"containers": [{"name": "c"}, {"name": "c"}]}));
    assert_eq!(refused(twice), format!("{prefix}.spec.containers: duplicate entries for key [name=\"c\"]"));
}

#[test]
fn times_alone_are_no_change() {
    let schema = Schema::Deduced(gvk());
    let live = apply::apply(&schema, None, &thing(json!({"a": 1})), &by("one")).unwrap();
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["time"] = json!("2027-01-01T00:00:00Z");
    apply::forget_new_times(&live, &mut new);
    assert_eq!(new, live);
}

#[test]
fn a_manager_that_changes_its_own_again_only_gets_a_new_time() {
    let schema = Schema::Kind(Facts::builtin().kind(&Gvk::new("", "v1", "Pod")).expect("kind"));
    let mut live =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "uid": "u"}, "spec": {"nodeName": "n"}, "status": {}});
    let created = |object: &mut Value| apply::update(&schema, None, object, &by("creator"));
    created(&mut live);
    let status = |phase: &str, now: &'static str, live: &Value| {
        let mut new = live.clone();
        new["status"] = json!({"phase": phase, "conditions": [{"type": "Ready", "status": phase}]});
        apply::update(&schema, Some(live), &mut new, &Options { subresource: "status", now, ..by("kubelet") });
        new
    };
    let first = status("Pending", "2026-01-01T00:00:01Z", &live);
    let second = status("Running", "2026-01-01T00:00:02Z", &first);
    assert_eq!(fields_of(&second, "kubelet"), fields_of(&first, "kubelet"));
    let entries = second["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(entries.iter().map(|e| &e["time"]).collect::<Vec<_>>(), ["2026-01-01T00:00:00Z", "2026-01-01T00:00:02Z"]);
    // Somebody else's change takes the field over, the slow way.
    let mut third = second.clone();
    third["status"]["phase"] = json!("Failed");
    apply::update(&schema, Some(&second), &mut third, &Options { subresource: "status", ..by("gc") });
    assert_eq!(fields_of(&third, "gc"), json!({"f:status": {"f:phase": {}}}));
    assert!(fields_of(&third, "kubelet").pointer("/f:status/f:phase").is_none());
}
