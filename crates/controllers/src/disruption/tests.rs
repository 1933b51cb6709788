use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tiphys_client::{Verb, gvr_of};
use tiphys_testing::object;
use tiphys_types::api::apps::v1::{Deployment, ReplicaSet};
use tiphys_types::api::core::v1::Pod;
use tiphys_types::api::policy::v1::PodDisruptionBudget;

use super::plan::{Observed, Owner, plan};
use crate::shared::test::Rig;

fn budget(spec: Value, status: Value) -> Value {
    json!({"metadata": {"namespace": "ns", "name": "b", "generation": 1}, "spec": spec, "status": status})
}

fn pod(name: &str, ready: bool) -> Value {
    let state = if ready { "True" } else { "False" };
    json!({"metadata": {"namespace": "ns", "name": name, "labels": {"app": "a"}}, "spec": {"containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": state}]}})
}

fn status_of(spec: Value, status: Value, pods: &[Value], owners: Result<Vec<Owner>, String>) -> Value {
    let pods = pods.iter().map(|p| Arc::new(object(p.clone()))).collect();
    let observed = Observed { budget: Arc::new(object(budget(spec, status))), pods, owners };
    let plan = plan(&observed, "2026-01-01T00:00:00Z".parse().unwrap_or(Timestamp::UNIX_EPOCH));
    match plan.actions().next().map(|a| &a.verb) {
        Some(Verb::Update { object, .. }) => object["status"].clone(),
        _ => Value::Null,
    }
}

#[test]
fn counts() {
    let owned = |n: usize, replicas: i32| Ok(vec![Owner::Scale { uid: "u".into(), replicas }; n]);
    let three = [pod("a", true), pod("b", true), pod("c", false)];
    for (spec, owners, expected, desired, allowed) in [
        (json!({"minAvailable": 1}), Ok(vec![]), 3, 1, 1),
        (json!({"minAvailable": 5}), Ok(vec![]), 3, 5, 0),
        (json!({"minAvailable": "50%"}), owned(3, 3), 3, 2, 0),
        (json!({"maxUnavailable": 2}), owned(3, 3), 3, 1, 1),
        (json!({"maxUnavailable": "30%"}), owned(3, 10), 10, 7, 0),
        (json!({"maxUnavailable": 1}), Ok(vec![Owner::None; 3]), 0, 0, 0),
    ] {
        let status = status_of(spec.clone(), json!({}), &three, owners);
        let got = (&status["expectedPods"], &status["currentHealthy"], &status["desiredHealthy"], &status["disruptionsAllowed"]);
        assert_eq!(got, (&json!(expected), &json!(2), &json!(desired), &json!(allowed)), "{spec}");
        let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
        assert_eq!(status["conditions"][0]["reason"], reason);
    }
}

#[test]
fn granted_evictions_count_until_they_are_seen_or_overdue() {
    let two = [pod("a", true), pod("b", true)];
    for (since, healthy, kept) in [("2025-12-31T23:59:00Z", 1, true), ("2025-12-31T23:57:00Z", 2, false)] {
        let status = status_of(json!({"minAvailable": 1}), json!({"disruptedPods": {"a": since, "gone": since}}), &two, Ok(vec![]));
        assert_eq!(status["currentHealthy"], healthy);
        assert_eq!(status["disruptedPods"], if kept { json!({"a": since}) } else { Value::Null });
    }
}

#[test]
fn a_failed_count_allows_nothing() {
    let status = status_of(json!({"maxUnavailable": 1}), json!({"disruptionsAllowed": 3}), &[pod("a", true)], Ok(vec![Owner::Unknown]));
    assert_eq!((&status["disruptionsAllowed"], &status["conditions"][0]["reason"]), (&json!(0), &json!("SyncFailed")));
    assert_eq!(status["conditions"][0]["message"], "found no controllers for pod \"a\"");
}

#[tokio::test(start_paused = true)]
async fn a_deployments_pods_are_counted_by_its_scale() {
    let rig = Rig::start(&[super::start]);
    let deployment = rig.api.insert(
        &gvr_of::<Deployment>(),
        json!({"metadata": {"namespace": "ns", "name": "d"},
        "spec": {"replicas": 4, "selector": {}, "template": {}}}),
    );
    let owner = |kind: &str, o: &Value| json!([{"apiVersion": "apps/v1", "kind": kind, "controller": true, "name": o["metadata"]["name"], "uid": o["metadata"]["uid"]}]);
    let set = rig.api.insert(
        &gvr_of::<ReplicaSet>(),
        json!({"metadata": {"namespace": "ns", "name": "s", "ownerReferences": owner("Deployment", &deployment)},
        "spec": {"replicas": 4, "selector": {}}}),
    );
    for name in ["a", "b", "c"] {
        let mut pod = pod(name, true);
        pod["metadata"]["ownerReferences"] = owner("ReplicaSet", &set);
        rig.api.insert(&gvr_of::<Pod>(), pod);
    }
    let spec = json!({"maxUnavailable": 2, "selector": {"matchLabels": {"app": "a"}}});
    rig.api.insert(&gvr_of::<PodDisruptionBudget>(), budget(spec, Value::Null));
    rig.settles().await;
    let allowed = |rig: &Rig| {
        rig.api.get(&gvr_of::<PodDisruptionBudget>(), "ns", "b").map_or(Value::Null, |b| b["status"]["disruptionsAllowed"].clone())
    };
    assert_eq!(allowed(&rig), 1);
    rig.api.change(&gvr_of::<Deployment>(), "ns", "d", |d| d["spec"]["replicas"] = json!(3));
    rig.settles().await;
    assert_eq!(allowed(&rig), 2);
}
