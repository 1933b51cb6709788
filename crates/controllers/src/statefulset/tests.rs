use serde_json::{Value, json};
use tiphys_client::gvr_of;
use tiphys_types::api::apps::v1::StatefulSet;
use tiphys_types::api::core::v1::{PersistentVolumeClaim, Pod};

use crate::shared::test::Rig;

fn set(replicas: i32, policy: &str, partition: i32) -> Value {
    json!({
        "metadata": {"namespace": "ns", "name": "db"},
        "spec": {"replicas": replicas, "serviceName": "db", "podManagementPolicy": policy, "selector": {"matchLabels": {"app": "db"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]},
        "status": {"replicas": 0, "availableReplicas": 0},
    })
}

/// Pods as `name image`, in order.
fn pods(rig: &Rig) -> Vec<String> {
    let text = |p: &Value| {
        format!("{} {}", p["metadata"]["name"].as_str().unwrap_or(""), p["spec"]["containers"][0]["image"].as_str().unwrap_or(""))
    };
    rig.api.list(&gvr_of::<Pod>()).iter().map(text).collect()
}

/// Lets new pods be pending; then readies one of them. True where there was one.
fn ready_one(rig: &Rig) -> bool {
    let all = rig.api.list(&gvr_of::<Pod>());
    let Some(pod) = all.iter().find(|p| p["status"]["phase"] != "Running") else { return false };
    rig.api.change(&gvr_of::<Pod>(), "ns", pod["metadata"]["name"].as_str().unwrap_or(""), |p| {
        p["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    });
    true
}

async fn all_ready(rig: &Rig) {
    while ready_one(rig) {
        rig.settles().await;
    }
}

fn set_image(rig: &Rig, image: &str) {
    rig.api.change(&gvr_of::<StatefulSet>(), "ns", "db", |s| s["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
}

#[tokio::test(start_paused = true)]
async fn one_after_another_up_over_and_down() {
    let rig = Rig::start(&[super::start]);
    rig.api.insert(&gvr_of::<StatefulSet>(), set(3, "OrderedReady", 0));
    rig.settles().await;
    for count in 1..=3 {
        assert_eq!(pods(&rig).len(), count, "the next waits for the last");
        ready_one(&rig);
        rig.settles().await;
    }
    assert_eq!(pods(&rig), ["db-0 v1", "db-1 v1", "db-2 v1"]);
    let claims: Vec<Value> = rig.api.list(&gvr_of::<PersistentVolumeClaim>()).iter().map(|c| c["metadata"]["name"].clone()).collect();
    assert_eq!(claims, ["data-db-0", "data-db-1", "data-db-2"]);
    let one = rig.api.get(&gvr_of::<Pod>(), "ns", "db-1").unwrap_or_default();
    assert_eq!((&one["spec"]["hostname"], &one["spec"]["subdomain"]), (&json!("db-1"), &json!("db")));
    assert_eq!(one["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-1");

    set_image(&rig, "v2");
    rig.settles().await;
    assert_eq!(pods(&rig), ["db-0 v1", "db-1 v1", "db-2 v2"], "the highest first");
    all_ready(&rig).await;
    assert_eq!(pods(&rig), ["db-0 v2", "db-1 v2", "db-2 v2"]);
    let status = rig.api.get(&gvr_of::<StatefulSet>(), "ns", "db").unwrap_or_default()["status"].clone();
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    assert_eq!((&status["currentReplicas"], &status["readyReplicas"]), (&json!(3), &json!(3)));

    rig.api.change(&gvr_of::<StatefulSet>(), "ns", "db", |s| s["spec"]["replicas"] = json!(1));
    rig.settles().await;
    assert_eq!(pods(&rig), ["db-0 v2"]);
    assert_eq!(rig.api.list(&gvr_of::<PersistentVolumeClaim>()).len(), 3, "data outlives pods");
}

#[tokio::test(start_paused = true)]
async fn parallel_with_a_partition() {
    let rig = Rig::start(&[super::start]);
    rig.api.insert(&gvr_of::<StatefulSet>(), set(3, "Parallel", 2));
    rig.settles().await;
    assert_eq!(pods(&rig).len(), 3, "none waits");
    all_ready(&rig).await;
    set_image(&rig, "v2");
    rig.settles().await;
    all_ready(&rig).await;
    assert_eq!(pods(&rig), ["db-0 v1", "db-1 v1", "db-2 v2"]);
    // One below the partition comes back as it was.
    assert!(rig.api.client().delete::<Pod>("ns", "db-0", &Default::default()).await.is_ok());
    rig.settles().await;
    assert_eq!(pods(&rig), ["db-0 v1", "db-1 v1", "db-2 v2"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_pod_is_replaced_under_its_name() {
    let rig = Rig::start(&[super::start]);
    rig.api.insert(&gvr_of::<StatefulSet>(), set(1, "OrderedReady", 0));
    rig.settles().await;
    let uid = |rig: &Rig| rig.api.get(&gvr_of::<Pod>(), "ns", "db-0").unwrap_or_default()["metadata"]["uid"].clone();
    let first = uid(&rig);
    rig.api.change(&gvr_of::<Pod>(), "ns", "db-0", |p| p["status"] = json!({"phase": "Failed"}));
    rig.settles().await;
    assert_ne!(uid(&rig), first);
}
