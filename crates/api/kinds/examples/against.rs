//! Compares our answers with upstream's for a file of recorded creates: `cargo run -p tiphys-kinds --example against -- corpus.json`.
//! The file is a list of `{resource, object, code, answer | message, warnings}`, as an upstream API server answered them.

#[path = "../tests/shared/mod.rs"]
mod shared;

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};
use shared::{Case, case, created, message, readable, without_what_the_server_fills};
use tiphys_kinds::strategy;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: against corpus.json");
        return ExitCode::FAILURE;
    };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let corpus: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (mut same, mut differ) = (0, 0);
    for entry in corpus.iter().filter(|e| matches!(e["code"].as_i64(), Some(201 | 422))) {
        match compare(entry) {
            None => same += 1,
            Some(why) => {
                differ += 1;
                println!("{} {}\n{why}", entry["resource"].as_str().unwrap_or(""), entry["file"].as_str().unwrap_or(""));
            }
        }
    }
    println!("{same} the same, {differ} differ");
    if differ == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn compare(entry: &Value) -> Option<String> {
    let name = entry["resource"].as_str()?.to_owned();
    let made = std::panic::catch_unwind(|| case(name.clone(), entry["object"].clone()));
    let Ok(case) = made else { return Some("  cannot be read by us".into()) };
    let ours = created(&case);
    if entry["code"] == 422 {
        return compare_refusal(&case, &ours, &entry["message"]);
    }
    let errors = case.strategy.validate_create(&ours);
    if !errors.is_empty() {
        return Some(format!("  we refuse: {}", message(&case, &ours, &errors)));
    }
    let (ours, theirs) = (without_what_the_server_fills(ours), without_what_the_server_fills(entry["answer"].clone()));
    let mut differences = BTreeMap::new();
    difference("", &ours, &theirs, &mut differences);
    let warnings = compare_warnings(&case, entry);
    let text: Vec<String> = differences.into_values().chain(warnings).collect();
    (!text.is_empty()).then(|| text.join("\n"))
}

fn compare_refusal(case: &Case, object: &Value, theirs: &Value) -> Option<String> {
    let ours = message(case, object, &case.strategy.validate_create(object));
    (readable(&ours) != readable(theirs)).then(|| format!("  ours   {}\n  theirs {}", readable(&ours), readable(theirs)))
}

fn compare_warnings(case: &Case, entry: &Value) -> Option<String> {
    let ours = strategy(&case.gvr).warnings(&created(case), None);
    let quoted = |w: &Value| w.as_str().unwrap_or("").trim_start_matches("299 - ").to_owned();
    let theirs: Vec<String> = entry["warnings"].as_array()?.iter().map(quoted).filter(|w| !w.contains(" is deprecated in v1")).collect();
    let ours: Vec<String> = ours.iter().map(|w| json!(w).to_string()).collect();
    (ours != theirs).then(|| format!("  warnings\n  ours   {ours:?}\n  theirs {theirs:?}"))
}

fn difference(path: &str, ours: &Value, theirs: &Value, out: &mut BTreeMap<String, String>) {
    match (ours, theirs) {
        _ if ours == theirs => {}
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()) {
                let none = json!("<absent>");
                difference(&format!("{path}.{key}"), a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                difference(&format!("{path}[{i}]"), a, b, out);
            }
        }
        _ => {
            out.insert(path.to_owned(), format!("  {path}\n    ours   {ours}\n    theirs {theirs}"));
        }
    }
}
