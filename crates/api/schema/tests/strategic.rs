//! Strategic merge patches on real kinds, with results that upstream's implementation gives.

use serde_json::{Value, json};
use tiphys_schema::{Facts, patch};

fn pod(patch: Value, pod: Value) -> Result<Value, String> {
    run("v1", "Pod", patch, pod)
}

fn run(api_version: &str, kind: &str, patch: Value, mut object: Value) -> Result<Value, String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = Facts::builtin().kind_of(group, version, kind).expect("kind");
    patch::strategic(kind, &mut object, &patch).map(|()| object).map_err(|e| e.to_string())
}

fn containers(names: &[(&str, &str)]) -> Value {
    json!({"spec": {"containers": names.iter().map(|(n, i)| json!({"name": n, "image": i})).collect::<Vec<_>>()}})
}

#[test]
fn lists_merge_by_key() {
    let live = containers(&[("a", "1"), ("b", "1")]);
    // What the patch names comes in its order; what it does not name keeps its place before what followed it.
    let cases = [
        (json!({"spec": {"containers": [{"name": "b", "image": "2"}]}}), containers(&[("a", "1"), ("b", "2")])),
        (json!({"spec": {"containers": [{"name": "c", "image": "1"}]}}), containers(&[("c", "1"), ("a", "1"), ("b", "1")])),
        (json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}), containers(&[("b", "1")])),
        (json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "x", "image": "9"}]}}), containers(&[("x", "9")])),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "3"}]}}),
            containers(&[("b", "1"), ("a", "3")]),
        ),
        (json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}), containers(&[("b", "1"), ("a", "1")])),
    ];
    for (patch, result) in cases {
        assert_eq!(pod(patch.clone(), live.clone()), Ok(result), "{patch}");
    }
}

#[test]
fn maps_and_primitives() {
    let live = json!({"metadata": {"labels": {"a": "1"}, "finalizers": ["x", "y"]}, "spec": {"nodeSelector": {"n": "1"}}});
    let cases = [
        (json!({"metadata": {"labels": {"a": null, "b": "2"}}}), "/metadata/labels", json!({"b": "2"})),
        (json!({"metadata": {"finalizers": ["z"]}}), "/metadata/finalizers", json!(["z", "x", "y"])),
        (json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}), "/metadata/finalizers", json!(["y"])),
        (
            json!({"metadata": {"$setElementOrder/finalizers": ["y", "z", "x"], "finalizers": ["z"]}}),
            "/metadata/finalizers",
            json!(["y", "z", "x"]),
        ),
        (json!({"spec": {"$patch": "replace", "nodeName": "n"}}), "/spec", json!({"nodeName": "n"})),
        (json!({"metadata": {"annotations": {"new": "1", "none": null}}}), "/metadata/annotations", json!({"new": "1"})),
    ];
    for (patch, pointer, result) in cases {
        let patched = pod(patch.clone(), live.clone()).unwrap();
        assert_eq!(patched.pointer(pointer), Some(&result), "{patch}");
    }
}

#[test]
fn retain_keys_clears_a_union() {
    let live = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let patched = run("apps/v1", "Deployment", patch, live.clone()).unwrap();
    assert_eq!(patched, json!({"spec": {"strategy": {"type": "Recreate"}}}));
    let bad = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    assert_eq!(run("apps/v1", "Deployment", bad, live).unwrap_err(), "invalid patch format of retainKeys");
}

#[test]
fn errors_are_upstreams() {
    let live = containers(&[("a", "1")]);
    let cases = [
        (json!({"spec": {"containers": [{"image": "2"}]}}), "map: map[image:2] does not contain declared merge key: name"),
        (json!({"$patch": "what"}), "unknown patch type: what in map: map[$patch:what]"),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}}),
            "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n",
        ),
    ];
    for (patch, words) in cases {
        assert_eq!(pod(patch.clone(), live.clone()).unwrap_err(), words, "{patch}");
    }
    let raw = run("apps/v1", "ControllerRevision", json!({"data": {"x": {"y": 1}}}), json!({"data": {"x": {"z": 1}}}));
    assert_eq!(raw.unwrap_err(), "unable to find api field in struct RawExtension for the json field \"x\"");
}
