//! The smallest strategic merge patch from the status that the API shows to the one that it should show. Pure.

use serde_json::{Map, Value, json};
use tiphys_types::api::core::v1::PodStatus;

/// What the kubelet owns of a status. The rest belongs to others and is never touched.
const OWNED: [&str; 16] = [
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "qosClass",
    "observedGeneration",
    "allocatedResources",
    "resources",
    "conditions",
];

/// None when nothing differs.
pub(crate) fn patch(uid: &str, shown: &PodStatus, wanted: &PodStatus) -> Option<Value> {
    let (shown, wanted) = (object(shown), object(wanted));
    let mut status = Map::new();
    for key in OWNED {
        let change = match key {
            "conditions" => conditions(shown.get(key), wanted.get(key)),
            "podIPs" | "hostIPs" => addresses(shown.get(key), wanted.get(key)),
            _ => change(shown.get(key), wanted.get(key)),
        };
        if let Some(change) = change {
            status.insert(key.into(), change);
        }
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map.into_iter().filter_map(|(k, v)| Some((k, said(v)?))).collect(),
        _ => Map::new(),
    }
}

/// The value without what says nothing: the API prints `lastState: {}` where we leave it out, and a difference that is none
/// would be written for ever.
fn said(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(map) => {
            let map: Map<String, Value> = map.into_iter().filter_map(|(k, v)| Some((k, said(v)?))).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        Value::Array(list) => {
            let list: Vec<Value> = list.into_iter().map(|v| said(v).unwrap_or(Value::Object(Map::new()))).collect();
            (!list.is_empty()).then_some(Value::Array(list))
        }
        other => Some(other),
    }
}

/// Absent is null; objects change field by field, lists whole.
fn change(old: Option<&Value>, new: Option<&Value>) -> Option<Value> {
    match (old, new) {
        (None | Some(Value::Null), None | Some(Value::Null)) => None,
        (Some(_), None) => Some(Value::Null),
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            let changes: Map<String, Value> = keys.into_iter().filter_map(|k| Some((k.clone(), change(old.get(k), new.get(k))?))).collect();
            (!changes.is_empty()).then_some(Value::Object(changes))
        }
        (Some(old), Some(new)) if old == new => None,
        (_, Some(new)) => Some(new.clone()),
    }
}

/// Lists of addresses merge by address; ours replaces what was there.
fn addresses(old: Option<&Value>, new: Option<&Value>) -> Option<Value> {
    match change(old, new)? {
        Value::Array(list) if old.is_some() => {
            let replace = json!({"$patch": "replace"});
            Some(Value::Array(std::iter::once(replace).chain(list).collect()))
        }
        other => Some(other),
    }
}

/// Conditions merge by type: only those that differ are sent, and those of ours that are gone are deleted.
fn conditions(old: Option<&Value>, new: Option<&Value>) -> Option<Value> {
    let list = |v: Option<&Value>| v.and_then(Value::as_array).cloned().unwrap_or_default();
    let (old, new) = (list(old), list(new));
    let find = |list: &[Value], kind: &Value| list.iter().find(|c| c["type"] == *kind).cloned();
    let mut changes = Vec::new();
    for condition in &new {
        let before = find(&old, &condition["type"]);
        match before {
            Some(before) if before == *condition => {}
            Some(before) => {
                // A field that goes away must be said to.
                let mut changed = condition.clone();
                for key in before.as_object().into_iter().flat_map(Map::keys).filter(|k| condition.get(*k).is_none_or(Value::is_null)) {
                    changed[key] = Value::Null;
                }
                changes.push(changed);
            }
            None => changes.push(condition.clone()),
        }
    }
    for condition in &old {
        let ours = condition["type"].as_str().is_some_and(|kind| super::conditions::OWNED.contains(&kind));
        if ours && find(&new, &condition["type"]).is_none() {
            changes.push(json!({"$patch": "delete", "type": condition["type"]}));
        }
    }
    (!changes.is_empty()).then_some(Value::Array(changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(shown: Value, wanted: Value) -> Option<Value> {
        let read = |v| serde_json::from_value::<PodStatus>(v).expect("a status");
        patch("u", &read(shown), &read(wanted)).map(|p| p["status"].clone())
    }

    #[test]
    fn only_differences_are_sent() {
        let full = json!({"phase": "Running", "podIPs": [{"ip": "1"}], "conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(run(full.clone(), full), None);
        assert_eq!(
            run(json!({"phase": "Running", "reason": "X"}), json!({"phase": "Failed"})),
            Some(json!({"phase": "Failed", "reason": null}))
        );
    }

    #[test]
    fn what_says_nothing_is_no_difference() {
        let status = |extra: Value| {
            let mut c = json!({"name": "c", "image": "i", "imageID": "x", "ready": true, "restartCount": 0, "state": {"running": {}}});
            c.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
            json!({"containerStatuses": [c]})
        };
        assert_eq!(run(status(json!({"lastState": {}, "resources": {}})), status(json!({}))), None);
    }

    #[test]
    fn others_conditions_stay_and_ours_go() {
        let shown = json!({"conditions": [{"type": "mine/gate", "status": "True"}, {"type": "PodResizePending", "status": "True"},
            {"type": "Ready", "status": "False", "reason": "X"}]});
        let wanted = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let expected =
            json!({"conditions": [{"type": "Ready", "status": "True", "reason": null}, {"$patch": "delete", "type": "PodResizePending"}]});
        assert_eq!(run(shown, wanted), Some(expected));
    }

    #[test]
    fn addresses_are_replaced() {
        let got = run(json!({"podIPs": [{"ip": "1"}]}), json!({"podIPs": [{"ip": "2"}]}));
        assert_eq!(got, Some(json!({"podIPs": [{"$patch": "replace"}, {"ip": "2"}]})));
        assert_eq!(run(json!({}), json!({"podIPs": [{"ip": "2"}]})), Some(json!({"podIPs": [{"ip": "2"}]})));
    }
}
