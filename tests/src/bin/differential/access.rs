//! What a server has and says without objects of ours: documents, bootstrap objects, and who may do what.

use serde_json::json;

use crate::step::Step;

const LISTS: &[&str] = &[
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/rbac.authorization.k8s.io/v1/roles",
    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "/apis/scheduling.k8s.io/v1/priorityclasses",
    "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
    "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
    "/apis/apiregistration.k8s.io/v1/apiservices",
    "/apis/networking.k8s.io/v1/servicecidrs",
    "/apis/networking.k8s.io/v1/ipaddresses",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/storage.k8s.io/v1/storageclasses",
    "/api/v1/services",
    "/api/v1/namespaces",
    "/api/v1/namespaces/default/endpoints",
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
    "/api/v1/namespaces/kube-system/configmaps",
    "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
];

const DOCUMENTS: &[&str] = &[
    "/",
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/api",
    "/apis",
    "/api/v1",
    "/openapi/v3",
    "/nothing",
    "/api/v2",
    "/apis/none",
    "/apis/none/v1",
    "/apis/apps/v9",
    "/apis/apps/v1/nothing",
    "/api/v1/nothing",
    "/.well-known/openid-configuration",
];

const GROUPS: &[&str] = &[
    "admissionregistration.k8s.io/v1",
    "apiextensions.k8s.io/v1",
    "apiregistration.k8s.io/v1",
    "apps/v1",
    "authentication.k8s.io/v1",
    "authorization.k8s.io/v1",
    "autoscaling/v1",
    "autoscaling/v2",
    "batch/v1",
    "certificates.k8s.io/v1",
    "coordination.k8s.io/v1",
    "discovery.k8s.io/v1",
    "events.k8s.io/v1",
    "flowcontrol.apiserver.k8s.io/v1",
    "networking.k8s.io/v1",
    "node.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
    "resource.k8s.io/v1",
    "scheduling.k8s.io/v1",
    "storage.k8s.io/v1",
];

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// In what pages for people are asked for; whatever text they have is not to be compared.
const PAGES: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "text/html",
    "application/json;v=v1beta1;g=config.k8s.io;as=Statusz",
    "application/json;v=v1alpha1;g=config.k8s.io;as=Statusz",
    "application/json;v=v1;g=config.k8s.io;as=Flagz",
    "text/plain;v=v1beta1;g=config.k8s.io;as=Flagz",
];

/// Before anything was written.
pub(crate) fn bootstrap() -> Vec<Step> {
    let list = |path: &&str| Step::new(format!("bootstrap {path}"), &format!("GET {path}"));
    let document = |path: &&str| Step::new(format!("document {path}"), &format!("GET {path}"));
    let mut steps: Vec<Step> = LISTS.iter().map(list).chain(DOCUMENTS.iter().map(document)).collect();
    for path in ["/api", "/apis"] {
        steps.push(Step::new(format!("aggregated discovery {path}"), &format!("GET {path}")).header("accept", AGGREGATED));
    }
    for (path, accept) in ["/statusz", "/flagz"].into_iter().flat_map(|path| PAGES.iter().map(move |accept| (path, accept))) {
        steps.push(Step::new(format!("page {path} {accept}"), &format!("GET {path}")).header("accept", accept));
    }
    for group in GROUPS {
        let name = group.split('/').next().unwrap_or("");
        steps.push(document(&format!("/apis/{group}").as_str()));
        steps.push(document(&format!("/apis/{name}").as_str()));
    }
    steps
}

/// User and groups.
const WHO: &[(&str, &[&str])] = &[
    ("system:kube-scheduler", &[]),
    ("system:kube-controller-manager", &[]),
    ("system:kube-proxy", &[]),
    ("system:node:n1", &["system:nodes"]),
    ("somebody", &["system:authenticated"]),
    ("system:anonymous", &["system:unauthenticated"]),
    ("root", &["system:masters"]),
    ("watcher", &["system:monitoring"]),
    ("viewer", &["system:authenticated"]),
    ("editor", &["system:authenticated"]),
    ("owner", &["system:authenticated"]),
    ("system:serviceaccount:kube-system:deployment-controller", &["system:serviceaccounts", "system:serviceaccounts:kube-system"]),
    ("system:serviceaccount:kube-system:node-controller", &["system:serviceaccounts", "system:serviceaccounts:kube-system"]),
    ("system:serviceaccount:d:default", &["system:serviceaccounts", "system:serviceaccounts:d", "system:authenticated"]),
];

const WHAT: &[(&str, &str, &str, &str)] = &[
    ("get", "", "pods", "d"),
    ("create", "", "pods", "d"),
    ("delete", "", "pods", "d"),
    ("create", "", "pods/binding", "d"),
    ("create", "", "pods/eviction", "d"),
    ("create", "", "pods/exec", "d"),
    ("update", "", "pods/status", "d"),
    ("get", "", "secrets", "d"),
    ("list", "", "secrets", ""),
    ("watch", "", "configmaps", ""),
    ("get", "", "nodes", ""),
    ("update", "", "nodes/status", ""),
    ("list", "", "services", ""),
    ("create", "", "services", "d"),
    ("create", "", "serviceaccounts/token", "d"),
    ("impersonate", "", "users", ""),
    ("create", "", "events", "d"),
    ("list", "apps", "deployments", ""),
    ("patch", "apps", "deployments", "d"),
    ("update", "apps", "deployments/scale", "d"),
    ("watch", "discovery.k8s.io", "endpointslices", ""),
    ("create", "rbac.authorization.k8s.io", "roles", "d"),
    ("escalate", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("get", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("update", "coordination.k8s.io", "leases", "kube-system"),
    ("create", "certificates.k8s.io", "certificatesigningrequests", ""),
    ("create", "authorization.k8s.io", "subjectaccessreviews", ""),
    ("create", "authorization.k8s.io", "selfsubjectaccessreviews", ""),
    ("list", "storage.k8s.io", "csinodes", ""),
    ("get", "metrics.k8s.io", "pods", "d"),
];

const PATHS: &[&str] = &["/healthz", "/metrics", "/version", "/api", "/openapi/v2", "/logs", "/livez/ping"];

pub(crate) fn decisions() -> Vec<Step> {
    let mut steps = Vec::new();
    for (user, role) in [("viewer", "view"), ("editor", "edit"), ("owner", "admin")] {
        let binding = json!({"metadata": {"name": user}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
        steps.push(Step::new(format!("bind {role}"), "POST /apis/rbac.authorization.k8s.io/v1/namespaces/d/rolebindings").body(binding));
    }
    for (user, groups) in WHO {
        steps.extend(WHAT.iter().map(|what| review(user, groups, what)));
        steps.extend(PATHS.iter().map(|path| path_review(user, groups, path)));
        steps.push(rules(user, groups));
    }
    steps
}

fn review(user: &str, groups: &[&str], (verb, group, resource, ns): &(&str, &str, &str, &str)) -> Step {
    let (resource_name, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let spec = json!({"user": user, "groups": groups, "resourceAttributes":
        {"verb": verb, "group": group, "resource": resource_name, "subresource": sub, "namespace": ns}});
    Step::new(format!("may {user} {verb} {group}/{resource} {ns}"), "POST /apis/authorization.k8s.io/v1/subjectaccessreviews")
        .body(json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}))
}

fn path_review(user: &str, groups: &[&str], path: &str) -> Step {
    let spec = json!({"user": user, "groups": groups, "nonResourceAttributes": {"verb": "get", "path": path}});
    Step::new(format!("may {user} get {path}"), "POST /apis/authorization.k8s.io/v1/subjectaccessreviews")
        .body(json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}))
}

fn rules(user: &str, groups: &[&str]) -> Step {
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "d"}});
    let step = Step::new(format!("rules of {user}"), "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews").body(body);
    groups.iter().fold(step.header("impersonate-user", user), |step, group| step.header("impersonate-group", group))
}
