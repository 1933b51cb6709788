//! What anybody may send: no parser panics, and what is read once reads the same again.

use proptest::prelude::*;
use serde_json::Value;
use tiphys_schema::codec::{Strictness, json, proto, yaml};
use tiphys_schema::{Facts, Kind, apply, patch, structural};

fn pod() -> &'static Kind {
    Facts::builtin().kind_of("", "v1", "Pod").expect("kind")
}

/// JSON of Pods gone wrong: real field names, any values.
fn tree() -> impl Strategy<Value = Value> {
    let names: [&'static str; 14] = [
        "metadata",
        "spec",
        "status",
        "containers",
        "name",
        "labels",
        "ports",
        "containerPort",
        "env",
        "volumes",
        "creationTimestamp",
        "limits",
        "$patch",
        "x",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just("delete".to_owned()), Just("1Gi".to_owned()), Just("2024-01-01T00:00:00Z".to_owned()), ".{0,8}"]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(names.to_vec()).prop_map(str::to_owned), inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_text(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = json::decode(pod(), &bytes, Strictness::Strict);
        let _ = json::decode_custom(&bytes, Strictness::Strict);
        let _ = json::type_meta(&bytes);
        let _ = yaml::read(&bytes);
        let _ = patch::parse_json_patch(&bytes);
    }

    #[test]
    fn protobuf(bytes in prop::collection::vec(any::<u8>(), 0..96)) {
        let mut framed = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".to_vec();
        framed.push(u8::try_from(bytes.len()).expect("short"));
        framed.extend(&bytes);
        if let Ok((gvk, object)) = proto::decode(&framed) {
            let written = proto::encode(&gvk, &object).expect("what was read can be written");
            prop_assert_eq!(proto::decode(&written).expect("and read").1, object);
        }
        let _ = proto::decode(&bytes);
        let _ = proto::decode_watch_event(&bytes);
    }

    #[test]
    fn trees(mut object in tree(), patch_tree in tree()) {
        if let Ok(decoded) = json::canonicalize(pod(), object.clone(), Strictness::Warn) {
            let again = json::canonicalize(pod(), decoded.object.clone(), Strictness::Strict).expect("canonical");
            prop_assert!(again.problems.is_empty());
            prop_assert_eq!(&again.object, &decoded.object);
            let bytes = proto::encode(&pod().gvk, &decoded.object).expect("canonical trees can be written");
            let _ = proto::decode(&bytes).expect("and read");
            let mut patched = decoded.object.clone();
            let _ = patch::strategic(pod(), &mut patched, &patch_tree);
            let options = apply::Options { manager: "m", subresource: "", now: "2026-01-01T00:00:00Z", reset: &[&["status"]], force: true };
            apply::update(&apply::Schema::Kind(pod()), Some(&decoded.object), &mut patched, &options);
        }
        let _ = patch::merge(&mut object, &patch_tree);
        let options = apply::Options { manager: "m", subresource: "", now: "2026-01-01T00:00:00Z", reset: &[], force: false };
        let _ = apply::apply(&apply::Schema::Kind(pod()), Some(&object), &patch_tree, &options);
        structural::prune(Some(&patch_tree), &mut object);
        structural::default(&patch_tree, &mut object);
        let _ = structural::validate(&patch_tree, &object);
    }
}
