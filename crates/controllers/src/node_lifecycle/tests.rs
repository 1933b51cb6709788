use std::time::Duration;

use serde_json::{Value, json};
use tiphys_client::gvr_of;
use tiphys_types::api::core::v1::{Node, Pod};

use crate::shared::test::Rig;
use crate::taint_eviction;

fn node(name: &str, ready: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {}, "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}})
}

fn taints(rig: &Rig, name: &str) -> Vec<String> {
    let node = rig.api.get(&gvr_of::<Node>(), "", name).unwrap_or_default();
    let text = |t: &Value| {
        format!("{}:{}", t["key"].as_str().unwrap_or("").trim_start_matches("node.kubernetes.io/"), t["effect"].as_str().unwrap_or(""))
    };
    node["spec"]["taints"].as_array().into_iter().flatten().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_loses_its_pods_and_gets_them_back_no_more() {
    let rig = Rig::start(&[super::start, taint_eviction::start]);
    rig.api.insert(&gvr_of::<Node>(), node("n1", "True"));
    rig.api.insert(&gvr_of::<Node>(), node("n2", "True"));
    let pod = |name: &str, seconds: i64| {
        json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"nodeName": "n1", "containers": [], "tolerations": [
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    };
    rig.api.insert(&gvr_of::<Pod>(), pod("patient", 300));
    rig.api.insert(&gvr_of::<Pod>(), pod("hasty", 10));
    // The second node goes on telling that it lives.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        rig.api.change(&gvr_of::<Node>(), "", "n2", |n| {
            let count = n["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
            n["status"]["conditions"][0]["lastHeartbeatTime"] = json!(format!("2026-01-01T00:{:02}:00Z", count % 60));
        });
    }
    assert_eq!(taints(&rig, "n1"), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
    assert_eq!(taints(&rig, "n2"), Vec::<String>::new());
    let n1 = rig.api.get(&gvr_of::<Node>(), "", "n1").unwrap_or_default();
    assert_eq!(n1["status"]["conditions"][0]["message"], "Kubelet stopped posting node status.");
    let patient = rig.api.get(&gvr_of::<Pod>(), "ns", "patient").unwrap_or_default();
    assert_eq!(patient["status"]["conditions"][0]["status"], "False");
    rig.api.change(&gvr_of::<Node>(), "", "n2", |n| n["status"]["conditions"][0]["lastHeartbeatTime"] = json!("2026-01-02T00:00:00Z"));
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(rig.api.get(&gvr_of::<Pod>(), "ns", "hasty").is_none());
    assert!(rig.api.get(&gvr_of::<Pod>(), "ns", "patient").is_some());

    rig.api.change(&gvr_of::<Node>(), "", "n1", |n| {
        n["status"]["conditions"][0] = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-03T00:00:00Z"})
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(taints(&rig, "n1"), Vec::<String>::new());
}
