//! Every direction between JSON, YAML and protobuf, on upstream's own golden files: `k8s.io/api/testdata/HEAD` in the Go module cache.
//! They are not ours to copy, so the test asks Go for them (`go mod download`); without Go it fails and says so.

mod upstream;

use std::path::PathBuf;

use serde_json::Value;
use tiphys_meta::Gvk;
use tiphys_schema::Facts;
use tiphys_schema::apply::{self, Options, Schema};
use tiphys_schema::codec::{Strictness, json, proto, yaml};

struct Golden {
    name: String,
    gvk: Gvk,
    json: Vec<u8>,
    yaml: Vec<u8>,
    pb: Vec<u8>,
}

fn golden() -> Vec<Golden> {
    let dir = upstream::module("k8s.io/api@v0.36.3").join("testdata/HEAD");
    let mut stems: Vec<PathBuf> = std::fs::read_dir(&dir).expect("testdata").map(|e| e.expect("entry").path()).collect();
    stems.retain(|p| p.extension().is_some_and(|e| e == "json"));
    stems.sort();
    let read = |path: &PathBuf, ext: &str| std::fs::read(path.with_extension(ext)).expect("golden file");
    let all: Vec<Golden> = stems
        .iter()
        .map(|path| {
            let json = read(path, "json");
            let (api_version, kind) = json::type_meta(&json).expect("type meta");
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            // The one kind whose objects do not say what they are.
            let gvk = if kind.is_empty() { Gvk::new("", "v1", "WatchEvent") } else { Gvk::from_api_version(&api_version, &kind) };
            Golden { name, gvk, json, yaml: read(path, "yaml"), pb: read(path, "pb") }
        })
        .collect();
    assert_eq!(all.len(), 185, "kinds in {}", dir.display());
    all
}

fn first_difference(path: &str, ours: &Value, theirs: &Value) -> String {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()) {
                if a.get(key) != b.get(key) {
                    let null = Value::Null;
                    return first_difference(&format!("{path}.{key}"), a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                if x != y {
                    return first_difference(&format!("{path}[{i}]"), x, y);
                }
            }
        }
        _ => {}
    }
    format!("{path}: ours {ours}, upstream's {theirs}")
}

fn run(check: impl Fn(&Golden) -> Result<(), String>) {
    let failures: Vec<String> = golden().iter().filter_map(|g| check(g).err().map(|e| format!("{}: {e}", g.name))).collect();
    assert!(failures.is_empty(), "{} of 185 differ:\n{}", failures.len(), failures.join("\n"));
}

fn same(ours: &Value, theirs: &Value) -> Result<(), String> {
    if ours == theirs { Ok(()) } else { Err(first_difference("", ours, theirs)) }
}

fn tree(golden: &Golden) -> Value {
    serde_json::from_slice(&golden.json).expect("golden JSON")
}

#[test]
fn json_is_canonical_already() {
    run(|golden| {
        let kind = Facts::builtin().kind(&golden.gvk).ok_or("no such kind")?;
        let decoded = json::decode(kind, &golden.json, Strictness::Strict).map_err(|e| e.to_string())?;
        if !decoded.problems.is_empty() {
            return Err(decoded.problems.join(", "));
        }
        same(&decoded.object, &tree(golden))
    });
}

#[test]
fn yaml_is_the_same_object() {
    run(|golden| {
        let kind = Facts::builtin().kind(&golden.gvk).ok_or("no such kind")?;
        let decoded =
            yaml::to_tree(&golden.yaml).and_then(|t| json::canonicalize(kind, t, Strictness::Strict)).map_err(|e| e.to_string())?;
        if !decoded.problems.is_empty() {
            return Err(decoded.problems.join(", "));
        }
        same(&decoded.object, &tree(golden))
    });
}

#[test]
fn protobuf_reads_as_the_same_object() {
    run(|golden| {
        let kind = Facts::builtin().kind(&golden.gvk).ok_or("no such kind")?;
        let envelope = proto::open(&golden.pb).map_err(|e| e.to_string())?;
        let object = proto::decode_raw(kind, &envelope).map_err(|e| e.to_string())?;
        if !envelope.kind.is_empty() && proto::decode(&golden.pb) != Ok((golden.gvk.clone(), object.clone())) {
            return Err("the envelope does not say the kind".into());
        }
        same(&object, &tree(golden))
    });
}

#[test]
fn protobuf_is_written_byte_for_byte() {
    run(|golden| {
        let kind = Facts::builtin().kind(&golden.gvk).ok_or("no such kind")?;
        let message = proto::encode_message(kind, &tree(golden)).map_err(|e| e.to_string())?;
        let envelope = proto::open(&golden.pb).map_err(|e| e.to_string())?;
        let bytes = proto::encode(&golden.gvk, &tree(golden)).map_err(|e| e.to_string())?;
        if bytes == golden.pb || (envelope.kind.is_empty() && message == envelope.raw) {
            return Ok(());
        }
        let at = bytes.iter().zip(&golden.pb).position(|(a, b)| a != b).unwrap_or(bytes.len().min(golden.pb.len()));
        Err(format!("byte {at} of {}: ours {:?}, upstream's {:?}", golden.pb.len(), tail(&bytes, at), tail(&golden.pb, at)))
    });
}

fn tail(bytes: &[u8], at: usize) -> String {
    String::from_utf8_lossy(&bytes[at.saturating_sub(12).min(bytes.len())..(at + 24).min(bytes.len())]).into_owned()
}

/// A few ways to spoil a place of a tree, or to change it as a patch would.
fn disturb(at: &mut Value, seed: usize) {
    let next = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 3;
    let down = !seed.is_multiple_of(5);
    match at {
        Value::Object(map) if !map.is_empty() => {
            let Some(key) = map.keys().nth(seed / 7 % map.len()).cloned() else { return };
            match seed % 11 {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert("unknown".into(), Value::from(1))),
                2 => drop(map.insert(key, Value::Null)),
                _ => map.get_mut(&key).into_iter().for_each(|value| disturb(value, next)),
            }
        }
        Value::Array(list) if down && !list.is_empty() => {
            let which = seed / 7 % list.len();
            disturb(&mut list[which], next);
        }
        other => {
            let values = serde_json::json!(["0500m", 0, "", true, {"a": null}, []]);
            *other = values[seed / 3 % 6].clone();
        }
    }
}

#[test]
fn what_was_not_changed_need_not_be_read_again() {
    run(|golden| {
        let Some(kind) = Facts::builtin().kind(&golden.gvk) else { return Ok(()) };
        let canonical = json::decode(kind, &golden.json, Strictness::Strict).map_err(|e| e.to_string())?.object;
        for seed in 0..100 {
            let mut changed = canonical.clone();
            disturb(&mut changed, seed * 7919);
            disturb(&mut changed, seed * 104_729 + 3);
            let whole = json::canonicalize(kind, changed.clone(), Strictness::Strict);
            let parts = json::canonicalize_changed(kind, changed.clone(), &canonical, Strictness::Strict);
            match (whole, parts) {
                (Ok(whole), Ok(parts)) => {
                    same(&parts.object, &whole.object).map_err(|e| format!("{changed}: {e}"))?;
                    assert_eq!(parts.problems, whole.problems, "{changed}");
                }
                (Err(whole), Err(parts)) => assert_eq!(whole.to_string(), parts.to_string()),
                (whole, parts) => return Err(format!("{changed}: {whole:?}, {parts:?}")),
            }
        }
        Ok(())
    });
}

/// Who starts tracking anew goes the long way, by sets; who makes an object goes a short one.
#[test]
fn the_maker_of_an_object_owns_what_it_says() {
    const STATUS: &[&[&str]] = &[&["status"]];
    run(|golden| {
        let Some(kind) = Facts::builtin().kind(&golden.gvk) else { return Ok(()) };
        let canonical = json::decode(kind, &golden.json, Strictness::Strict).map_err(|e| e.to_string())?.object;
        for seed in 0..60 {
            let mut made = canonical.clone();
            if seed > 0 {
                disturb(&mut made, seed * 7919);
                disturb(&mut made, seed * 104_729 + 3);
            }
            let Ok(decoded) = json::canonicalize(kind, made, Strictness::Ignore) else { continue };
            let (mut short, mut long) = (decoded.object.clone(), decoded.object);
            for (tree, fields) in [(&mut short, Value::Null), (&mut long, serde_json::json!([]))] {
                if let Some(Value::Object(metadata)) = tree.get_mut("metadata") {
                    metadata.insert("managedFields".into(), fields);
                }
                let reset = if seed % 2 == 0 { STATUS } else { &[] };
                let options = Options { manager: "maker", subresource: "", now: "2026-11-21T10:00:00Z", reset, force: false };
                apply::update(&Schema::Kind(kind), None, tree, &options);
            }
            same(&short, &long)?;
        }
        Ok(())
    });
}
