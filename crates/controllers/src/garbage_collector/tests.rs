use jiff::Timestamp;
use serde_json::json;
use tiphys_meta::Gvr;
use tiphys_types::metav1::ObjectMeta;

use super::graph::Graph;

fn meta(uid: &str, owners: &[(&str, bool)], finalizers: &[&str], leaving: bool) -> ObjectMeta {
    let owners: Vec<_> = owners
        .iter()
        .map(|(uid, block)| json!({"apiVersion": "v1", "kind": "K", "name": uid, "uid": uid, "blockOwnerDeletion": block}))
        .collect();
    let mut meta: ObjectMeta =
        tiphys_testing::object(json!({"namespace": "ns", "name": uid, "uid": uid, "ownerReferences": owners, "finalizers": finalizers}));
    if leaving {
        meta.deletion_timestamp = Some(tiphys_types::metav1::Time(Timestamp::UNIX_EPOCH));
    }
    meta
}

fn sorted(mut work: Vec<String>) -> Vec<String> {
    work.sort();
    work.dedup();
    work
}

#[test]
fn who_must_be_looked_at() {
    let pods = Gvr::new("", "v1", "pods");
    let mut graph = Graph::default();
    assert_eq!(graph.put(&pods, &meta("child", &[("parent", true)], &[], false)), ["child"], "its owner has not been seen");
    assert!(graph.put(&pods, &meta("parent", &[], &[], false)).is_empty());
    assert!(graph.put(&pods, &meta("second", &[("parent", false)], &[], false)).is_empty());
    assert_eq!(graph.blocking("parent"), ["child"]);

    let leaving = graph.put(&pods, &meta("parent", &[], &["foregroundDeletion"], true));
    assert_eq!(sorted(leaving), ["child", "parent", "second"]);
    assert_eq!(sorted(graph.remove("child")), ["parent"], "perhaps the last that it waited for");
    assert!(graph.blocking("parent").is_empty());
    assert_eq!(sorted(graph.remove("parent")), ["second"], "now without an owner");
}
