use serde_json::{Value, json};
use tiphys_meta::{Gvk, Gvr};
use tiphys_schema::codec;

use super::{Rig, core, version};
use crate::{Answer, Verb};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[tokio::test]
async fn protobuf_in_and_out() {
    let rig = Rig::new().await;
    let maps = core("configmaps");
    let object = json!({"metadata": {"name": "a"}, "data": {"x": "y"}});
    let body = codec::proto::encode(&Gvk::new("", "v1", "ConfigMap"), &object).expect("encodes");
    let (content_type, body, _) =
        rig.ask(Verb::Create, &maps, "default", "").content(PROTOBUF).accept(PROTOBUF).document(body).await.expect("created");
    assert_eq!(content_type, PROTOBUF);
    let (gvk, made) = codec::proto::decode(&body).expect("decodes");
    assert_eq!(gvk, Gvk::new("", "v1", "ConfigMap"));
    assert_eq!(made, rig.get(&maps, "default", "a").await.expect("there"));
    let (_, body, _) = rig.ask(Verb::List, &maps, "default", "").accept(PROTOBUF).document("").await.expect("listed");
    let (gvk, list) = codec::proto::decode(&body).expect("decodes");
    assert_eq!(&*gvk.kind, "ConfigMapList");
    assert_eq!(version(&list), version(&made));
    assert_eq!(list["items"][0]["metadata"], made["metadata"]);
}

#[tokio::test]
async fn strict_fields() {
    let rig = Rig::new().await;
    let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "nonsense": 1}).to_string();
    let ask = |query: &str| rig.ask(Verb::Create, &core("configmaps"), "default", "").query(query).document(body.clone());
    let refused = ask("fieldValidation=Strict").await.expect_err("unknown field");
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (400, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"nonsense\"")
    );
    let (_, _, warnings) = ask("fieldValidation=Warn").await.expect("created");
    assert_eq!(warnings, ["unknown field \"nonsense\""]);
}

#[tokio::test]
async fn yaml_in() {
    let rig = Rig::new().await;
    let ask = rig.ask(Verb::Create, &core("configmaps"), "default", "").content("application/yaml");
    let (_, made, _) = ask.document("metadata: {name: a}\ndata: {x: 'y'}\n").await.expect("created");
    let made: Value = serde_json::from_slice(&made).expect("JSON");
    assert_eq!(made["data"], json!({"x": "y"}));
}

#[tokio::test]
async fn tables_and_partial_metadata() {
    let rig = Rig::new().await;
    let made = rig.config_map("a", json!({"x": "y"})).await;
    let maps = core("configmaps");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let all = rig.ask(Verb::List, &maps, "default", "").accept(table).json(Value::Null).await.expect("listed");
    assert_eq!((all["kind"].as_str(), all["apiVersion"].as_str()), (Some("Table"), Some("meta.k8s.io/v1")));
    assert_eq!(all["columnDefinitions"][0]["name"], "Name");
    assert_eq!(all["rows"][0]["cells"][0], "a");
    assert_eq!(
        all["rows"][0]["object"],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": made["metadata"]})
    );
    let bare = rig.ask(Verb::Get, &maps, "default", "a").accept(table).query("includeObject=None").json(Value::Null).await.expect("there");
    // Upstream writes an empty RawExtension as null, never leaves it out.
    assert_eq!(bare["rows"][0].get("object"), Some(&Value::Null));
    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (_, body, _) = rig.ask(Verb::List, &maps, "default", "").accept(partial).document("").await.expect("listed");
    let (gvk, list) = codec::proto::decode(&body).expect("decodes");
    assert_eq!(gvk, Gvk::new("meta.k8s.io", "v1", "PartialObjectMetadataList"));
    assert_eq!(list["items"][0]["metadata"], made["metadata"]);
    let mut events = rig.ask(Verb::Watch, &maps, "default", "").accept(table).watch().await;
    assert_eq!(events.next().await.expect("an event").1["rows"][0]["cells"][0], "a");
}

#[tokio::test]
async fn both_kinds_of_events_are_one() {
    let rig = Rig::new().await;
    let (old, new) = (core("events"), Gvr::new("events.k8s.io", "v1", "events"));
    let event = json!({"metadata": {"name": "e"}, "eventTime": "2026-11-21T10:00:00.000000Z", "reportingController": "c", "reportingInstance": "i",
        "action": "Do", "reason": "Because", "type": "Normal", "note": "text", "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}});
    let made = rig.post(&new, "default", event).await.expect("created");
    assert_eq!((made["apiVersion"].as_str(), made["note"].as_str()), (Some("events.k8s.io/v1"), Some("text")));
    let seen = rig.get(&old, "default", "e").await.expect("there");
    assert_eq!((seen["apiVersion"].as_str(), seen["message"].as_str()), (Some("v1"), Some("text")));
    assert_eq!(seen["involvedObject"]["name"], "p");
    let mut events = rig.ask(Verb::Watch, &old, "default", "").query("resourceVersion=1").watch().await;
    assert_eq!(events.short().await, "ADDED e");
}

#[tokio::test]
async fn what_is_not_there() {
    let rig = Rig::new().await;
    let missing = rig.get(&Gvr::new("none.example", "v1", "things"), "", "a").await.expect_err("no such resource");
    assert_eq!((missing.code, missing.message.as_str()), (404, "the server could not find the requested resource"));
    let refused = rig.ask(Verb::Get, &core("configmaps"), "default", "a").sub("status").json(Value::Null).await.expect_err("no status");
    assert_eq!(refused.code, 404);
    let unacceptable =
        rig.ask(Verb::List, &core("configmaps"), "default", "").accept("text/html").json(Value::Null).await.expect_err("no HTML");
    assert_eq!(unacceptable.code, 406);
    let Answer::Object(document) = crate::error_document(PROTOBUF, &unacceptable) else { panic!("a document") };
    assert_eq!(codec::proto::decode(&document.body.into_bytes()).expect("decodes").1["code"], 406);
}
