//! Which nodes a pod may or would rather run on: `nodeSelector`, node affinity, and node selectors of volumes.

use std::collections::BTreeMap;

use tiphys_meta::selector::{Operator, Requirement};

use crate::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PreferredSchedulingTerm};

type Labels = BTreeMap<String, String>;

/// The pod's `nodeSelector` and its required node affinity both hold.
pub fn required_matches(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let labels = node.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|l| l.get(key)) == Some(value);
    if !spec.node_selector.iter().flatten().all(has) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| selector_matches(selector, node))
}

/// One term is enough; a term without requirements matches nothing.
pub fn selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    let name = node.metadata.name.as_deref().unwrap_or("");
    selector.node_selector_terms.iter().any(|term| term_matches(term, node.metadata.labels.as_ref(), name))
}

pub fn term_matches(term: &NodeSelectorTerm, labels: Option<&Labels>, node_name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|e| label_matches(e, labels)) && fields.iter().all(|f| field_matches(f, node_name))
}

fn label_matches(expression: &NodeSelectorRequirement, labels: Option<&Labels>) -> bool {
    let operator = match expression.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    let values = expression.values.clone().unwrap_or_default();
    let value = labels.and_then(|l| l.get(&expression.key)).map(String::as_str);
    Requirement { key: expression.key.clone(), operator, values }.matches(value)
}

/// Only `metadata.name` is a field, with `In` or `NotIn` of one value.
fn field_matches(requirement: &NodeSelectorRequirement, node_name: &str) -> bool {
    let own = if requirement.key == "metadata.name" { node_name } else { "" };
    match (requirement.operator.as_str(), requirement.values.as_deref().unwrap_or_default()) {
        ("In", [value]) => own == value,
        ("NotIn", [value]) => own != value,
        _ => false,
    }
}

/// The sum of the weights of the preferred terms that match.
pub fn preferred_score(terms: &[PreferredSchedulingTerm], node: &Node) -> i64 {
    let name = node.metadata.name.as_deref().unwrap_or("");
    let matching = terms.iter().filter(|t| term_matches(&t.preference, node.metadata.labels.as_ref(), name));
    matching.map(|t| i64::from(t.weight)).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn required_and_preferred() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"zone": "a", "cpus": "8"}}})).unwrap();
        let pod = |spec: serde_json::Value| -> Pod { serde_json::from_value(json!({"spec": spec})).unwrap() };
        let affinity = |terms: serde_json::Value| {
            pod(json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}))
        };
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        assert!(required_matches(&pod(json!({"containers": []})), &node));
        assert!(required_matches(&pod(json!({"containers": [], "nodeSelector": {"zone": "a"}})), &node));
        assert!(!required_matches(&pod(json!({"containers": [], "nodeSelector": {"zone": "b"}})), &node));
        for (terms, yes) in [
            (json!([{"matchExpressions": [expression("zone", "In", &["a", "b"])]}]), true),
            (json!([{"matchExpressions": [expression("zone", "NotIn", &["a"])]}]), false),
            (json!([{"matchExpressions": [expression("cpus", "Gt", &["4"])]}]), true),
            (json!([{"matchExpressions": [expression("cpus", "Lt", &["4"])]}]), false),
            (json!([{"matchFields": [expression("metadata.name", "In", &["n1"])]}]), true),
            (json!([{"matchFields": [expression("metadata.name", "NotIn", &["n1"])]}]), false),
            (json!([{}]), false),
            (json!([{}, {"matchExpressions": [expression("zone", "Exists", &[])]}]), true),
            (json!([{"matchExpressions": [expression("zone", "Strange", &[])]}]), false),
        ] {
            assert_eq!(required_matches(&affinity(terms.clone()), &node), yes, "{terms}");
        }
        let preferred: Vec<PreferredSchedulingTerm> = serde_json::from_value(json!([
            {"weight": 10, "preference": {"matchExpressions": [expression("zone", "In", &["a"])]}},
            {"weight": 5, "preference": {"matchExpressions": [expression("zone", "In", &["b"])]}},
        ]))
        .unwrap();
        assert_eq!(preferred_score(&preferred, &node), 10);
    }
}
