use serde_json::json;
use tiphys_meta::{Gvr, Reason};

use super::{Rig, core, version};
use crate::Verb;

#[tokio::test]
async fn create_fills_what_the_server_sets() {
    let rig = Rig::new().await;
    let made = rig.config_map("a", json!({})).await;
    assert_eq!(made["kind"], "ConfigMap");
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["creationTimestamp"], "2026-11-21T10:00:00Z");
    assert_eq!(made["metadata"]["uid"].as_str().map(str::len), Some(36));
    assert_eq!(rig.get(&core("configmaps"), "default", "a").await.expect("there"), made);
    let again = rig.post(&core("configmaps"), "default", json!({"metadata": {"name": "a"}})).await.expect_err("taken");
    assert_eq!((again.code, again.message.as_str()), (409, "configmaps \"a\" already exists"));
}

#[tokio::test]
async fn names_are_generated() {
    let rig = Rig::new().await;
    let made = rig.post(&core("configmaps"), "default", json!({"metadata": {"generateName": "gen-"}})).await.expect("created");
    let name = made["metadata"]["name"].as_str().unwrap_or("");
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
}

#[tokio::test]
async fn what_a_request_says_twice_must_agree() {
    let rig = Rig::new().await;
    let maps = core("configmaps");
    let wrong = rig.post(&maps, "default", json!({"metadata": {"name": "a", "namespace": "other"}})).await.expect_err("namespaces differ");
    assert_eq!(wrong.code, 400);
    let wrong = rig
        .post(&maps, "default", json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}}))
        .await
        .expect_err("kinds differ");
    assert!(wrong.message.starts_with("Secret in version \"v1\" cannot be handled as a ConfigMap: "), "{}", wrong.message);
    rig.config_map("a", json!({})).await;
    let wrong = rig.ask(Verb::Update, &maps, "default", "a").json(json!({"metadata": {"name": "b"}})).await.expect_err("names differ");
    assert_eq!(wrong.message, "the name of the object (b) does not match the name on the URL (a)");
    let missing = rig.put(&maps, &json!({"metadata": {"name": "z", "namespace": "default"}})).await.expect_err("not there");
    assert_eq!((missing.code, missing.message.as_str()), (404, "configmaps \"z\" not found"));
}

#[tokio::test]
async fn an_update_with_an_old_revision_conflicts() {
    let rig = Rig::new().await;
    let maps = core("configmaps");
    let first = rig.config_map("a", json!({})).await;
    let mut changed = first.clone();
    changed["data"] = json!({"a": "c"});
    let second = rig.put(&maps, &changed).await.expect("written");
    assert!(version(&second) > version(&first));
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"]);
    let late = rig.put(&maps, &changed).await.expect_err("conflicts");
    assert_eq!(
        (late.reason, late.message.as_str()),
        (
            Reason::Conflict,
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
        )
    );
    // Without a revision it is written over whatever is there; without a change nothing is written.
    let mut over = changed.clone();
    over["metadata"].as_object_mut().map(|m| m.remove("resourceVersion"));
    let third = rig.put(&maps, &over).await.expect("nothing to write");
    assert_eq!(version(&third), version(&second));
}

#[tokio::test]
async fn patches_change_what_they_say() {
    let rig = Rig::new().await;
    let maps = core("configmaps");
    let made = rig.config_map("a", json!({"x": "1"})).await;
    let merged = rig.merge(&maps, "default", "a", json!({"data": {"a": null, "c": "d"}})).await.expect("patched");
    assert_eq!(merged["data"], json!({"c": "d"}));
    let ops = json!([{"op": "test", "path": "/data/c", "value": "d"}, {"op": "replace", "path": "/data/c", "value": "e"}]);
    let ask = rig.ask(Verb::Patch, &maps, "default", "a").content("application/json-patch+json");
    assert_eq!(ask.json(ops.clone()).await.expect("patched")["data"], json!({"c": "e"}));
    let refused =
        rig.ask(Verb::Patch, &maps, "default", "a").content("application/json-patch+json").json(ops).await.expect_err("test fails");
    assert_eq!(refused.code, 422);
    let strategic = rig.ask(Verb::Patch, &maps, "default", "a").content("application/strategic-merge-patch+json");
    assert_eq!(strategic.json(json!({"data": {"f": "g"}})).await.expect("patched")["data"], json!({"c": "e", "f": "g"}));
    let stale = json!({"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"h": "i"}});
    assert_eq!(rig.merge(&maps, "default", "a", stale).await.expect_err("stale").code, 409);
    let unknown = rig.ask(Verb::Patch, &maps, "default", "a").content("text/plain").json(json!({})).await.expect_err("no patch");
    assert_eq!(unknown.code, 415);
}

#[tokio::test]
async fn concurrent_patches_are_all_applied() {
    let rig = Rig::new().await;
    rig.config_map("a", json!({})).await;
    let patches = (0..20).map(|i| {
        let key = format!("k{i}");
        let rig = &rig;
        async move { rig.merge(&core("configmaps"), "default", "a", json!({"data": {key: "v"}})).await }
    });
    let done = futures_util::future::join_all(patches).await;
    assert!(done.iter().all(Result::is_ok));
    let last = rig.get(&core("configmaps"), "default", "a").await.expect("there");
    assert_eq!(last["data"].as_object().map(serde_json::Map::len), Some(21));
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let rig = Rig::new().await;
    let maps = core("configmaps");
    let before = rig.engine.revision();
    let made =
        rig.ask(Verb::Create, &maps, "default", "").query("dryRun=All").json(json!({"metadata": {"name": "a"}})).await.expect("would do");
    assert_eq!(made["metadata"]["name"], "a");
    assert_eq!(rig.engine.revision(), before);
    rig.config_map("a", json!({})).await;
    rig.ask(Verb::Delete, &maps, "default", "a").query("dryRun=All").json(json!(null)).await.expect("would do");
    assert!(rig.get(&maps, "default", "a").await.is_ok());
    let wrong = rig
        .ask(Verb::Create, &maps, "default", "")
        .query("dryRun=Some")
        .json(json!({"metadata": {"name": "b"}}))
        .await
        .expect_err("no such");
    assert_eq!(wrong.code, 422);
}

#[tokio::test]
async fn deletion_waits_for_finalizers() {
    let rig = Rig::new().await;
    let maps = core("configmaps");
    rig.post(&maps, "default", json!({"metadata": {"name": "a", "finalizers": ["example.com/x"]}})).await.expect("created");
    let marked = rig.delete(&maps, "default", "a").await.expect("marked");
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-11-21T10:00:00Z");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let more = rig.merge(&maps, "default", "a", json!({"metadata": {"finalizers": ["example.com/x", "example.com/y"]}})).await;
    assert_eq!(more.expect_err("no new ones").code, 422);
    rig.merge(&maps, "default", "a", json!({"metadata": {"finalizers": null}})).await.expect("the last one goes");
    assert_eq!(rig.get(&maps, "default", "a").await.expect_err("gone").code, 404);
}

#[tokio::test]
async fn deletion_answers_and_preconditions() {
    let rig = Rig::new().await;
    let maps = core("configmaps");
    let made = rig.config_map("a", json!({})).await;
    let other = rig.ask(Verb::Delete, &maps, "default", "a").json(json!({"preconditions": {"uid": "other"}})).await.expect_err("another");
    assert_eq!(other.code, 409);
    assert!(other.message.contains("the UID in the precondition (other) does not match the UID in record"), "{}", other.message);
    let orphan = rig.ask(Verb::Delete, &maps, "default", "a").json(json!({"propagationPolicy": "Foreground"})).await.expect("marked");
    assert_eq!(orphan["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    rig.merge(&maps, "default", "a", json!({"metadata": {"finalizers": null}})).await.expect("gone");
    let again = rig.config_map("a", json!({})).await;
    assert_ne!(again["metadata"]["uid"], made["metadata"]["uid"]);
    let status = rig.delete(&maps, "default", "a").await.expect("gone");
    assert_eq!(status["status"], "Success");
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps", "uid": again["metadata"]["uid"]}));
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let rig = Rig::new().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        rig.config_map(name, json!({"app": app})).await;
    }
    let ask = rig.ask(Verb::DeleteCollection, &core("configmaps"), "default", "").query("labelSelector=app%3Dx");
    let gone = ask.json(json!(null)).await.expect("deleted");
    assert_eq!(super::names(&gone), ["a", "c"]);
    let left = rig.ask(Verb::List, &core("configmaps"), "default", "").json(json!(null)).await.expect("listed");
    assert_eq!(super::names(&left), ["b"]);
}

#[tokio::test]
async fn services_get_and_give_back_addresses() {
    let rig = Rig::new().await;
    let services = core("services");
    let object = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"a": "b"}}});
    let made = rig.post(&services, "default", object.clone()).await.expect("created");
    let ip = made["spec"]["clusterIP"].clone();
    assert!(ip.as_str().is_some_and(|ip| ip.starts_with("10.96.")), "{made}");
    let taken = json!({"metadata": {"name": "b"}, "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]}});
    assert_eq!(rig.post(&services, "default", taken.clone()).await.expect_err("taken").code, 422);
    // A restart knows what is taken.
    let again = Rig::on(rig.engine.clone()).await;
    assert_eq!(again.post(&services, "default", taken.clone()).await.expect_err("taken").code, 422);
    again.delete(&services, "default", "a").await.expect("deleted");
    again.registry.catch_up().await;
    again.post(&services, "default", taken).await.expect("free");
}

#[tokio::test]
async fn managers_are_noted_and_apply_minds_them() {
    let rig = Rig::new().await;
    let maps = core("configmaps");
    let ask = |manager: &str, more: &str| {
        rig.ask(Verb::Patch, &maps, "default", "a").content("application/apply-patch+yaml").query(&format!("fieldManager={manager}{more}"))
    };
    let config = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
    let made = ask("one", "").json(config("1")).await.expect("created");
    assert_eq!(made["data"], json!({"k": "1"}));
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "one");
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
    let same = ask("one", "").json(config("1")).await.expect("the same");
    assert_eq!(version(&same), version(&made));
    let conflict = ask("two", "").json(config("2")).await.expect_err("owned");
    assert_eq!((conflict.code, conflict.causes[0].reason.as_str()), (409, "FieldManagerConflict"));
    let forced = ask("two", "&force=true").json(config("2")).await.expect("forced");
    assert_eq!(forced["data"], json!({"k": "2"}));
    // Nobody wants the key any more once its owner applies without it.
    let bare = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let dropped = ask("two", "").json(bare).await.expect("applied");
    assert!(dropped.get("data").is_none(), "{dropped}");
    let nameless = ask("", "").json(config("3")).await.expect_err("no manager");
    assert!(nameless.message.contains("is required for apply patch"));
}

#[tokio::test]
async fn cluster_ips_have_objects_that_come_and_go_with_them() {
    let rig = Rig::new().await;
    let (services, addresses) = (core("services"), Gvr::new("networking.k8s.io", "v1", "ipaddresses"));
    let ranges = Gvr::new("networking.k8s.io", "v1", "servicecidrs");
    let of = |name: &str, ip: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    rig.post(&services, "default", of("a", "10.96.3.3")).await.expect("created");
    let address = rig.get(&addresses, "", "10.96.3.3").await.expect("an object");
    assert_eq!(address["spec"]["parentRef"], json!({"resource": "services", "namespace": "default", "name": "a"}));
    assert_eq!(address["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");
    let external = json!({"spec": {"type": "ExternalName", "externalName": "x.example", "clusterIP": "", "clusterIPs": null}});
    rig.merge(&services, "default", "a", external).await.expect("changed");
    assert!(rig.get(&addresses, "", "10.96.3.3").await.is_err_and(|e| e.code == 404));

    let object = json!({"metadata": {"name": "10.96.4.4"}, "spec": {"parentRef": {"resource": "x", "name": "y"}}});
    rig.post(&addresses, "", object).await.expect("created");
    let refused = rig.post(&services, "default", of("b", "10.96.4.4")).await.expect_err("somebody else's");
    assert!(refused.message.ends_with("provided IP is already allocated"), "{}", refused.message);

    assert!(rig.post(&services, "default", of("c", "10.200.0.9")).await.is_err());
    rig.post(&ranges, "", json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/24"]}})).await.expect("created");
    rig.registry.catch_up().await;
    rig.post(&services, "default", of("c", "10.200.0.9")).await.expect("the new range's");
    rig.delete(&services, "default", "c").await.expect("deleted");
    assert!(rig.get(&addresses, "", "10.200.0.9").await.is_err_and(|e| e.code == 404));
}

#[tokio::test]
async fn managers_keep_the_version_they_wrote_in() {
    let rig = Rig::new().await;
    let new = tiphys_meta::Gvr::new("events.k8s.io", "v1", "events");
    let event = json!({"metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/x",
        "reportingInstance": "x-1", "action": "Look", "reason": "Seen", "type": "Normal", "note": "a note",
        "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "p"}});
    rig.ask(Verb::Create, &new, "default", "").json(event).await.expect("created");
    let old = rig.get(&core("events"), "default", "e").await.expect("there");
    let manager = &old["metadata"]["managedFields"][0];
    assert_eq!(manager["apiVersion"], "events.k8s.io/v1");
    assert!(manager["fieldsV1"]["f:note"].is_object() && manager["fieldsV1"]["f:message"].is_null(), "{manager}");
}
