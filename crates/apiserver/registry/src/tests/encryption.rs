use std::sync::Arc;

use serde_json::json;
use tiphys_store::{Engine, KeyRange, Memory, RangeRequest};

use super::{Rig, core};
use crate::{Encryption, Verb};

async fn stored(engine: &Arc<dyn Engine>, key: &'static str) -> Vec<u8> {
    let range = engine.range(RangeRequest::new(KeyRange::key(key))).await.expect("reads");
    range.kvs.first().expect("is there").value.to_vec()
}

fn generated() -> Encryption {
    Encryption::parse(Encryption::generate().expect("random").as_bytes()).expect("valid")
}

pub(super) fn for_config_maps() -> Encryption {
    let text = Encryption::generate().expect("random").replace("secrets", "configmaps");
    Encryption::parse(text.as_bytes()).expect("valid")
}

#[tokio::test]
async fn secrets_are_sealed_in_the_store_and_plain_to_readers() {
    const KEY: &str = "/registry/secrets/default/s";
    let engine: Arc<dyn Engine> = Memory::open().expect("memory");
    let encryption = generated();
    let rig = Rig::with(engine.clone(), encryption.clone()).await;
    let secrets = core("secrets");
    let made =
        rig.post(&secrets, "default", json!({"metadata": {"name": "s"}, "data": {"password": "aHVudGVyMg=="}})).await.expect("created");
    let bytes = stored(&engine, KEY).await;
    assert!(bytes.starts_with(b"k8s:enc:aesgcm:v1:generated:"));
    assert!(!bytes.windows(7).any(|w| w == b"hunter2"));
    assert_eq!(rig.get(&secrets, "default", "s").await.expect("there"), made);

    let again = Rig::with(engine.clone(), encryption).await;
    assert_eq!(again.get(&secrets, "default", "s").await.expect("read from the store"), made);
    let protobuf =
        again.ask(Verb::Get, &secrets, "default", "s").accept("application/vnd.kubernetes.protobuf").document("").await.expect("there");
    assert!(protobuf.1.windows(7).any(|w| w == b"hunter2"));
    rig.config_map("plain", json!({})).await;
    assert!(stored(&engine, "/registry/configmaps/default/plain").await.starts_with(b"k8s\0"));
}

/// How keys are rotated: everything is replaced by itself.
#[tokio::test]
async fn a_write_that_changes_nothing_seals_what_was_stored_otherwise() {
    const KEY: &str = "/registry/secrets/default/s";
    let engine: Arc<dyn Engine> = Memory::open().expect("memory");
    let secrets = core("secrets");
    let made = Rig::on(engine.clone()).await.post(&secrets, "default", json!({"metadata": {"name": "s"}})).await.expect("created");
    assert!(stored(&engine, KEY).await.starts_with(b"k8s\0"));
    let rig = Rig::with(engine.clone(), generated()).await;
    let sealed = rig.put(&secrets, &made).await.expect("replaced");
    assert!(stored(&engine, KEY).await.starts_with(b"k8s:enc:aesgcm"));
    assert_ne!(sealed["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let same = rig.put(&secrets, &sealed).await.expect("replaced");
    assert_eq!(same["metadata"]["resourceVersion"], sealed["metadata"]["resourceVersion"]);
}
