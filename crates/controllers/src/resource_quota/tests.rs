use jiff::Timestamp;
use serde_json::{Value, json};
use tiphys_client::gvr_of;
use tiphys_types::api::core::v1::{ConfigMap, Pod, ResourceQuota};

use super::count::{Kept, Objects, counted, usage};
use crate::shared::test::Rig;

fn quota(hard: Value) -> Value {
    json!({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": hard}})
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name}, "status": {"phase": "Running"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

#[test]
fn only_what_the_quota_names_and_its_scopes_let_in() {
    let all = [
        Kept { group: String::new(), resource: "pods".into(), objects: Objects::Whole(vec![pod("a", "100m"), pod("b", "200m")]) },
        Kept { group: "apps".into(), resource: "deployments".into(), objects: Objects::Number(3) },
    ];
    for (spec, want) in [
        (json!({"hard": {"pods": "9", "cpu": "9"}}), json!({"pods": "2", "cpu": "300m"})),
        (json!({"hard": {"count/deployments.apps": "9"}}), json!({"count/deployments.apps": "3"})),
        (json!({"hard": {"pods": "9"}, "scopes": ["BestEffort"]}), json!({"pods": "0"})),
        (json!({"hard": {"services": "9"}}), json!({})),
    ] {
        let shown: Value = usage(&spec, &all, Timestamp::UNIX_EPOCH).into_iter().map(|(k, v)| (k, json!(v.to_string()))).collect();
        assert_eq!(shown, want, "{spec}");
    }
    assert_eq!(counted("count/widgets.example.com"), Some(("example.com", "widgets")));
    assert_eq!((counted("count/pods"), counted("pods")), (Some(("", "pods")), None));
}

#[tokio::test(start_paused = true)]
async fn what_comes_and_goes_is_counted() {
    let rig = Rig::start(&[super::start]);
    let used = |rig: &Rig| rig.api.get(&gvr_of::<ResourceQuota>(), "ns", "q").map_or(Value::Null, |q| q["status"]["used"].clone());
    rig.api
        .insert(&gvr_of::<ResourceQuota>(), quota(json!({"pods": "5", "requests.cpu": "2", "configmaps": "3", "count/unheard.of": "1"})));
    rig.settles().await;
    assert_eq!(used(&rig), json!({"pods": "0", "requests.cpu": "0", "configmaps": "0"}));
    rig.api.insert(&gvr_of::<Pod>(), pod("a", "500m"));
    rig.api.insert(&gvr_of::<ConfigMap>(), json!({"metadata": {"namespace": "ns", "name": "c"}}));
    tokio::time::sleep(super::SETTLING).await;
    rig.settles().await;
    assert_eq!(used(&rig), json!({"pods": "1", "requests.cpu": "500m", "configmaps": "1"}));
    rig.api.change(&gvr_of::<Pod>(), "ns", "a", |p| p["status"]["phase"] = json!("Succeeded"));
    tokio::time::sleep(super::SETTLING).await;
    rig.settles().await;
    assert_eq!(used(&rig)["pods"], "0");
    rig.api.change(&gvr_of::<ResourceQuota>(), "ns", "q", |q| q["spec"]["hard"] = json!({"pods": "7"}));
    rig.settles().await;
    let status = rig.api.get(&gvr_of::<ResourceQuota>(), "ns", "q").map_or(Value::Null, |q| q["status"].clone());
    assert_eq!(status, json!({"hard": {"pods": "7"}, "used": {"pods": "0"}}));
}

/// Admission charges before it stores: a count taken between the two must not give the charge back.
#[tokio::test(start_paused = true)]
async fn a_charge_stays_while_it_rests() {
    let rig = Rig::start(&[super::start]);
    let used = |rig: &Rig| rig.api.get(&gvr_of::<ResourceQuota>(), "ns", "q").map_or(Value::Null, |q| q["status"]["used"].clone());
    rig.api.insert(&gvr_of::<ResourceQuota>(), quota(json!({"pods": "2"})));
    rig.api.insert(&gvr_of::<Pod>(), pod("a", "1"));
    rig.api.insert(&gvr_of::<Pod>(), pod("done", "1"));
    rig.settles().await;
    tokio::time::sleep(super::SETTLING * 2).await;
    assert_eq!(used(&rig), json!({"pods": "2"}));
    rig.api.change(&gvr_of::<Pod>(), "ns", "done", |p| p["status"]["phase"] = json!("Failed"));
    rig.api.change(&gvr_of::<ResourceQuota>(), "ns", "q", |q| q["status"]["used"] = json!({"pods": "3"}));
    rig.settles().await;
    assert_eq!(used(&rig), json!({"pods": "3"}), "charged a moment ago");
    tokio::time::sleep(super::SETTLING * 2).await;
    assert_eq!(used(&rig), json!({"pods": "1"}));
}
