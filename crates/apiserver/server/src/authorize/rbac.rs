//! Role-based access control, evaluated on an index compiled from the cached roles and bindings: subject → what was granted where.
//! The index is made anew when one of those objects changes, and swapped in; a question takes no lock.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tiphys_meta::object;
use tiphys_registry::UserInfo;

use super::{Attributes, Decision};
use crate::objects::{Objects, items, known, strings, text};

/// `rbac.authorization.k8s.io` PolicyRule.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    pub fn from_value(value: &Value) -> Self {
        Rule {
            verbs: strings(value, "verbs"),
            groups: strings(value, "apiGroups"),
            resources: strings(value, "resources"),
            names: strings(value, "resourceNames"),
            urls: strings(value, "nonResourceURLs"),
        }
    }

    /// The rule as the API says it.
    pub fn to_value(&self) -> Value {
        let mut rule = json!({"verbs": self.verbs});
        let lists =
            [("apiGroups", &self.groups), ("resources", &self.resources), ("resourceNames", &self.names), ("nonResourceURLs", &self.urls)];
        for (field, list) in lists {
            if !list.is_empty() {
                rule[field] = json!(list);
            }
        }
        rule
    }

    pub fn of_role(role: &Value) -> Vec<Rule> {
        items(role, &["rules"]).iter().map(Rule::from_value).collect()
    }

    pub fn allows(&self, q: &Attributes<'_>) -> bool {
        if !has(&self.verbs, q.verb) {
            return false;
        }
        if !q.is_resource {
            return self.urls.iter().any(|url| url_matches(url, q.path));
        }
        has(&self.groups, q.group)
            && self.resources.iter().any(|r| resource_matches(r, q.resource, q.subresource))
            && (self.names.is_empty() || self.names.iter().any(|n| n == q.name))
    }
}

/// `*` is everything; `pods/log` one subresource; `*/scale` a subresource of every resource.
pub fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((main, sub)) => !subresource.is_empty() && sub == subresource && (main == "*" || main == resource),
    }
}

/// A path, `*`, or a prefix that ends in `*`.
pub fn url_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// One binding's effect on one subject.
struct Grant {
    /// None: everywhere.
    namespace: Option<Arc<str>>,
    rules: Arc<[Rule]>,
    /// For the reason that SubjectAccessReview gives.
    why: Arc<str>,
}

#[derive(Default)]
struct Index {
    grants: HashMap<Subject, Vec<Grant>>,
}

pub struct Rbac {
    objects: Arc<dyn Objects>,
    index: ArcSwap<Index>,
}

impl Rbac {
    pub fn new(objects: Arc<dyn Objects>) -> Arc<Self> {
        let rbac = Rbac { objects, index: ArcSwap::from_pointee(Index::default()) };
        rbac.refresh();
        Arc::new(rbac)
    }

    /// Reads roles and bindings again.
    pub fn refresh(&self) {
        self.index.store(Arc::new(compile(self.objects.as_ref())));
    }

    pub fn decide(&self, user: &UserInfo, question: &Attributes<'_>) -> Decision {
        let index = self.index.load();
        let grants = subjects(user).filter_map(|s| index.grants.get(&s)).flatten();
        let mut here = grants.filter(|g| applies(g, question));
        match here.find(|g| g.rules.iter().any(|r| r.allows(question))) {
            Some(grant) => Decision::allow(format!("RBAC: allowed by {}", grant.why)),
            None => Decision::no_opinion(""),
        }
    }

    /// All rules that the user holds in a namespace (empty: those that hold everywhere).
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let index = self.index.load();
        let grants = subjects(user).filter_map(|s| index.grants.get(&s)).flatten();
        let here = grants.filter(|g| g.namespace.as_deref().is_none_or(|ns| ns == namespace));
        here.flat_map(|g| g.rules.iter().cloned()).collect()
    }

    /// The rules of the role that a binding in `namespace` refers to.
    pub fn referenced_rules(&self, role_ref: &Value, namespace: &str) -> Option<Vec<Rule>> {
        let name = text(role_ref, &["name"]);
        let role = match text(role_ref, &["kind"]) {
            "ClusterRole" => self.objects.get(&known::CLUSTER_ROLES, "", name),
            "Role" => self.objects.get(&known::ROLES, namespace, name),
            _ => None,
        };
        role.map(|role| Rule::of_role(&role))
    }
}

/// Bindings in a namespace say nothing about paths, nor about what has no namespace.
fn applies(grant: &Grant, question: &Attributes<'_>) -> bool {
    grant.namespace.as_deref().is_none_or(|ns| question.is_resource && !ns.is_empty() && ns == question.namespace)
}

fn subjects(user: &UserInfo) -> impl Iterator<Item = Subject> + '_ {
    std::iter::once(Subject::User(user.name.clone())).chain(user.groups.iter().map(|g| Subject::Group(g.clone())))
}

fn compile(objects: &dyn Objects) -> Index {
    let mut index = Index::default();
    let mut rules: HashMap<(String, String), Arc<[Rule]>> = HashMap::new();
    for role in objects.list(&known::CLUSTER_ROLES, "") {
        rules.insert((String::new(), object::name(&role).to_owned()), Rule::of_role(&role).into());
    }
    for role in objects.list(&known::ROLES, "") {
        rules.insert((object::namespace(&role).to_owned(), object::name(&role).to_owned()), Rule::of_role(&role).into());
    }
    for binding in objects.list(&known::CLUSTER_ROLE_BINDINGS, "") {
        index.add(&binding, None, &rules);
    }
    for binding in objects.list(&known::ROLE_BINDINGS, "") {
        index.add(&binding, Some(object::namespace(&binding).into()), &rules);
    }
    index
}

impl Index {
    fn add(&mut self, binding: &Value, namespace: Option<Arc<str>>, rules: &HashMap<(String, String), Arc<[Rule]>>) {
        let (kind, role) = (text(binding, &["roleRef", "kind"]), text(binding, &["roleRef", "name"]));
        let home = if kind == "Role" { namespace.as_deref().unwrap_or("") } else { "" };
        let Some(rules) = rules.get(&(home.to_owned(), role.to_owned())) else { return };
        for subject in items(binding, &["subjects"]) {
            let Some((key, shown)) = read_subject(subject, namespace.as_deref().unwrap_or("")) else { continue };
            let name = object::name(binding);
            let why = match &namespace {
                None => format!("ClusterRoleBinding {name:?} of {kind} {role:?} to {shown}"),
                Some(ns) => format!("RoleBinding \"{name}/{ns}\" of {kind} {role:?} to {shown}"),
            };
            let grant = Grant { namespace: namespace.clone(), rules: rules.clone(), why: why.into() };
            self.grants.entry(key).or_default().push(grant);
        }
    }
}

/// The subject as key, and as upstream shows it.
fn read_subject(subject: &Value, binding_namespace: &str) -> Option<(Subject, String)> {
    let name = text(subject, &["name"]);
    match text(subject, &["kind"]) {
        "User" => Some((Subject::User(name.to_owned()), format!("User {name:?}"))),
        "Group" => Some((Subject::Group(name.to_owned()), format!("Group {name:?}"))),
        "ServiceAccount" => {
            let namespace = text(subject, &["namespace"]);
            let namespace = if namespace.is_empty() { binding_namespace } else { namespace };
            let user = format!("system:serviceaccount:{namespace}:{name}");
            Some((Subject::User(user), format!("ServiceAccount \"{name}/{namespace}\"")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::fake::FakeObjects;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str], urls: &[&str]) -> Rule {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Rule { verbs: own(verbs), groups: own(groups), resources: own(resources), names: own(names), urls: own(urls) }
    }

    fn resource<'a>(verb: &'a str, group: &'a str, resource: &'a str, subresource: &'a str, name: &'a str) -> Attributes<'a> {
        Attributes { verb, is_resource: true, group, resource, subresource, name, namespace: "default", ..Attributes::default() }
    }

    #[test]
    fn rules() {
        let pods = rule(&["get"], &[""], &["pods"], &[], &[]);
        let log = rule(&["get"], &[""], &["pods/log"], &[], &[]);
        let scale = rule(&["*"], &["*"], &["*/scale"], &[], &[]);
        let one = rule(&["get", "update"], &[""], &["configmaps"], &["a"], &[]);
        let all = rule(&["*"], &["*"], &["*"], &[], &[]);
        let urls = rule(&["get"], &[], &[], &[], &["/healthz", "/livez/*"]);
        let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
        let table = [
            (&pods, resource("get", "", "pods", "", "x"), true),
            (&pods, resource("list", "", "pods", "", ""), false),
            (&pods, resource("get", "apps", "pods", "", "x"), false),
            (&pods, resource("get", "", "pods", "log", "x"), false),
            (&log, resource("get", "", "pods", "log", "x"), true),
            (&log, resource("get", "", "pods", "", "x"), false),
            (&scale, resource("update", "apps", "deployments", "scale", "x"), true),
            (&scale, resource("update", "apps", "deployments", "", "x"), false),
            (&one, resource("get", "", "configmaps", "", "a"), true),
            (&one, resource("get", "", "configmaps", "", "b"), false),
            (&all, resource("anything", "x.io", "y", "z", "w"), true),
            (&all, path("/healthz"), false),
            (&urls, path("/healthz"), true),
            (&urls, path("/healthz/etcd"), false),
            (&urls, path("/livez/ping"), true),
            (&urls, resource("get", "", "pods", "", ""), false),
        ];
        for (rule, question, want) in table {
            assert_eq!(rule.allows(&question), want, "{rule:?} {question:?}");
        }
    }

    #[test]
    fn bindings_reach_users_groups_and_service_accounts() {
        let objects = Arc::new(FakeObjects::default());
        let role = |name: &str, ns: Option<&str>| {
            let mut role = json!({"metadata": {"name": name}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
            if let Some(ns) = ns {
                role["metadata"]["namespace"] = json!(ns);
            }
            role
        };
        objects.put(&known::CLUSTER_ROLES, role("reader", None));
        objects.put(&known::ROLES, role("local", Some("default")));
        objects.put(
            &known::CLUSTER_ROLE_BINDINGS,
            json!({"metadata": {"name": "all"}, "roleRef": {"kind": "ClusterRole", "name": "reader"}, "subjects": [{"kind": "Group", "name": "ops"}]}),
        );
        objects.put(
            &known::ROLE_BINDINGS,
            json!({"metadata": {"name": "one", "namespace": "default"}, "roleRef": {"kind": "Role", "name": "local"},
                   "subjects": [{"kind": "ServiceAccount", "name": "bot"}, {"kind": "User", "name": "ann"}]}),
        );
        let rbac = Rbac::new(objects);
        let ask =
            |user: &UserInfo, namespace| rbac.decide(user, &Attributes { namespace, ..resource("get", "", "pods", "", "x") }).is_allowed();
        let bot = UserInfo::new("system:serviceaccount:default:bot", &[]);
        let ann = UserInfo::new("ann", &[]);
        let op = UserInfo::new("olga", &["ops"]);
        assert!(ask(&bot, "default") && ask(&ann, "default") && ask(&op, "default"));
        assert!(!ask(&bot, "other") && !ask(&ann, "") && ask(&op, "") && ask(&op, "other"));
        assert_eq!(rbac.rules_for(&ann, "default").len(), 1);
        assert_eq!(rbac.rules_for(&ann, "other").len(), 0);
        let decision = rbac.decide(&bot, &resource("get", "", "pods", "", "x"));
        assert_eq!(decision.reason(), "RBAC: allowed by RoleBinding \"one/default\" of Role \"local\" to ServiceAccount \"bot/default\"");
    }
}
