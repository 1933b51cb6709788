//! What upstream's API server (v1.36.3) answered to the same requests: `upstream.json` holds what it made of each minimal object, its tables, and the
//! words in which it refused wrong ones. Admission was on there: what plugins add is taken off before comparing.

mod shared;

use serde_json::{Map, Value, json};
use shared::{Case, case, created, ctx, message, minimal, now, readable, without_what_the_server_fills};
use tiphys_meta::object;

fn upstream() -> Map<String, Value> {
    serde_json::from_str(include_str!("upstream.json")).unwrap()
}

/// Cases whose answer is known to differ. This list only shrinks.
const KNOWN: &[&str] = &[
    // Its v2 twin, where the objects are stored, has the metric; conversion between versions is not a strategy's.
    "autoscaling/v1/horizontalpodautoscalers",
    // TaintNodesByCondition adds a taint (admission).
    "v1/nodes",
    // That server was not started with --allow-privileged.
    r#"v1/pods {"spec.containers.0.securityContext":{"allowPrivilegeEscalation":false,"privileged":true}}"#,
    // A LimitRange of the same namespace had made that pod Burstable.
    r#"v1/pods/resize {"spec.containers.0.resources":{"requests":{"cpu":"1"}}}"#,
    r#"v1/pods/resize {"spec.containers":[]}"#,
    // Cluster IPs are the registry's.
    r#"v1/services/ {"spec.ipFamilies":["IPv6"]}"#,
    r#"v1/services/ {"spec.clusterIP":"10.96.9.9","spec.clusterIPs":["10.96.9.9"]}"#,
];

/// Applies `{"spec.containers.0.name": …}`; `<drop>` removes.
fn change(object: &mut Value, changes: &Value) {
    for (path, value) in changes.as_object().unwrap() {
        set(object, &path.split('.').collect::<Vec<_>>(), value);
    }
}

fn set(at: &mut Value, path: &[&str], value: &Value) {
    let step = path[0].replace('~', ".");
    if let Value::Array(list) = at {
        let i: usize = step.parse().unwrap();
        if i == list.len() {
            list.push(Value::Null);
        }
        return if path.len() == 1 { list[i] = value.clone() } else { set(&mut list[i], &path[1..], value) };
    }
    let map = object::as_map(at);
    if path.len() > 1 {
        set(map.entry(step).or_insert(json!({})), &path[1..], value);
    } else if value == "<drop>" {
        map.remove(&step);
    } else {
        map.insert(step, value.clone());
    }
}

fn changed(name: &str, changes: &Value) -> Case {
    let mut object = minimal()[name].clone();
    object::meta_mut(&mut object).entry("name").or_insert(json!("x"));
    change(&mut object, changes);
    case(name.to_owned(), object)
}

#[test]
fn created_objects_are_upstreams() {
    let mut wrong = Vec::new();
    for (name, theirs) in upstream()["created"].as_object().unwrap() {
        let ours = without_what_the_server_fills(created(&case(name.clone(), minimal()[name].clone())));
        let theirs = without_what_the_server_fills(theirs.clone());
        if ours != theirs && !KNOWN.contains(&name.as_str()) {
            wrong.push(format!("{name}\n  ours   {ours}\n  theirs {theirs}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{} differ", wrong.join("\n"), wrong.len());
}

#[test]
fn refusals_have_upstreams_words() {
    let mut wrong = Vec::new();
    let all = upstream();
    let refused = all["refused"].as_array().unwrap().iter().filter(|r| matches!(r["code"].as_i64(), Some(201 | 422)));
    let mut count = 0;
    for refusal in refused {
        count += 1;
        let name = refusal["resource"].as_str().unwrap();
        let case = changed(name, &refusal["change"]);
        let object = created(&case);
        let ours = message(&case, &object, &case.strategy.validate_create(&object));
        let id = format!("{name} {}", refusal["change"]);
        if readable(&ours) != readable(&refusal["message"]) && !KNOWN.contains(&id.as_str()) {
            wrong.push(format!("{id}\n  ours   {ours}\n  theirs {}", refusal["message"]));
        }
    }
    assert!(wrong.is_empty(), "{}\n{} of {count} differ", wrong.join("\n"), wrong.len());
}

#[test]
fn updates_are_refused_in_upstreams_words() {
    let mut wrong = Vec::new();
    let all = upstream();
    let updates = all["updates"].as_array().unwrap().iter().filter(|r| matches!(r["code"].as_i64(), Some(200 | 422)));
    let mut count = 0;
    for update in updates {
        count += 1;
        let name = update["resource"].as_str().unwrap();
        let case = case(name.to_owned(), minimal()[name].clone());
        let mut old = created(&case);
        object::meta_mut(&mut old).insert("resourceVersion".into(), json!("1"));
        let mut new = old.clone();
        change(&mut new, &update["change"]);
        let mut new = tiphys_schema::codec::json::canonicalize(case.kind, new, tiphys_schema::codec::Strictness::Ignore).unwrap().object;
        case.strategy.default(&mut new);
        let errors = match update["subresource"].as_str().unwrap() {
            "" => {
                case.strategy.prepare_update(&mut new, &old, &ctx());
                case.strategy.validate_update(&new, &old)
            }
            sub => {
                let sub = case.strategy.subresource(sub).unwrap();
                sub.update(&mut new, &old, &ctx());
                sub.validate(&new, &old)
            }
        };
        let ours = message(&case, &new, &errors);
        let id = format!("{name}/{} {}", update["subresource"].as_str().unwrap(), update["change"]);
        if readable(&ours) != readable(&update["message"]) && !KNOWN.contains(&id.as_str()) {
            wrong.push(format!("{id}\n  ours   {ours}\n  theirs {}", update["message"]));
        }
    }
    assert!(wrong.is_empty(), "{}\n{} of {count} differ", wrong.join("\n"), wrong.len());
}

#[test]
fn tables_are_upstreams() {
    let mut wrong = Vec::new();
    for (name, theirs) in upstream()["tables"].as_object().unwrap() {
        let case = case(name.clone(), minimal()[name].clone());
        let columns: Vec<Value> = case.strategy.columns.iter().map(|c| json!([c.name, c.kind, c.format, c.priority])).collect();
        if json!(columns) != theirs["columns"] && !KNOWN.contains(&name.as_str()) {
            wrong.push(format!("{name}\n  ours   {}\n  theirs {}", json!(columns), theirs["columns"]));
        }
        let ours = case.strategy.row(&created(&case), now());
        let cells = ours.iter().zip(theirs["cells"].as_array().unwrap()).zip(case.strategy.columns);
        for ((ours, theirs), column) in cells.filter(|(_, c)| {
            !matches!(c.name, "Age" | "Created At" | "Cluster-IP" | "Requestor" | "Last Seen" | "First Seen" | "Selector" | "Status")
        }) {
            if ours != theirs && theirs != "x2" {
                wrong.push(format!("{name} {}: ours {ours}, theirs {theirs}", column.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{} differ", wrong.join("\n"), wrong.len());
}
