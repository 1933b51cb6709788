//! The FlowSchemas and PriorityLevelConfigurations that every cluster has: upstream's mandatory and suggested ones (KEP-1040).

use serde_json::{Value, json};

const API: &str = "flowcontrol.apiserver.k8s.io/v1";
pub(super) const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Those that are put right whatever users do to them.
pub(super) fn is_mandatory(name: &str) -> bool {
    matches!(name, "exempt" | "catch-all")
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": API, "kind": kind, "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

pub(super) fn levels() -> Vec<Value> {
    // Name, shares, lendable percent, queues, hand size.
    const QUEUING: [(&str, u32, u32, u32, u32); 6] = [
        ("system", 30, 33, 64, 6),
        ("node-high", 40, 25, 64, 6),
        ("leader-election", 10, 0, 16, 4),
        ("workload-high", 40, 50, 128, 6),
        ("workload-low", 100, 90, 128, 6),
        ("global-default", 20, 50, 128, 6),
    ];
    let limited = |shares: u32, lendable: u32, response: Value| {
        let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        json!({"type": "Limited", "limited": limited})
    };
    let mut all = vec![
        object(
            "PriorityLevelConfiguration",
            "exempt",
            json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
        ),
        object("PriorityLevelConfiguration", "catch-all", limited(5, 0, json!({"type": "Reject"}))),
    ];
    all.extend(QUEUING.map(|(name, shares, lendable, queues, hand)| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        object("PriorityLevelConfiguration", name, limited(shares, lendable, json!({"type": "Queue", "queuing": queuing})))
    }));
    all
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn kube_system_accounts() -> Vec<Value> {
    vec![json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}})]
}

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = json!(true);
    }
    rule
}

fn schema(name: &str, level: &str, precedence: u32, by: &str, rules: Value) -> Value {
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rules]});
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    object("FlowSchema", name, spec)
}

pub(super) fn schemas() -> Vec<Value> {
    const EVERYONE: [&str; 2] = ["system:unauthenticated", "system:authenticated"];
    const LEADERS: [&str; 2] = ["system:kube-controller-manager", "system:kube-scheduler"];
    let all = |subjects: Vec<Value>| {
        json!({"subjects": subjects, "resourceRules": [rule(&["*"], &["*"], &["*"], true)],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
    };
    let probes = json!({"subjects": groups(&EVERYONE),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]});
    let leaders = [users(&LEADERS), kube_system_accounts()].concat();
    let leases = json!({"subjects": leaders,
        "resourceRules": [rule(&["get", "create", "update"], &["coordination.k8s.io"], &["leases"], false)]});
    let nodes = json!({"subjects": groups(&["system:nodes"]), "resourceRules": [
        rule(&["*"], &[""], &["nodes", "nodes/status"], true), rule(&["*"], &["coordination.k8s.io"], &["leases"], false)]});
    vec![
        schema("exempt", "exempt", 1, "", all(groups(&["system:masters"]))),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", leases),
        schema("system-node-high", "node-high", 400, "ByUser", nodes),
        schema("system-nodes", "system", 500, "ByUser", all(groups(&["system:nodes"]))),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", all(users(&LEADERS[..1]))),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", all(users(&LEADERS[1..]))),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", all(kube_system_accounts())),
        schema("service-accounts", "workload-low", 9000, "ByUser", all(groups(&["system:serviceaccounts"]))),
        schema("global-default", "global-default", 9900, "ByUser", all(groups(&EVERYONE))),
        schema("catch-all", "catch-all", 10000, "ByUser", all(groups(&EVERYONE))),
    ]
}
