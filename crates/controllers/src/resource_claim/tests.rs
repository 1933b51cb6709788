use serde_json::{Value, json};
use tiphys_client::gvr_of;
use tiphys_types::api::core::v1::Pod;
use tiphys_types::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};

use crate::shared::test::Rig;

fn claims(rig: &Rig) -> Vec<Value> {
    rig.api.list(&gvr_of::<ResourceClaim>())
}

fn pod() -> Value {
    json!({"metadata": {"namespace": "ns", "name": "p"}, "status": {"phase": "Pending"}, "spec": {"containers": [],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}, {"name": "own", "resourceClaimName": "by-hand"}]}})
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_made_named_used_and_given_back() {
    let rig = Rig::start(&[super::start]);
    rig.api.insert(&gvr_of::<Pod>(), pod());
    rig.settles().await;
    assert!(claims(&rig).is_empty(), "there is no template yet");
    let spec = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}});
    let template = json!({"metadata": {"namespace": "ns", "name": "t"}, "spec": {"metadata": {"labels": {"l": "1"}}, "spec": spec}});
    rig.api.insert(&gvr_of::<ResourceClaimTemplate>(), template);
    rig.settles().await;
    let made = claims(&rig);
    assert_eq!(made.len(), 1);
    assert_eq!((&made[0]["spec"], &made[0]["metadata"]["labels"]["l"]), (&spec, &json!("1")));
    let name = made[0]["metadata"]["name"].as_str().unwrap_or("").to_owned();
    assert!(name.starts_with("p-gpu-"), "{name}");
    let shown = rig.api.get(&gvr_of::<Pod>(), "ns", "p").unwrap_or_default();
    assert_eq!(shown["status"]["resourceClaimStatuses"], json!([{"name": "gpu", "resourceClaimName": name}]));

    // The scheduler allocates; the pod finishes.
    let uid = shown["metadata"]["uid"].clone();
    rig.api.change(&gvr_of::<ResourceClaim>(), "ns", &name, |c| {
        c["metadata"]["finalizers"] = json!([super::release::FINALIZER]);
        c["status"] = json!({"allocation": {"devices": {}}, "reservedFor": [{"resource": "pods", "name": "p", "uid": uid}]});
    });
    rig.settles().await;
    assert!(claims(&rig)[0]["status"]["allocation"].is_object(), "in use");
    rig.api.change(&gvr_of::<Pod>(), "ns", "p", |p| p["status"]["phase"] = json!("Succeeded"));
    rig.settles().await;
    assert!(claims(&rig).is_empty(), "{:?}", claims(&rig));
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_many_is_freed_with_the_last() {
    let rig = Rig::start(&[super::start]);
    let consumer = |name: &str| json!({"resource": "pods", "name": name, "uid": format!("uid-of-{name}")});
    rig.api.insert(
        &gvr_of::<ResourceClaim>(),
        json!({"metadata": {"namespace": "ns", "name": "shared", "finalizers": [super::release::FINALIZER]},
            "spec": {"devices": {}}, "status": {"allocation": {"devices": {}}, "reservedFor": [consumer("gone")]}}),
    );
    rig.api.insert(&gvr_of::<Pod>(), json!({"metadata": {"namespace": "ns", "name": "other"}}));
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    rig.settles().await;
    let left = claims(&rig);
    assert_eq!((left.len(), &left[0]["status"]["allocation"], &left[0]["metadata"]["finalizers"]), (1, &Value::Null, &Value::Null));
}
