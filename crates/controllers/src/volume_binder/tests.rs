use serde_json::{Value, json};
use tiphys_client::gvr_of;
use tiphys_types::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use tiphys_types::api::storage::v1::StorageClass;

use crate::shared::test::Rig;

fn volume(name: &str, size: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}, "status": {"phase": "Pending"}})
}

fn claim(name: &str, size: &str, class: Value) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": size}}}, "status": {"phase": "Pending"}})
}

fn get_claim(rig: &Rig, name: &str) -> Value {
    rig.api.get(&gvr_of::<PersistentVolumeClaim>(), "ns", name).unwrap_or_default()
}

fn phase(rig: &Rig, name: &str) -> Value {
    rig.api.get(&gvr_of::<PersistentVolume>(), "", name).unwrap_or_default()["status"]["phase"].clone()
}

#[tokio::test(start_paused = true)]
async fn the_smallest_that_is_enough() {
    let rig = Rig::start(&[super::start]);
    for (name, size) in [("small", "1Gi"), ("middle", "5Gi"), ("big", "50Gi")] {
        rig.api.insert(&gvr_of::<PersistentVolume>(), volume(name, size));
    }
    rig.settles().await;
    assert_eq!(phase(&rig, "big"), "Available");
    rig.api.insert(&gvr_of::<PersistentVolumeClaim>(), claim("data", "2Gi", json!("")));
    rig.settles().await;
    let bound = get_claim(&rig, "data");
    assert_eq!((&bound["spec"]["volumeName"], &bound["status"]["phase"]), (&json!("middle"), &json!("Bound")));
    assert_eq!(bound["status"]["capacity"]["storage"], "5Gi");
    assert_eq!(phase(&rig, "middle"), "Bound");
    let mut fast = volume("fast", "1Gi");
    fast["spec"]["volumeAttributesClassName"] = json!("gold");
    rig.api.insert(&gvr_of::<PersistentVolume>(), fast);
    let mut wants = claim("gilded", "1Gi", json!(""));
    wants["spec"]["volumeAttributesClassName"] = json!("gold");
    rig.api.insert(&gvr_of::<PersistentVolumeClaim>(), wants);
    rig.settles().await;
    let gilded = get_claim(&rig, "gilded");
    assert_eq!((&gilded["spec"]["volumeName"], &gilded["status"]["currentVolumeAttributesClassName"]), (&json!("fast"), &json!("gold")));
    assert!(rig.api.client().delete::<PersistentVolumeClaim>("ns", "data", &Default::default()).await.is_ok());
    rig.settles().await;
    assert_eq!(phase(&rig, "middle"), "Released");
}

#[tokio::test(start_paused = true)]
async fn waiting_and_ordering() {
    let rig = Rig::start(&[super::start]);
    rig.api.insert(
        &gvr_of::<StorageClass>(),
        json!({"metadata": {"name": "late"}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}),
    );
    rig.api.insert(&gvr_of::<StorageClass>(), json!({"metadata": {"name": "made"}, "provisioner": "example.com/disks"}));
    let mut local = volume("local", "1Gi");
    local["spec"]["storageClassName"] = json!("late");
    rig.api.insert(&gvr_of::<PersistentVolume>(), local);
    rig.api.insert(&gvr_of::<PersistentVolumeClaim>(), claim("a", "1Gi", json!("late")));
    rig.api.insert(&gvr_of::<PersistentVolumeClaim>(), claim("b", "1Gi", json!("made")));
    rig.settles().await;
    assert_eq!(get_claim(&rig, "a")["status"]["phase"], "Pending");
    assert_eq!(get_claim(&rig, "b")["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"], "example.com/disks");
    // The scheduler reserves.
    let uid = get_claim(&rig, "a")["metadata"]["uid"].clone();
    rig.api.change(&gvr_of::<PersistentVolume>(), "", "local", |v| {
        v["spec"]["claimRef"] = json!({"kind": "PersistentVolumeClaim", "namespace": "ns", "name": "a", "uid": uid})
    });
    rig.settles().await;
    assert_eq!(get_claim(&rig, "a")["status"]["phase"], "Bound");
}
