use serde_json::{Value, json};
use tiphys_client::gvr_of;
use tiphys_types::api::core::v1::{Endpoints, Pod, Service};
use tiphys_types::api::discovery::v1::EndpointSlice;

use crate::endpoints;
use crate::shared::test::Rig;

fn pod(name: &str, ip: &str, ready: &str, port: i32) -> Value {
    json!({
        "metadata": {"namespace": "ns", "name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": ready}]},
    })
}

fn service() -> Value {
    json!({
        "metadata": {"namespace": "ns", "name": "web", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "ports": [{"name": "main", "port": 80, "targetPort": "http"}]},
    })
}

fn slices(rig: &Rig) -> Vec<Value> {
    rig.api.list(&gvr_of::<EndpointSlice>())
}

#[tokio::test(start_paused = true)]
async fn pods_come_and_go() {
    let rig = Rig::start(&[super::start, endpoints::start]);
    rig.api.insert(&gvr_of::<Service>(), service());
    rig.settles().await;
    assert_eq!(slices(&rig).len(), 1, "an empty one says that there is nothing");
    for n in 0..150 {
        rig.api.insert(&gvr_of::<Pod>(), pod(&format!("p{n}"), &format!("10.1.0.{n}"), "True", 8080));
    }
    rig.settles().await;
    let sizes = |rig: &Rig| slices(rig).iter().map(|s| s["endpoints"].as_array().map_or(0, Vec::len)).collect::<Vec<_>>();
    assert_eq!(sizes(&rig).iter().sum::<usize>(), 150);
    assert!(sizes(&rig).len() == 2 && sizes(&rig).iter().all(|n| *n <= 100), "{:?}", sizes(&rig));
    let slice = slices(&rig).into_iter().find(|s| s["endpoints"][0]["targetRef"]["name"] == "p0").unwrap_or_default();
    assert_eq!(slice["ports"], json!([{"name": "main", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(slice["endpoints"][0]["conditions"], json!({"ready": true, "serving": true, "terminating": false}));
    assert_eq!((&slice["metadata"]["labels"]["team"], &slice["metadata"]["ownerReferences"][0]["kind"]), (&json!("a"), &json!("Service")));

    // A pod whose port has another number stands apart; one that is not ready is said to be so.
    rig.api.insert(&gvr_of::<Pod>(), pod("odd", "10.1.1.1", "False", 9090));
    rig.settles().await;
    let odd = slices(&rig).into_iter().find(|s| s["ports"][0]["port"] == 9090).unwrap_or_default();
    assert_eq!(odd["endpoints"][0]["conditions"]["ready"], false);
    let endpoints = rig.api.get(&gvr_of::<Endpoints>(), "ns", "web").unwrap_or_default();
    let subsets = endpoints["subsets"].as_array().cloned().unwrap_or_default();
    assert_eq!(subsets.len(), 2);
    assert!(subsets.iter().any(|s| s["notReadyAddresses"][0]["ip"] == "10.1.1.1" && s["ports"][0]["port"] == 9090));

    for pod in rig.api.list(&gvr_of::<Pod>()) {
        let name = pod["metadata"]["name"].as_str().unwrap_or("").to_owned();
        assert!(rig.api.client().delete::<Pod>("ns", &name, &Default::default()).await.is_ok());
    }
    rig.settles().await;
    assert_eq!(sizes(&rig), [0]);
    let endpoints = rig.api.get(&gvr_of::<Endpoints>(), "ns", "web").unwrap_or_default();
    assert!(endpoints.get("subsets").is_none_or(|s| s.as_array().is_none_or(Vec::is_empty)));
}

#[tokio::test(start_paused = true)]
async fn ready_endpoints_are_for_their_own_zone() {
    let rig = Rig::start(&[super::start]);
    let node = json!({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}}});
    rig.api.insert(&gvr_of::<tiphys_types::api::core::v1::Node>(), node);
    rig.api.insert(&gvr_of::<Service>(), service());
    rig.api.insert(&gvr_of::<Pod>(), pod("up", "10.1.0.1", "True", 8080));
    rig.api.insert(&gvr_of::<Pod>(), pod("down", "10.1.0.2", "False", 8080));
    let hints = |rig: &Rig| {
        let endpoints = slices(rig).iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default()).collect::<Vec<_>>();
        endpoints.iter().map(|e| (e["targetRef"]["name"].clone(), e["hints"].clone())).collect::<std::collections::HashMap<_, _>>()
    };
    let ask = |rig: &Rig, how: Value| rig.api.change(&gvr_of::<Service>(), "ns", "web", |s| s["spec"]["trafficDistribution"] = how.clone());
    for (how, want) in [
        (json!("PreferSameZone"), json!({"forZones": [{"name": "a"}]})),
        (json!("PreferSameNode"), json!({"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]})),
        (Value::Null, Value::Null),
    ] {
        ask(&rig, how.clone());
        rig.settles().await;
        assert_eq!((&hints(&rig)[&json!("up")], &hints(&rig)[&json!("down")]), (&want, &Value::Null), "{how}");
    }
}
