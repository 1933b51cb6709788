use serde_json::{Value, json};
use tiphys_meta::Reason;

use super::{Rig, core, names, version};
use crate::Verb;

async fn list(rig: &Rig, query: &str) -> Value {
    rig.ask(Verb::List, &core("configmaps"), "default", "").query(query).json(Value::Null).await.expect("listed")
}

#[tokio::test]
async fn selectors() {
    let rig = Rig::new().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        rig.config_map(name, json!({"app": app})).await;
    }
    for (query, want) in [
        ("", vec!["a", "b", "c"]),
        ("labelSelector=app%3Dx", vec!["a", "c"]),
        ("labelSelector=app+notin+(x)", vec!["b"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db", vec!["a", "c"]),
        ("fieldSelector=metadata.namespace%3Dother", vec![]),
        ("resourceVersion=0", vec!["a", "b", "c"]),
    ] {
        assert_eq!(names(&list(&rig, query).await), want, "{query}");
    }
    let ask = rig.ask(Verb::List, &core("configmaps"), "default", "").query("fieldSelector=data.a%3Db");
    let refused = ask.json(Value::Null).await.expect_err("no such field");
    assert_eq!(refused.code, 400);
    assert_eq!(refused.message, "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"");
}

#[tokio::test]
async fn a_list_shows_the_stores_revision_and_all_that_was_written() {
    let rig = Rig::new().await;
    for i in 0..50 {
        let made = rig.config_map(&format!("a{i:02}"), json!({})).await;
        let all = list(&rig, "").await;
        assert_eq!(names(&all).len(), i + 1);
        assert_eq!(version(&all), version(&made));
    }
    assert_eq!(list(&rig, "").await["kind"], "ConfigMapList");
}

#[tokio::test]
async fn pages_show_one_revision() {
    let rig = Rig::new().await;
    for i in 0..10 {
        rig.config_map(&format!("a{i}"), json!({})).await;
    }
    let first = list(&rig, "limit=4").await;
    assert_eq!(names(&first), ["a0", "a1", "a2", "a3"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    rig.delete(&core("configmaps"), "default", "a5").await.expect("deleted");
    rig.config_map("a4b", json!({})).await;
    rig.merge(&core("configmaps"), "default", "a6", json!({"data": {"new": "1"}})).await.expect("changed");
    let token = first["metadata"]["continue"].as_str().expect("more");
    let second = list(&rig, &format!("limit=4&continue={token}")).await;
    assert_eq!(names(&second), ["a4", "a5", "a6", "a7"]);
    assert_eq!(version(&second), version(&first));
    assert_eq!(second["metadata"]["remainingItemCount"], 2);
    assert!(second["items"][2]["data"].get("new").is_none());
    let token = second["metadata"]["continue"].as_str().expect("more");
    let third = list(&rig, &format!("limit=4&continue={token}")).await;
    assert_eq!(names(&third), ["a8", "a9"]);
    assert!(third["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn a_token_older_than_compaction_goes_on_inconsistently() {
    let rig = Rig::new().await;
    for i in 0..4 {
        rig.config_map(&format!("a{i}"), json!({})).await;
    }
    let first = list(&rig, "limit=2").await;
    let token = first["metadata"]["continue"].as_str().expect("more").to_owned();
    rig.config_map("a9", json!({})).await;
    rig.engine.compact(rig.engine.revision()).await.expect("compacted");
    let ask = rig.ask(Verb::List, &core("configmaps"), "default", "").query(&format!("limit=2&continue={token}"));
    let gone = ask.json(Value::Null).await.expect_err("too old");
    assert_eq!((gone.code, gone.reason), (410, Reason::Expired));
    let status = gone.to_status();
    let token = status["metadata"]["continue"].as_str().expect("a way on");
    let rest = list(&rig, &format!("limit=5&continue={token}")).await;
    assert_eq!(names(&rest), ["a2", "a3", "a9"]);
}

#[tokio::test]
async fn exact_and_not_older_than() {
    let rig = Rig::new().await;
    let first = rig.config_map("a", json!({})).await;
    rig.config_map("b", json!({})).await;
    rig.registry.catch_up().await;
    let exact = list(&rig, &format!("resourceVersion={}&resourceVersionMatch=Exact", version(&first))).await;
    assert_eq!((names(&exact), version(&exact)), (vec!["a"], version(&first)));
    let newer = list(&rig, &format!("resourceVersion={}&resourceVersionMatch=NotOlderThan", version(&first))).await;
    assert_eq!(names(&newer), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_never_comes() {
    let rig = Rig::new().await;
    let ask = rig.ask(Verb::List, &core("configmaps"), "default", "").query("resourceVersion=100000");
    let error = ask.json(Value::Null).await.expect_err("too large");
    assert_eq!((error.code, error.causes[0].reason.as_str()), (504, "ResourceVersionTooLarge"));
}

#[tokio::test]
async fn a_restart_shows_the_same() {
    let rig = Rig::new().await;
    let made = rig.config_map("a", json!({"x": "y"})).await;
    let again = Rig::on(rig.engine.clone()).await;
    assert_eq!(again.get(&core("configmaps"), "default", "a").await.expect("there"), made);
    let all = again.ask(Verb::List, &core("configmaps"), "", "").query("labelSelector=x%3Dy").json(Value::Null).await.expect("listed");
    assert_eq!(names(&all), ["a"]);
}

#[tokio::test]
async fn long_lists_come_in_chunks_that_fit_together() {
    let rig = Rig::new().await;
    for i in 0..300 {
        let object = json!({"metadata": {"name": format!("a{i:03}")}, "data": {"a": "x".repeat(1000)}});
        rig.post(&core("configmaps"), "default", object).await.expect("created");
    }
    assert_eq!(names(&list(&rig, "").await).len(), 300);
}
