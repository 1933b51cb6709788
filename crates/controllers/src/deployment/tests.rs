use serde_json::{Value, json};
use tiphys_client::gvr_of;
use tiphys_meta::Gvr;
use tiphys_types::api::apps::v1::{Deployment, ReplicaSet};
use tiphys_types::api::core::v1::{Event, Pod};

use crate::replicaset;
use crate::shared::test::Rig;

fn deployments() -> Gvr {
    gvr_of::<Deployment>()
}

fn deployment(name: &str, replicas: i32, strategy: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "ns", "name": name, "annotations": {"note": "n"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "strategy": strategy, "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 1, "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}},
    })
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn start() -> Rig {
    Rig::start(&[super::start, replicaset::start])
}

fn get(rig: &Rig, name: &str) -> Value {
    rig.api.get(&deployments(), "ns", name).unwrap_or_default()
}

fn set_image(rig: &Rig, name: &str, image: &str) {
    rig.api.change(&deployments(), "ns", name, |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        d["metadata"]["generation"] = json!(d["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
    });
}

/// `image → replicas` of all ReplicaSets with pods, by image.
fn sizes(rig: &Rig) -> Vec<(String, i64)> {
    let sets = rig.api.list(&gvr_of::<ReplicaSet>());
    let size = |s: &Value| {
        (
            s["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or("").to_owned(),
            s["spec"]["replicas"].as_i64().unwrap_or(0),
        )
    };
    let mut sizes: Vec<_> = sets.iter().map(size).filter(|(_, n)| *n > 0).collect();
    sizes.sort();
    sizes
}

/// The kubelet's part: at most `many` pods become ready. True where any did.
fn ready(rig: &Rig, many: usize) -> bool {
    let waiting: Vec<Value> = rig.api.list(&gvr_of::<Pod>()).into_iter().filter(|p| p["status"]["phase"] != "Running").take(many).collect();
    for pod in &waiting {
        rig.api.change(&gvr_of::<Pod>(), "ns", pod["metadata"]["name"].as_str().unwrap_or(""), |p| {
            p["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        });
    }
    !waiting.is_empty()
}

fn condition(rig: &Rig, name: &str, kind: &str) -> (String, String) {
    let deployment = get(rig, name);
    let found =
        deployment["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind).cloned().unwrap_or_default();
    (found["status"].as_str().unwrap_or("").to_owned(), found["reason"].as_str().unwrap_or("").to_owned())
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

#[tokio::test(start_paused = true)]
async fn from_creation_over_an_update_to_complete() {
    let rig = start();
    rig.api.insert(&deployments(), deployment("web", 4, rolling(json!("25%"), json!("25%"))));
    rig.settles().await;
    assert_eq!(sizes(&rig), [("v1".to_owned(), 4)]);
    assert_eq!(get(&rig, "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    assert_eq!(condition(&rig, "web", "Available"), pair("False", "MinimumReplicasUnavailable"));
    ready(&rig, 99);
    rig.settles().await;
    assert_eq!(condition(&rig, "web", "Available"), pair("True", "MinimumReplicasAvailable"));
    assert_eq!(condition(&rig, "web", "Progressing"), pair("True", "NewReplicaSetAvailable"));

    set_image(&rig, "web", "v2");
    rig.settles().await;
    assert_eq!(sizes(&rig), [("v1".to_owned(), 3), ("v2".to_owned(), 2)], "surge 1, unavailable 1");
    let mut steps = 0;
    while ready(&rig, 1) {
        rig.settles().await;
        let total: i64 = sizes(&rig).iter().map(|(_, n)| n).sum();
        let up = rig.api.list(&gvr_of::<Pod>()).iter().filter(|p| p["status"]["phase"] == "Running").count();
        assert!(total <= 5 && up >= 3, "{:?} with {up} up", sizes(&rig));
        steps += 1;
    }
    assert_eq!(steps, 4);
    assert_eq!(sizes(&rig), [("v2".to_owned(), 4)]);
    let done = get(&rig, "web");
    assert_eq!(done["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    assert_eq!(condition(&rig, "web", "Progressing"), pair("True", "NewReplicaSetAvailable"));
    assert_eq!((&done["status"]["updatedReplicas"], &done["status"]["availableReplicas"]), (&json!(4), &json!(4)));

    // Back again: the old ReplicaSet is used anew and gets the next revision.
    set_image(&rig, "web", "v1");
    rig.settles().await;
    while ready(&rig, 9) {
        rig.settles().await;
    }
    let sets = rig.api.list(&gvr_of::<ReplicaSet>());
    assert_eq!(sets.len(), 2);
    let old = sets.iter().find(|s| s["spec"]["template"]["spec"]["containers"][0]["image"] == "v1").cloned().unwrap_or_default();
    assert_eq!(old["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(old["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(old["metadata"]["annotations"]["note"], "n");

    // Only one old ReplicaSet is kept.
    set_image(&rig, "web", "v3");
    rig.settles().await;
    while ready(&rig, 9) {
        rig.settles().await;
    }
    rig.settles().await;
    assert_eq!(rig.api.list(&gvr_of::<ReplicaSet>()).len(), 2);
    let events = rig.api.list(&gvr_of::<Event>());
    assert!(events.iter().any(|e| e["reason"] == "ScalingReplicaSet" && e["message"].as_str().is_some_and(|m| m.ends_with("from 0 to 4"))));
}

#[tokio::test(start_paused = true)]
async fn recreate_waits_for_the_last_old_pod() {
    let rig = start();
    rig.api.insert(&deployments(), deployment("web", 2, json!({"type": "Recreate"})));
    rig.settles().await;
    ready(&rig, 9);
    for pod in rig.api.list(&gvr_of::<Pod>()) {
        rig.api.change(&gvr_of::<Pod>(), "ns", pod["metadata"]["name"].as_str().unwrap_or(""), |p| {
            p["metadata"]["finalizers"] = json!(["test/hold"])
        });
    }
    set_image(&rig, "web", "v2");
    rig.settles().await;
    assert_eq!(sizes(&rig), [], "two pods are still going");
    for pod in rig.api.list(&gvr_of::<Pod>()) {
        let client = rig.api.client();
        let patch = tiphys_client::Patch::Merge(json!({"metadata": {"finalizers": null}}));
        let name = pod["metadata"]["name"].as_str().unwrap_or("").to_owned();
        assert!(client.patch::<Pod>("ns", &name, "", &patch).await.is_ok());
    }
    rig.settles().await;
    assert_eq!(sizes(&rig), [("v2".to_owned(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn scaling_in_the_middle_is_proportional() {
    let rig = start();
    rig.api.insert(&deployments(), deployment("web", 10, rolling(json!(3), json!(2))));
    rig.settles().await;
    ready(&rig, 99);
    rig.settles().await;
    set_image(&rig, "web", "broken");
    rig.settles().await;
    assert_eq!(sizes(&rig), [("broken".to_owned(), 5), ("v1".to_owned(), 8)]);
    rig.api.change(&deployments(), "ns", "web", |d| d["spec"]["replicas"] = json!(30));
    rig.settles().await;
    assert_eq!(sizes(&rig), [("broken".to_owned(), 13), ("v1".to_owned(), 20)], "33 = 30 + 3, as 5 : 8");
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let rig = start();
    rig.api.insert(&deployments(), deployment("web", 2, rolling(json!(1), json!(0))));
    rig.settles().await;
    ready(&rig, 9);
    rig.settles().await;
    rig.api.change(&deployments(), "ns", "web", |d| d["spec"]["paused"] = json!(true));
    set_image(&rig, "web", "v2");
    rig.api.change(&deployments(), "ns", "web", |d| d["spec"]["replicas"] = json!(3));
    rig.settles().await;
    assert_eq!(sizes(&rig), [("v1".to_owned(), 3)]);
    assert_eq!(condition(&rig, "web", "Progressing"), pair("Unknown", "DeploymentPaused"));
    rig.api.change(&deployments(), "ns", "web", |d| d["spec"]["paused"] = json!(false));
    rig.settles().await;
    assert_eq!(sizes(&rig), [("v1".to_owned(), 3), ("v2".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_taken_name_counts_as_a_collision() {
    let rig = start();
    let wanted: Deployment = tiphys_testing::object(deployment("web", 1, rolling(json!(1), json!(0))));
    let name = format!("web-{}", tiphys_types::rollout::template_hash(&super::sets::template(&wanted), None));
    rig.api.insert(&gvr_of::<ReplicaSet>(), json!({
        "metadata": {"namespace": "ns", "name": name}, "status": {"replicas": 0},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "stranger"}}, "template": {"metadata": {"labels": {"app": "stranger"}}, "spec": {"containers": []}}}}));
    rig.api.insert(&deployments(), deployment("web", 1, rolling(json!(1), json!(0))));
    rig.settles().await;
    assert_eq!(get(&rig, "web")["status"]["collisionCount"], 1);
    assert_eq!(sizes(&rig), [("v1".to_owned(), 1)]);
}
