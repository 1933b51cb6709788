use serde_json::{Value, json};

use super::{Rig, core, version};
use crate::{EventType, Verb};

#[tokio::test]
async fn a_watch_shows_the_state_and_then_every_change() {
    let rig = Rig::new().await;
    let maps = core("configmaps");
    rig.config_map("a", json!({})).await;
    let mut events = rig.ask(Verb::Watch, &maps, "default", "").watch().await;
    assert_eq!(events.short().await, "ADDED a");
    rig.config_map("b", json!({})).await;
    let changed = rig.merge(&maps, "default", "b", json!({"data": {"x": "y"}})).await.expect("changed");
    rig.delete(&maps, "default", "b").await.expect("deleted");
    assert_eq!(events.short().await, "ADDED b");
    assert_eq!(events.next().await, Some((EventType::Modified, changed.clone())));
    let (kind, last) = events.next().await.expect("an event");
    assert_eq!(kind, EventType::Deleted);
    assert!(version(&last) > version(&changed));
    assert_eq!(last["data"], changed["data"]);
}

#[tokio::test]
async fn a_watch_goes_on_from_a_revision() {
    let rig = Rig::new().await;
    let first = rig.config_map("a", json!({})).await;
    rig.config_map("b", json!({})).await;
    rig.delete(&core("configmaps"), "default", "a").await.expect("deleted");
    let from = format!("resourceVersion={}", version(&first));
    // From memory, and after a restart from the store's history.
    for rig in [&rig, &Rig::on(rig.engine.clone()).await] {
        let mut events = rig.ask(Verb::Watch, &core("configmaps"), "", "").query(&from).watch().await;
        assert_eq!(events.short().await, "ADDED b");
        assert_eq!(events.short().await, "DELETED a");
    }
}

#[tokio::test]
async fn many_changes_leave_the_ring_and_are_still_found() {
    let rig = Rig::new().await;
    let first = rig.config_map("a", json!({})).await;
    for i in 0..600 {
        rig.merge(&core("configmaps"), "default", "a", json!({"data": {"n": i.to_string()}})).await.expect("changed");
    }
    let from = format!("resourceVersion={}", version(&first));
    let mut events = rig.ask(Verb::Watch, &core("configmaps"), "default", "").query(&from).watch().await;
    for i in 0..600 {
        let (kind, object) = events.next().await.expect("an event");
        assert_eq!((kind, object["data"]["n"].as_str()), (EventType::Modified, Some(i.to_string().as_str())));
    }
}

#[tokio::test]
async fn history_of_a_quiet_namespace_ends() {
    let rig = Rig::new().await;
    let first = rig.config_map("a", json!({})).await;
    rig.post(&core("configmaps"), "kube-system", json!({"metadata": {"name": "elsewhere"}})).await.expect("created");
    let again = Rig::on(rig.engine.clone()).await;
    let from = format!("resourceVersion={}", version(&first));
    for query in [from.clone(), format!("{from}&fieldSelector=metadata.name%3Dc")] {
        let mut events = again.ask(Verb::Watch, &core("configmaps"), "default", "").query(&query).watch().await;
        let _ = again.delete(&core("configmaps"), "default", "c").await;
        again.config_map("c", json!({})).await;
        assert_eq!(events.short().await, "ADDED c");
    }
}

#[tokio::test]
async fn a_revision_older_than_compaction_is_gone() {
    let rig = Rig::new().await;
    let first = rig.config_map("a", json!({})).await;
    rig.config_map("b", json!({})).await;
    rig.engine.compact(rig.engine.revision()).await.expect("compacted");
    let again = Rig::on(rig.engine.clone()).await;
    let from = format!("resourceVersion={}", version(&first));
    let mut events = again.ask(Verb::Watch, &core("configmaps"), "default", "").query(&from).watch().await;
    let (kind, status) = events.next().await.expect("an event");
    assert_eq!((kind, status["code"].as_i64(), status["reason"].as_str()), (EventType::Error, Some(410), Some("Expired")));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn objects_enter_and_leave_a_selector() {
    let rig = Rig::new().await;
    let maps = core("configmaps");
    let mut events = rig.ask(Verb::Watch, &maps, "default", "").query("labelSelector=in%3Dyes").watch().await;
    rig.config_map("a", json!({"in": "no"})).await;
    rig.merge(&maps, "default", "a", json!({"metadata": {"labels": {"in": "yes"}}})).await.expect("changed");
    rig.merge(&maps, "default", "a", json!({"data": {"x": "y"}})).await.expect("changed");
    let out = rig.merge(&maps, "default", "a", json!({"metadata": {"labels": {"in": "no"}}})).await.expect("changed");
    rig.delete(&maps, "default", "a").await.expect("deleted");
    rig.config_map("b", json!({"in": "yes"})).await;
    assert_eq!(events.short().await, "ADDED a");
    assert_eq!(events.short().await, "MODIFIED a");
    let (kind, last) = events.next().await.expect("an event");
    assert_eq!((kind, version(&last)), (EventType::Deleted, version(&out)));
    assert_eq!(last["metadata"]["labels"]["in"], "yes");
    assert_eq!(events.short().await, "ADDED b");
}

#[tokio::test]
async fn one_name_in_one_namespace() {
    let rig = Rig::new().await;
    let mut events = rig.ask(Verb::Watch, &core("configmaps"), "default", "").query("fieldSelector=metadata.name%3Db").watch().await;
    for name in ["a", "b", "ba"] {
        rig.config_map(name, json!({})).await;
    }
    rig.delete(&core("configmaps"), "default", "b").await.expect("deleted");
    assert_eq!(events.short().await, "ADDED b");
    assert_eq!(events.short().await, "DELETED b");
}

#[tokio::test]
async fn a_watch_list_ends_its_state_with_a_bookmark() {
    let rig = Rig::new().await;
    rig.config_map("a", json!({})).await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = rig.ask(Verb::Watch, &core("configmaps"), "default", "").query(query).watch().await;
    assert_eq!(events.short().await, "ADDED a");
    let (kind, mark) = events.next().await.expect("an event");
    assert_eq!((kind, mark["kind"].as_str()), (EventType::Bookmark, Some("ConfigMap")));
    assert_eq!(mark["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    assert_eq!(version(&mark), rig.engine.revision());
}

#[tokio::test(start_paused = true)]
async fn bookmarks_only_where_they_are_allowed() {
    let rig = Rig::new().await;
    let ask = |query: &str| rig.ask(Verb::Watch, &core("configmaps"), "default", "").query(query).watch();
    let mut events = ask("timeoutSeconds=100").await;
    assert_eq!(events.0.next_event().await.map(|e| e.kind), None);
    let mut events = ask("timeoutSeconds=100&allowWatchBookmarks=true").await;
    let mark = events.0.next_event().await.expect("a bookmark");
    assert_eq!(mark.kind, EventType::Bookmark);
    let mark: Value = serde_json::from_slice(&mark.object).expect("JSON");
    assert_eq!(version(&mark), rig.engine.revision());
    assert!(mark["metadata"].get("annotations").is_none());
    assert_eq!(events.0.next_event().await.map(|e| e.kind), None);
}

#[tokio::test]
async fn frames() {
    let rig = Rig::new().await;
    rig.config_map("a", json!({})).await;
    let mut json_frames = rig.ask(Verb::Watch, &core("configmaps"), "default", "").watch().await.stream();
    assert_eq!(json_frames.content_type, "application/json");
    let frame = json_frames.next_frames().await.expect("a frame");
    assert!(frame.starts_with(b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"ConfigMap\"") && frame.ends_with(b"}\n"));
    let ask = rig.ask(Verb::Watch, &core("configmaps"), "default", "").accept("application/vnd.kubernetes.protobuf;stream=watch");
    let mut frames = ask.watch().await.stream();
    assert_eq!(frames.content_type, "application/vnd.kubernetes.protobuf;stream=watch");
    let frame = frames.next_frames().await.expect("a frame");
    let (kind, object) = tiphys_schema::codec::proto::decode_watch_event(&frame[4..]).expect("an event");
    assert_eq!(kind, "ADDED");
    assert_eq!(tiphys_schema::codec::proto::decode(object).expect("an object").1["metadata"]["name"], "a");
}
