//! What is kept, shared or left out to save work must not show in any answer.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tiphys_schema::codec::proto;
use tiphys_store::{Engine, Memory};

use super::{Rig, core, names};
use crate::{Encryption, RegistryConfig, Verb, WatchStream};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Ways of keeping objects: with room for all forms, with room for few, with none; and encrypted.
async fn rigs() -> Vec<(&'static str, Rig)> {
    let config = |forms_limit, encryption| RegistryConfig { forms_limit, encryption, ..RegistryConfig::default() };
    let encryption = || super::encryption::for_config_maps();
    let mut rigs = Vec::new();
    for (name, config) in [
        ("ample", config(64 << 20, Encryption::default())),
        ("little", config(20_000, Encryption::default())),
        ("none", config(0, Encryption::default())),
        ("none, encrypted", config(0, encryption())),
    ] {
        let engine: Arc<dyn Engine> = Memory::open().expect("memory");
        rigs.push((name, Rig::configured(engine, config).await));
    }
    rigs
}

async fn list(rig: &Rig, query: &str, accept: &str) -> Bytes {
    let ask = rig.ask(Verb::List, &core("configmaps"), "default", "").query(query).accept(accept);
    ask.document("").await.expect("listed").1
}

async fn json_list(rig: &Rig, query: &str) -> Value {
    serde_json::from_slice(&list(rig, query, "").await).expect("JSON")
}

#[tokio::test]
async fn lists_are_the_same_however_little_is_kept() {
    for (kept, rig) in rigs().await {
        for i in 0..300 {
            // Of various sizes, so that chunks end anywhere.
            let object = json!({"metadata": {"name": format!("m{i:03}"), "labels": {"group": (i % 7).to_string()}}, "data": {"a": "x".repeat(i * 7)}});
            rig.post(&core("configmaps"), "default", object).await.expect("created");
        }
        for i in (0..300).step_by(3) {
            let change = json!({"data": {"b": i.to_string()}, "metadata": {"labels": {"group": "3"}}});
            rig.merge(&core("configmaps"), "default", &format!("m{i:03}"), change).await.expect("changed");
        }
        let all = json_list(&rig, "").await;
        assert_eq!(names(&all).len(), 300, "{kept}");
        let items = all["items"].as_array().expect("items");
        for item in items {
            let mut one = rig.get(&core("configmaps"), "default", item["metadata"]["name"].as_str().unwrap_or("")).await.expect("got");
            let map = one.as_object_mut().expect("an object");
            map.remove("kind");
            map.remove("apiVersion");
            assert_eq!(&one, item, "{kept}");
        }
        // In protobuf: all in chunks, a page at once, and by label, first by a scan and then by the index.
        for query in ["", "limit=5", "labelSelector=group%3D3", "labelSelector=group%3D3", "labelSelector=group%3D3,group!%3D4"] {
            let want = json_list(&rig, query).await;
            let (gvk, mut got) = proto::decode(&list(&rig, query, PROTOBUF).await).expect("protobuf");
            assert_eq!(gvk.kind, "ConfigMapList");
            got["items"].as_array_mut().into_iter().flatten().for_each(|item| {
                let map = item.as_object_mut().expect("an object");
                map.remove("kind");
                map.remove("apiVersion");
            });
            assert_eq!(got["items"], want["items"], "{kept}: {query}");
            assert_eq!(got["metadata"]["resourceVersion"], want["metadata"]["resourceVersion"], "{kept}: {query}");
        }
        let by_label = json_list(&rig, "labelSelector=group%3D3").await;
        let want: Vec<&Value> = items.iter().filter(|i| i["metadata"]["labels"]["group"] == "3").collect();
        assert_eq!(by_label["items"].as_array().map(|a| a.iter().collect::<Vec<_>>()), Some(want), "{kept}");
    }
}

#[tokio::test]
async fn forms_take_no_more_than_they_may() {
    for (kept, rig) in rigs().await {
        let limit = rig.registry.config.forms_limit;
        let mut most = 0;
        for i in 0..700 {
            rig.config_map(&format!("m{i:03}"), json!({})).await;
            rig.registry.catch_up().await;
            most = most.max(rig.registry.resources.forms.bytes());
        }
        // The ring of events has some, too.
        let ring = 256 * 2000;
        assert!(most <= limit + ring, "{kept}: {most}");
        assert_eq!(names(&json_list(&rig, "").await).len(), 700);
        for i in 0..700 {
            rig.delete(&core("configmaps"), "default", &format!("m{i:03}")).await.expect("deleted");
        }
        rig.registry.catch_up().await;
        let left = rig.registry.resources.forms.bytes();
        assert!(left < 2 * ring, "{kept}: what is gone is counted no more: {left}");
    }
}

/// The next `count` events, which may come in one piece or in several.
async fn events(stream: &mut WatchStream, count: usize) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    while events.len() < count {
        let piece = stream.next_frames().await.expect("frames");
        let mut rest = &piece[..];
        while !rest.is_empty() {
            if rest.starts_with(b"{") {
                let end = rest.iter().position(|b| *b == b'\n').expect("a line");
                let mut event: Value = serde_json::from_slice(&rest[..end]).expect("JSON");
                events.push((event["type"].as_str().unwrap_or("").to_owned(), event["object"].take()));
                rest = &rest[end + 1..];
            } else {
                let end = 4 + u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let (kind, object) = proto::decode_watch_event(&rest[4..end]).expect("an event");
                events.push((kind, proto::decode(object).expect("an object").1));
                rest = &rest[end..];
            }
        }
    }
    events
}

#[tokio::test]
async fn watchers_share_frames_only_where_they_see_the_same() {
    let rig = Rig::new().await;
    let maps = core("configmaps");
    let open = |query: &'static str, accept: &'static str| rig.ask(Verb::Watch, &maps, "default", "").query(query).accept(accept).watch();
    let mut watchers = Vec::new();
    for accept in ["", "application/vnd.kubernetes.protobuf;stream=watch"] {
        for query in ["", "labelSelector=app%3Dx", "labelSelector=app%3Dy", ""] {
            watchers.push(open(query, accept).await.stream());
        }
    }
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io;stream=watch";
    let mut partial = open("", partial).await.stream();
    let made = rig.config_map("a", json!({"app": "x"})).await;
    // The first by itself, the others as they come.
    let first: Vec<_> = futures_util::future::join_all(
        watchers.iter_mut().enumerate().filter(|(at, _)| at % 4 != 2).map(async |(at, watcher)| (at, events(watcher, 1).await)),
    )
    .await;
    for (at, events) in first {
        assert_eq!((events[0].0.as_str(), &events[0].1), ("ADDED", &made), "{at}");
    }
    let moved = rig.merge(&maps, "default", "a", json!({"metadata": {"labels": {"app": "y"}}})).await.expect("changed");
    rig.delete(&maps, "default", "a").await.expect("deleted");
    for (at, watcher) in watchers.iter_mut().enumerate() {
        let want = match at % 4 {
            1 => vec![("DELETED", &made)],
            2 => vec![("ADDED", &moved), ("DELETED", &moved)],
            _ => vec![("MODIFIED", &moved), ("DELETED", &moved)],
        };
        let mut last = super::version(&made);
        let got = events(watcher, want.len()).await;
        assert_eq!(got.len(), want.len());
        for ((kind, object), (want, body)) in got.iter().zip(want) {
            assert_eq!((kind.as_str(), &object["metadata"]["labels"]), (want, &body["metadata"]["labels"]), "{at}");
            assert_eq!(object["kind"], "ConfigMap");
            assert!(super::version(object) > last, "{at}: each event has a revision of its own");
            last = super::version(object);
        }
    }
    for ((got, object), kind) in events(&mut partial, 3).await.iter().zip(["ADDED", "MODIFIED", "DELETED"]) {
        assert_eq!((got.as_str(), object["kind"].as_str(), object.get("data")), (kind, Some("PartialObjectMetadata"), None));
    }
}

#[tokio::test]
async fn much_history_is_compacted_before_its_time() {
    let engine: Arc<dyn Engine> = Memory::open().expect("memory");
    let rig = Rig::configured(engine, RegistryConfig { history_limit: 100_000, ..RegistryConfig::default() }).await;
    rig.config_map("a", json!({})).await;
    for i in 0.. {
        assert!(i < 2000, "history is never compacted");
        rig.merge(&core("configmaps"), "default", "a", json!({"data": {"n": i.to_string()}})).await.expect("changed");
        if rig.engine.compacted_revision() > 2 {
            assert!(i > 100, "compacted after {i} changes already");
            break;
        }
    }
    let from = rig.engine.compacted_revision();
    assert!(rig.engine.revision() - from > 50, "half of the history is kept");
}
