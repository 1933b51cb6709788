//! Our patches and our server-side apply against upstream's own code, on random cases that `xtask/facts/oracle` makes and answers.
//!
//! Go must be there. The seed is fixed (`SEED` gives another), so that the cases are the same on every run.

mod upstream;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use tiphys_meta::base64;
use tiphys_schema::apply::{self, Options, Schema};
use tiphys_schema::codec::{DecodeError, Decoded, Strictness, json, proto, yaml};
use tiphys_schema::{Facts, Kind, patch};

fn oracle(what: &str, count: &str) -> Command {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../xtask/facts");
    let mut command = Command::new("go");
    let seed = std::env::var("SEED").unwrap_or_else(|_| "1".into());
    command.args(["run", "./oracle", what, &seed, count]).current_dir(sources);
    command
}

fn cases(what: &str, count: &str) -> Vec<Value> {
    let testdata = upstream::module("k8s.io/api@v0.36.3").join("testdata/HEAD");
    let documents = upstream::module("k8s.io/kubernetes@v1.36.3");
    let output = oracle(what, count).arg(testdata).arg(documents).output().expect("this test needs the `go` command");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).expect("JSON")).collect()
}

/// All in the facts but lists, options and what belongs to no group (`Status`, `Table`, …).
const RANDOM_KINDS: usize = 184;

/// Objects with patches; two tests look at them.
static PATCHES: LazyLock<Vec<Value>> = LazyLock::new(|| cases("patch", "1000"));

fn kind_of(case: &Value) -> &'static Kind {
    let text = |field: &str| case[field].as_str().unwrap_or("");
    let api_version = text("apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Facts::builtin().kind_of(group, version, text("kind")).expect("kind")
}

fn canonical(kind: &Kind, tree: Value) -> Result<Value, String> {
    json::canonicalize(kind, tree, Strictness::Ignore).map(|d| d.object).map_err(|e| e.to_string())
}

fn difference(path: &str, ours: &Value, theirs: &Value) -> Option<String> {
    match (ours, theirs) {
        _ if ours == theirs => None,
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            let null = Value::Null;
            difference(&format!("{path}.{key}"), a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null))
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (x, y))| difference(&format!("{path}[{i}]"), x, y))
        }
        _ => Some(format!("{path}: ours {ours}, upstream's {theirs}")),
    }
}

fn report(failures: &[String], cases: usize) {
    let mut failures = failures.to_vec();
    failures.sort_by_key(String::len);
    let shown: Vec<String> = failures.iter().take(4).map(|f| f.chars().take(2400).collect()).collect();
    assert!(failures.is_empty(), "{} of {cases} differ:\n{}", failures.len(), shown.join("\n"));
}

#[test]
fn strategic_merge_patches() {
    let cases = &*PATCHES;
    let mut failures = Vec::new();
    for case in cases.iter().filter(|c| c.get("skip").is_none()) {
        let kind = kind_of(case);
        let mut object = case["original"].clone();
        let ours = patch::strategic(kind, &mut object, &case["patch"]);
        let failure = match (ours, case.get("error").and_then(Value::as_str)) {
            // Which error comes first depends on Go's order of maps.
            (Err(_), Some(_)) => None,
            (Err(e), None) => Some(format!("ours fails: {e}")),
            (Ok(()), Some(e)) => Some(format!("upstream fails: {e}")),
            // Directives and unknown fields are dropped when the result is read as an object.
            (Ok(()), None) => match (canonical(kind, object), canonical(kind, case["result"].clone())) {
                (Ok(ours), Ok(theirs)) => difference("", &ours, &theirs),
                _ => None,
            },
        };
        failures.extend(failure.map(|f| format!("{f}\n  patch {}\n  original {}", case["patch"], case["original"])));
    }
    report(&failures, cases.len());
}

/// Objects with fields left out: what Go prints of them, and what it writes in protobuf.
#[test]
fn codecs() {
    let cases = &*PATCHES;
    let mut failures = Vec::new();
    for case in cases.iter().filter(|c| c.get("skip").is_none()) {
        let kind = kind_of(case);
        let original = &case["original"];
        let failure = codec_failure(kind, case, original);
        failures.extend(failure.map(|f| format!("{f}\n  raw {}\n  original {original}", case["raw"])));
    }
    report(&failures, cases.len());
}

fn codec_failure(kind: &Kind, case: &Value, original: &Value) -> Option<String> {
    let read = |tree: &Value| json::decode(kind, tree.to_string().as_bytes(), Strictness::Strict).map_err(|e| e.to_string());
    let wire = base64::decode(case["wire"].as_str().unwrap_or("")).unwrap_or_default();
    let checks = [
        ("JSON as given", read(&case["raw"]).map(|d| d.object)),
        ("JSON as printed", read(original).map(|d| d.object)),
        ("protobuf", proto::decode(&wire).map(|(_, object)| object).map_err(|e| e.to_string())),
    ];
    for (what, result) in checks {
        match result {
            Err(e) => return Some(format!("{what}: {e}")),
            Ok(object) => {
                if let Some(found) = difference("", &object, original) {
                    return Some(format!("{what}: {found}"));
                }
            }
        }
    }
    match proto::encode(&kind.gvk, original) {
        Ok(ours) if ours == wire => None,
        Ok(ours) => Some(format!("protobuf: {} bytes, upstream has {}", ours.len(), wire.len())),
        Err(e) => Some(format!("protobuf: {e}")),
    }
}

/// Objects of every kind with random values in random fields, in every direction between JSON, YAML and protobuf. `RANDOM_OBJECTS` says how many.
#[test]
fn random_objects() {
    let count = std::env::var("RANDOM_OBJECTS").unwrap_or_else(|_| "4000".into());
    let mut child = oracle("random", &count).stdout(Stdio::piped()).spawn().expect("this test needs the `go` command");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let (mut failures, mut kinds, mut seen) = (Vec::new(), HashSet::new(), 0);
    for line in lines {
        let line = line.expect("a line");
        let columns: Vec<&str> = line.split('\t').collect();
        let [api_version, name, sent, wire, object, printed] = columns[..] else { panic!("a line of the oracle: {line}") };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let failure = match Facts::builtin().kind_of(group, version, name) {
            Some(kind) => random_failure(kind, [sent, wire], object, printed),
            None => Some("no such kind".to_owned()),
        };
        kinds.insert((api_version.to_owned(), name.to_owned()));
        failures.extend(failure.map(|f| format!("{api_version} {name}: {f}\n  {object}")));
        seen += 1;
    }
    assert!(child.wait().expect("its end").success());
    println!("{seen} objects of {} kinds", kinds.len());
    report(&failures, seen);
    assert_eq!((seen.to_string(), kinds.len()), (count, RANDOM_KINDS));
}

fn random_failure(kind: &Kind, wires: [&str; 2], object: &str, printed: &str) -> Option<String> {
    let [sent, wire] = wires.map(|wire| base64::decode(wire).unwrap_or_default());
    let from_protobuf = |wire: &[u8]| proto::decode(wire).map(|(_, object)| object).map_err(|e| e.to_string());
    let tree: Value = serde_json::from_str(object).expect("upstream's JSON");
    let strictly = |decoded: Result<Decoded, DecodeError>| match decoded {
        Ok(decoded) if decoded.problems.is_empty() => Ok(decoded.object),
        Ok(decoded) => Err(decoded.problems.join(", ")),
        Err(e) => Err(e.to_string()),
    };
    let from_yaml = |text: &str| strictly(yaml::to_tree(text.as_bytes()).and_then(|t| json::canonicalize(kind, t, Strictness::Strict)));
    let ours = yaml::print(&tree);
    let theirs: String = if printed.is_empty() { ours.clone() } else { serde_json::from_str(printed).expect("upstream's YAML as a text") };
    if ours != theirs {
        let (ours, theirs) = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs).unwrap_or_default();
        return Some(format!("YAML: ours {ours:?}, upstream's {theirs:?}"));
    }
    let readings = [
        ("JSON", strictly(json::decode(kind, object.as_bytes(), Strictness::Strict))),
        ("protobuf", from_protobuf(&wire)),
        ("a client's protobuf", from_protobuf(&sent)),
        ("our YAML", from_yaml(&ours)),
        ("upstream's YAML", from_yaml(&theirs)),
    ];
    for (what, read) in readings {
        match read {
            Err(e) => return Some(format!("{what}: {e}")),
            Ok(read) if read == tree => {}
            Ok(read) => return difference("", &read, &tree).map(|found| format!("{what}: {found}")),
        }
    }
    match proto::encode(&kind.gvk, &tree) {
        Ok(ours) if ours == wire => None,
        Ok(ours) => Some(format!("protobuf: {} bytes, upstream has {}", ours.len(), wire.len())),
        Err(e) => Some(format!("protobuf: {e}")),
    }
}

/// Documents as somebody might write them by hand.
#[test]
fn yaml_documents() {
    let cases = cases("yaml", "20000");
    let mut failures = Vec::new();
    for case in &cases {
        let text = case["text"].as_str().unwrap_or("");
        let failure = match (yaml::to_tree(text.as_bytes()), case.get("tree")) {
            (Ok(ours), Some(theirs)) => difference("", &ours, theirs),
            (Ok(ours), None) => Some(format!("ours {ours}, upstream fails: {}", case["error"])),
            // Upstream does not look at what stands behind a lone scalar.
            (Err(_), Some(theirs)) if !theirs.is_object() && !theirs.is_array() => None,
            (Err(e), Some(theirs)) => Some(format!("ours fails: {e}, upstream's {theirs}")),
            (Err(_), None) => None,
        };
        failures.extend(failure.map(|f| format!("{f}\n{text}")));
    }
    report(&failures, cases.len());
}

/// Objects with faults: unknown and duplicate fields, values of the wrong type, text that is no JSON.
#[test]
fn faults() {
    let cases = cases("strict", "1500");
    let mut failures = Vec::new();
    for case in &cases {
        let text = case["text"].as_str().unwrap_or("");
        let ours = json::decode(kind_of(case), text.as_bytes(), Strictness::Strict);
        let problems: Vec<&str> = case["problems"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let failure = match (ours, case.get("error").and_then(Value::as_str)) {
            (Ok(decoded), None) if decoded.problems == problems => None,
            (Ok(decoded), None) => Some(format!("ours {:?}, upstream's {problems:?}", decoded.problems)),
            (Err(ours), Some(theirs)) if ours.to_string() == theirs => None,
            (Err(ours), Some(theirs)) => Some(format!("ours: {ours}; upstream's: {theirs}")),
            (Err(ours), None) => Some(format!("ours fails: {ours}")),
            (Ok(_), Some(theirs)) => Some(format!("upstream fails: {theirs}")),
        };
        failures.extend(failure.map(|f| format!("{f}\n  {text}")));
    }
    report(&failures, cases.len());
}

/// Without times, and without the order that they make.
fn timeless(mut object: Value) -> Value {
    let mut fields = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
    if let Some(fields) = &mut fields {
        fields.sort_by_key(|f| format!("{}{}", f["operation"], f["manager"]));
    }
    fields.into_iter().flatten().filter_map(Value::as_object_mut).for_each(|entry| drop(entry.remove("time")));
    object
}

#[test]
fn server_side_apply() {
    let cases = cases("apply", "500");
    let mut failures = Vec::new();
    for case in &cases {
        if let Err(failure) = run_steps(kind_of(case), case) {
            failures.push(format!("{} {failure}", case["kind"]));
        }
    }
    report(&failures, cases.len());
}

fn run_steps(kind: &'static Kind, case: &Value) -> Result<(), String> {
    let schema = Schema::Kind(kind);
    let mut live: Option<Value> = None;
    for (i, step) in case["steps"].as_array().into_iter().flatten().enumerate() {
        let options = Options {
            manager: step["manager"].as_str().unwrap_or(""),
            subresource: "",
            now: "2026-01-01T00:00:00Z",
            reset: &[],
            force: step["force"] == Value::Bool(true),
        };
        let result = match step.get("apply") {
            Some(config) => apply::apply(&schema, live.as_ref(), config, &options).map_err(|e| e.to_string()),
            None => {
                let mut new = step["update"].clone();
                apply::update(&schema, live.as_ref(), &mut new, &options);
                Ok(new)
            }
        };
        let fault = |f: String| format!("step {i}: {f}\n  step {step}\n  live {}", live.clone().unwrap_or_default());
        match (result, step.get("error").and_then(Value::as_str)) {
            // Where there are several, their order is Go's order of maps.
            (Err(ours), Some(theirs)) if ours == theirs || theirs.contains("errors:") || theirs.contains("conflicts") => {}
            // … and one undeclared field hides the others.
            (Err(ours), Some(theirs)) if ours.contains("not declared") && theirs.contains("not declared") => {}
            (Err(ours), Some(theirs)) => return Err(fault(format!("ours: {ours}; upstream: {theirs}"))),
            (Err(e), None) => return Err(fault(format!("ours fails: {e}"))),
            (Ok(_), Some(e)) => return Err(fault(format!("upstream fails: {e}"))),
            (Ok(object), None) => {
                let object = canonical(kind, object).map_err(fault)?;
                let theirs = canonical(kind, step["result"].clone()).map_err(fault)?;
                if let Some(found) = difference("", &timeless(object), &timeless(theirs.clone())) {
                    return Err(fault(found));
                }
                live = Some(theirs);
            }
        }
    }
    Ok(())
}
