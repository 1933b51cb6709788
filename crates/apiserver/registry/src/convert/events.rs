//! `events.k8s.io/v1` and core `v1` events are the same object under other field names (KEP-383).

use serde_json::Value;

use super::rename;

/// (core, events.k8s.io)
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Core always prints these.
const CORE_ALWAYS: [&str; 2] = ["reportingComponent", "reportingInstance"];

pub(super) fn to_core(tree: &mut Value) {
    rename(tree, NAMES.map(|(core, new)| (new, core)));
    if let Some(map) = tree.as_object_mut() {
        for name in CORE_ALWAYS {
            map.entry(name).or_insert_with(|| Value::String(String::new()));
        }
    }
}

pub(super) fn from_core(tree: &mut Value) {
    rename(tree, NAMES);
    if let Some(map) = tree.as_object_mut() {
        for name in ["reportingController", "reportingInstance"] {
            if map.get(name).and_then(Value::as_str) == Some("") {
                map.remove(name);
            }
        }
    }
}

pub(super) fn field_label(label: &str) -> Option<&'static str> {
    Some(match label {
        "regarding.kind" => "involvedObject.kind",
        "regarding.namespace" => "involvedObject.namespace",
        "regarding.name" => "involvedObject.name",
        "regarding.uid" => "involvedObject.uid",
        "regarding.apiVersion" => "involvedObject.apiVersion",
        "regarding.resourceVersion" => "involvedObject.resourceVersion",
        "regarding.fieldPath" => "involvedObject.fieldPath",
        "reportingController" => "reportingComponent",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_and_back() {
        let new = json!({"regarding": {"kind": "Pod"}, "note": "n", "reason": "r", "reportingController": "c", "reportingInstance": "i", "deprecatedCount": 2});
        let mut tree = new.clone();
        to_core(&mut tree);
        assert_eq!(tree["involvedObject"], json!({"kind": "Pod"}));
        assert_eq!(tree["message"], "n");
        assert_eq!(tree["count"], 2);
        from_core(&mut tree);
        assert_eq!(tree, new);
    }
}
