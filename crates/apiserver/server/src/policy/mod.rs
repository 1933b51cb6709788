//! The RBAC policy that every cluster starts with: upstream's roles and bindings as one table (`policy.txt`), and its reconciliation.

mod reconcile;

pub use reconcile::ensure;

use serde_json::{Value, json};

use crate::authorize::rbac::Rule;

const TABLE: &str = include_str!("policy.txt");
const API_GROUP: &str = "rbac.authorization.k8s.io";
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// All default roles and bindings as objects.
pub fn objects() -> Vec<Value> {
    let mut all = Vec::new();
    let mut current: Option<Value> = None;
    for line in TABLE.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
        if let Some(entry) = line.strip_prefix("  ") {
            if let Some(object) = &mut current {
                add_entry(object, entry);
            }
        } else {
            all.extend(current.replace(head(line)));
        }
    }
    all.extend(current);
    all
}

fn head(line: &str) -> Value {
    let mut words = line.split(' ');
    let (kind, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut object = json!({
        "apiVersion": format!("{API_GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
    });
    if !kind.ends_with("Binding") {
        object["rules"] = json!([]);
    }
    while let (Some(word), Some(value)) = (words.next(), words.next()) {
        match word {
            "in" => object["metadata"]["namespace"] = json!(value),
            "to" => object["metadata"]["labels"][aggregate_label(value)] = json!("true"),
            _ => {
                let role = words.next().unwrap_or("");
                object["roleRef"] = json!({"apiGroup": API_GROUP, "kind": value, "name": role});
            }
        }
    }
    object
}

fn aggregate_label(role: &str) -> String {
    format!("{API_GROUP}/aggregate-to-{role}")
}

fn add_entry(object: &mut Value, entry: &str) {
    let words: Vec<&str> = entry.split(' ').collect();
    let push = |list: &mut Value, item: Value| match list {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    };
    match words.as_slice() {
        ["from", role] => {
            let selector = json!({"matchLabels": {aggregate_label(role): "true"}});
            push(&mut object["aggregationRule"]["clusterRoleSelectors"], selector);
        }
        ["ServiceAccount", name, namespace] => {
            push(&mut object["subjects"], json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
        }
        [kind @ ("User" | "Group"), name] => push(&mut object["subjects"], json!({"apiGroup": API_GROUP, "kind": kind, "name": name})),
        _ => push(&mut object["rules"], parse_rule(entry).to_value()),
    }
}

/// Rules, one a line, in the table's notation.
pub fn parse_rules(text: &str) -> Vec<Rule> {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(parse_rule).collect()
}

/// `VERBS GROUPS RESOURCES [NAMES]` or `VERBS url PATHS`.
fn parse_rule(line: &str) -> Rule {
    let words: Vec<Vec<String>> =
        line.split(' ').map(|word| word.split(',').map(|w| if w == "core" { String::new() } else { w.to_owned() }).collect()).collect();
    let word = |i: usize| words.get(i).cloned().unwrap_or_default();
    if line.split(' ').nth(1) == Some("url") {
        return Rule { verbs: word(0), urls: word(2), ..Rule::default() };
    }
    Rule { verbs: word(0), groups: word(1), resources: word(2), names: word(3), urls: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tiphys_meta::object;

    use super::*;

    const UPSTREAM: &str = "/root/go/pkg/mod/k8s.io/kubernetes@v1.36.3/plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata";

    fn key(value: &Value) -> (String, String, String) {
        let kind = value["kind"].as_str().unwrap_or("").to_owned();
        (kind, object::namespace(value).to_owned(), object::name(value).to_owned())
    }

    #[test]
    fn the_table_has_the_roles_that_clusters_need() {
        let all: BTreeMap<_, _> = objects().into_iter().map(|o| (key(&o), o)).collect();
        let role = |name: &str| &all[&("ClusterRole".to_owned(), String::new(), name.to_owned())];
        assert_eq!(role("cluster-admin")["rules"][1], json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        assert_eq!(role("edit")["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"][aggregate_label("edit")], "true");
        assert_eq!(role("system:kube-scheduler")["rules"][0]["apiGroups"], json!(["", "events.k8s.io"]));
        let binding = &all[&("ClusterRoleBinding".to_owned(), String::new(), "cluster-admin".to_owned())];
        assert_eq!(binding["subjects"], json!([{"apiGroup": API_GROUP, "kind": "Group", "name": "system:masters"}]));
        assert!(all.len() > 130, "{}", all.len());
    }

    /// Each rule, name and subject as upstream's golden files say them, where the Go module cache has them.
    #[test]
    fn the_table_is_upstreams() {
        let ours: BTreeMap<_, _> = objects().into_iter().map(|o| (key(&o), o)).collect();
        let files = [
            "cluster-roles",
            "cluster-role-bindings",
            "controller-roles",
            "controller-role-bindings",
            "namespace-roles",
            "namespace-role-bindings",
        ];
        let mut seen = 0;
        for file in files {
            let Ok(text) = std::fs::read(format!("{UPSTREAM}/{file}.yaml")) else { return };
            let tree = tiphys_schema::codec::yaml::to_tree(&text).expect("upstream's YAML");
            for theirs in tree["items"].as_array().expect("items") {
                seen += 1;
                let mine = ours.get(&key(theirs)).unwrap_or_else(|| panic!("{:?} is missing", key(theirs)));
                let mut theirs = theirs.clone();
                if theirs["rules"].is_null() && theirs.get("rules").is_some() {
                    theirs["rules"] = json!([]);
                }
                assert_eq!(*mine, theirs, "{:?}", key(&theirs));
            }
        }
        // `system:aggregated-metrics-reader` is metrics-server's.
        assert_eq!(seen + 1, ours.len());
    }
}
