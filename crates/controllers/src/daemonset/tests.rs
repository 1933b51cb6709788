use serde_json::{Value, json};
use tiphys_client::gvr_of;
use tiphys_types::api::apps::v1::{ControllerRevision, DaemonSet};
use tiphys_types::api::core::v1::{Node, Pod};

use crate::shared::test::Rig;

fn node(name: &str, taints: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"taints": taints}, "status": {}})
}

fn set(image: &str) -> Value {
    json!({
        "metadata": {"namespace": "ns", "name": "agent"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
        "status": {"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0},
    })
}

/// What scheduler and kubelet do.
fn run_pods(rig: &Rig) {
    for pod in rig.api.list(&gvr_of::<Pod>()) {
        rig.api.change(&gvr_of::<Pod>(), "ns", pod["metadata"]["name"].as_str().unwrap_or(""), |p| {
            let terms = &p["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
            let node = terms[0]["matchFields"][0]["values"][0].clone();
            p["spec"]["nodeName"] = node;
            p["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        });
    }
}

fn images(rig: &Rig) -> Vec<String> {
    let image = |p: &Value| p["spec"]["containers"][0]["image"].as_str().unwrap_or("").to_owned();
    let mut images: Vec<String> = rig.api.list(&gvr_of::<Pod>()).iter().map(image).collect();
    images.sort();
    images
}

fn status(rig: &Rig) -> Value {
    rig.api.get(&gvr_of::<DaemonSet>(), "ns", "agent").unwrap_or_default()["status"].clone()
}

#[tokio::test(start_paused = true)]
async fn one_on_each_node_that_fits_replaced_one_by_one() {
    let rig = Rig::start(&[super::start]);
    for name in ["n1", "n2"] {
        rig.api.insert(&gvr_of::<Node>(), node(name, json!([])));
    }
    rig.api.insert(&gvr_of::<Node>(), node("n3", json!([{"key": "special", "effect": "NoSchedule"}])));
    rig.api.insert(&gvr_of::<DaemonSet>(), set("v1"));
    rig.settles().await;
    run_pods(&rig);
    rig.settles().await;
    assert_eq!(images(&rig), ["v1", "v1"]);
    assert_eq!((&status(&rig)["desiredNumberScheduled"], &status(&rig)["numberAvailable"]), (&json!(2), &json!(2)));

    rig.api.insert(&gvr_of::<Node>(), node("n4", json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}])));
    rig.settles().await;
    run_pods(&rig);
    rig.settles().await;
    assert_eq!(images(&rig).len(), 3, "a daemon tolerates a cordon");

    rig.api.change(&gvr_of::<DaemonSet>(), "ns", "agent", |s| s["spec"]["template"]["spec"]["containers"][0]["image"] = json!("v2"));
    rig.settles().await;
    for expected in [["v1", "v1", "v2"], ["v1", "v2", "v2"], ["v2", "v2", "v2"]] {
        assert_eq!(images(&rig), expected);
        run_pods(&rig);
        rig.settles().await;
    }
    let revisions = rig.api.list(&gvr_of::<ControllerRevision>());
    assert_eq!(revisions.iter().map(|r| r["revision"].as_i64()).collect::<Vec<_>>().len(), 2);

    // Going back renews the old revision and does not make a third.
    rig.api.change(&gvr_of::<DaemonSet>(), "ns", "agent", |s| s["spec"]["template"]["spec"]["containers"][0]["image"] = json!("v1"));
    rig.settles().await;
    let mut numbers: Vec<_> = rig.api.list(&gvr_of::<ControllerRevision>()).iter().map(|r| r["revision"].as_i64()).collect();
    numbers.sort();
    assert_eq!(numbers, [Some(2), Some(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_pod_is_made_again() {
    let rig = Rig::start(&[super::start]);
    rig.api.insert(&gvr_of::<Node>(), node("n1", json!([])));
    rig.api.insert(&gvr_of::<DaemonSet>(), set("v1"));
    rig.settles().await;
    run_pods(&rig);
    let first = rig.api.list(&gvr_of::<Pod>())[0]["metadata"]["name"].as_str().unwrap_or("").to_owned();
    rig.api.change(&gvr_of::<Pod>(), "ns", &first, |p| p["status"]["phase"] = json!("Failed"));
    rig.settles().await;
    let after = rig.api.list(&gvr_of::<Pod>());
    assert!(after.len() == 1 && after[0]["metadata"]["name"] != json!(first));
}
