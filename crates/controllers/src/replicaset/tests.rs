use serde_json::{Value, json};
use tiphys_client::gvr_of;
use tiphys_meta::ApiError;
use tiphys_types::api::apps::v1::ReplicaSet;
use tiphys_types::api::core::v1::{Event, Pod, ReplicationController};

use crate::shared::test::Rig;

fn set(name: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"namespace": "ns", "name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": 0},
    })
}

fn pods(rig: &Rig) -> Vec<Value> {
    rig.api.list(&gvr_of::<Pod>())
}

fn status(rig: &Rig, name: &str) -> Value {
    rig.api.get(&gvr_of::<ReplicaSet>(), "ns", name).map_or(Value::Null, |s| s["status"].clone())
}

fn make_ready(rig: &Rig, name: &str) {
    rig.api.change(&gvr_of::<Pod>(), "ns", name, |p| {
        p["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    });
}

#[tokio::test(start_paused = true)]
async fn as_many_pods_as_asked_for() {
    let rig = Rig::start(&[super::start]);
    rig.api.insert(&gvr_of::<ReplicaSet>(), set("web", 3));
    rig.settles().await;
    assert_eq!(pods(&rig).len(), 3);
    let one = pods(&rig)[0].clone();
    assert_eq!(one["metadata"]["ownerReferences"][0]["kind"], "ReplicaSet");
    assert!(one["metadata"]["name"].as_str().is_some_and(|n| n.starts_with("web-")));
    assert_eq!(status(&rig, "web")["replicas"], 3);

    make_ready(&rig, one["metadata"]["name"].as_str().unwrap_or(""));
    rig.settles().await;
    assert_eq!((&status(&rig, "web")["readyReplicas"], &status(&rig, "web")["availableReplicas"]), (&json!(1), &json!(1)));

    // The ready one is the last to go.
    rig.api.change(&gvr_of::<ReplicaSet>(), "ns", "web", |s| s["spec"]["replicas"] = json!(1));
    rig.settles().await;
    assert_eq!(pods(&rig).iter().map(|p| &p["metadata"]["uid"]).collect::<Vec<_>>(), [&one["metadata"]["uid"]]);

    // A finished pod does not count.
    rig.api.change(&gvr_of::<Pod>(), "ns", one["metadata"]["name"].as_str().unwrap_or(""), |p| p["status"]["phase"] = json!("Failed"));
    rig.settles().await;
    assert_eq!(pods(&rig).len(), 2);
    let events = rig.api.list(&gvr_of::<Event>());
    assert!(
        events
            .iter()
            .any(|e| e["reason"] == "SuccessfulCreate" && e["message"].as_str().is_some_and(|m| m.starts_with("Created pod: web-")))
    );
}

#[tokio::test(start_paused = true)]
async fn orphans_are_adopted_and_strangers_released() {
    let rig = Rig::start(&[super::start]);
    rig.api.insert(&gvr_of::<Pod>(), json!({"metadata": {"namespace": "ns", "name": "lone", "labels": {"app": "web"}}, "spec": {"containers": []}, "status": {"phase": "Running"}}));
    rig.api.insert(&gvr_of::<ReplicaSet>(), set("web", 1));
    rig.settles().await;
    let lone = rig.api.get(&gvr_of::<Pod>(), "ns", "lone").unwrap_or_default();
    assert_eq!(lone["metadata"]["ownerReferences"][0]["name"], "web");
    assert_eq!(pods(&rig).len(), 1);

    rig.api.take_log();
    rig.api.change(&gvr_of::<Pod>(), "ns", "lone", |p| p["metadata"]["labels"] = json!({"app": "other"}));
    // The fake takes the strategic patch as a merge patch, which replaces the list: the release is seen in the log.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let log = rig.api.take_log();
    assert!(log[0] == "patch pods ns/lone", "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_quota_shows_in_the_status_and_heals() {
    let rig = Rig::start(&[super::start]);
    rig.api.fail("create", "pods", 3, ApiError::forbidden(&gvr_of::<Pod>(), "web-x", "exceeded quota: q"));
    rig.api.insert(&gvr_of::<ReplicaSet>(), set("web", 2));
    tokio::time::sleep(std::time::Duration::from_millis(7)).await;
    let failure = status(&rig, "web")["conditions"][0].clone();
    assert_eq!((&failure["type"], &failure["reason"]), (&json!("ReplicaFailure"), &json!("FailedCreate")));
    assert_eq!(failure["message"], "pods \"web-x\" is forbidden: exceeded quota: q");
    rig.settles().await;
    assert_eq!(pods(&rig).len(), 2);
    assert_eq!(status(&rig, "web")["conditions"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn replication_controllers_are_the_same() {
    let rig = Rig::start(&[super::start_replication_controllers]);
    rig.api.insert(&gvr_of::<ReplicationController>(), json!({
        "metadata": {"namespace": "ns", "name": "rc"}, "status": {"replicas": 0},
        "spec": {"replicas": 2, "selector": {"app": "rc"}, "template": {"metadata": {"labels": {"app": "rc"}}, "spec": {"containers": []}}}}));
    rig.settles().await;
    assert_eq!(pods(&rig).len(), 2);
    assert_eq!(pods(&rig)[0]["metadata"]["ownerReferences"][0]["kind"], "ReplicationController");
}
