//! Our discovery documents against upstream's, for what upstream serves by default.

mod upstream;

use serde_json::{Value, json};
use tiphys_schema::discovery::{self, Form};

fn theirs(name: &str) -> Value {
    let dir = upstream::module("k8s.io/kubernetes@v1.36.3").join("api/discovery");
    let bytes = std::fs::read(dir.join(name)).expect("discovery document");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// What is built in; `metrics.k8s.io`, which a server of its own brings upstream, stands last.
fn ours() -> Vec<discovery::Group> {
    let mut groups = discovery::builtin();
    assert_eq!(groups.pop().map(|g| g.name).as_deref(), Some("metrics.k8s.io"));
    groups
}

/// Upstream's documents were made with every version switched on.
fn stable(version: &Value) -> bool {
    let version = version["version"].as_str().unwrap_or("");
    !version.contains("alpha") && !version.contains("beta")
}

#[test]
fn aggregated() {
    let mut expected = theirs("aggregated_v2.json");
    let groups = expected["items"].as_array_mut().expect("items");
    for group in groups.iter_mut() {
        group["versions"].as_array_mut().expect("versions").retain(stable);
    }
    groups.retain(|g| g["versions"] != json!([]));
    let ours = discovery::aggregated(&ours(), false, Form::V2);
    for (a, b) in ours["items"].as_array().expect("items").iter().zip(expected["items"].as_array().expect("items")) {
        assert_eq!(a, b);
    }
    assert_eq!(ours, expected);
}

#[test]
fn legacy() {
    let ours = ours();
    let mut expected = theirs("apis.json");
    let groups = expected["groups"].as_array_mut().expect("groups");
    for group in groups.iter_mut() {
        group["versions"].as_array_mut().expect("versions").retain(stable);
    }
    groups.retain(|g| g["versions"] != json!([]));
    assert_eq!(discovery::legacy_groups(&ours), expected);
    let mut documents = 0;
    for group in &ours {
        if !group.name.is_empty() {
            let mut expected = theirs(&format!("apis__{}.json", group.name));
            expected["versions"].as_array_mut().expect("versions").retain(stable);
            assert_eq!(discovery::legacy_group(group), expected);
        }
        for version in &group.versions {
            let name = match group.name.as_str() {
                "" => "api__v1.json".to_owned(),
                name => format!("apis__{name}__{}.json", version.version),
            };
            assert_eq!(discovery::legacy_resources(&group.name, version), theirs(&name), "{name}");
            documents += 1;
        }
    }
    assert_eq!(documents, 22);
}

#[test]
fn core() {
    assert_eq!(discovery::legacy_versions("10.10.10.10:8050"), theirs("api.json"));
    let core = discovery::aggregated(&discovery::builtin(), true, Form::V2Beta1);
    assert_eq!(core["items"][0]["versions"][0]["version"], "v1");
    assert_eq!(core["apiVersion"], "apidiscovery.k8s.io/v2beta1");
}
