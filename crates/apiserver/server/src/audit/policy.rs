//! `audit.k8s.io/v1` Policy: the first rule that matches says how much is kept.

use std::path::Path;

use serde_json::{Value, json};
use tiphys_registry::UserInfo;

use crate::config_file::{self, ConfigFileError};
use crate::objects::{items, strings, text};
use crate::request_info::Info;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }

    fn read(name: &str) -> Option<Level> {
        [Level::None, Level::Metadata, Level::Request, Level::RequestResponse].into_iter().find(|l| l.name() == name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
}

pub(super) const STAGES: usize = 3;

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
        }
    }
}

pub(super) struct Policy {
    rules: Vec<Rule>,
}

struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
    omitted: [bool; STAGES],
    omit_managed_fields: bool,
}

struct GroupResources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

/// Everything at Metadata, save what components read and renew all day.
impl Default for Policy {
    fn default() -> Self {
        let system = json!(["system:nodes", "system:serviceaccounts:kube-system"]);
        let components =
            json!(["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy", "system:dns"]);
        let reads = json!(["get", "list", "watch"]);
        let policy = json!({
            "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/metrics", "/openapi*", "/api*"]},
                {"level": "None", "resources": [{"group": "", "resources": ["events"]}, {"group": "events.k8s.io", "resources": ["events"]}]},
                {"level": "None", "verbs": ["get", "update", "patch"],
                    "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
                {"level": "None", "verbs": reads, "userGroups": system},
                {"level": "None", "verbs": reads, "users": components},
                {"level": "None", "verbs": ["update", "patch"], "userGroups": ["system:nodes"],
                    "resources": [{"group": "", "resources": ["nodes/status", "pods/status"]}]},
                {"level": "Metadata"},
            ],
        });
        Policy::compile(&policy).unwrap_or(Policy { rules: Vec::new() })
    }
}

impl Policy {
    pub(super) fn read(path: &Path) -> Result<Policy, ConfigFileError> {
        config_file::read("audit-policy-file", path, |bytes| Policy::compile(&config_file::object(bytes, "audit.k8s.io", "Policy")?))
    }

    fn compile(policy: &Value) -> Result<Policy, String> {
        let omitted = stages(policy)?;
        let managed = |v: &Value| v.get("omitManagedFields").and_then(Value::as_bool);
        let rules = items(policy, &["rules"]);
        if rules.is_empty() {
            return Err("a policy needs at least one rule".into());
        }
        let rule = |(i, rule): (usize, &Value)| -> Result<Rule, String> {
            let level = text(rule, &["level"]);
            let own = stages(rule)?;
            Ok(Rule {
                level: Level::read(level)
                    .ok_or_else(|| format!("rules[{i}].level: {level:?} is not one of None, Metadata, Request, RequestResponse"))?,
                users: strings(rule, "users"),
                groups: strings(rule, "userGroups"),
                verbs: strings(rule, "verbs"),
                resources: items(rule, &["resources"])
                    .iter()
                    .map(|r| GroupResources {
                        group: text(r, &["group"]).to_owned(),
                        resources: strings(r, "resources"),
                        names: strings(r, "resourceNames"),
                    })
                    .collect(),
                namespaces: strings(rule, "namespaces"),
                paths: strings(rule, "nonResourceURLs"),
                omitted: std::array::from_fn(|s| own[s] || omitted[s]),
                omit_managed_fields: managed(rule).or(managed(policy)).unwrap_or(false),
            })
        };
        Ok(Policy { rules: rules.iter().enumerate().map(rule).collect::<Result<_, _>>()? })
    }

    /// Level, stages that are left out, and whether managed fields are.
    pub(super) fn of(&self, user: &UserInfo, info: &Info) -> (Level, [bool; STAGES], bool) {
        let found = self.rules.iter().find(|rule| rule.matches(user, info));
        found.map_or((Level::None, [true; STAGES], true), |r| (r.level, r.omitted, r.omit_managed_fields))
    }
}

fn stages(of: &Value) -> Result<[bool; STAGES], String> {
    let mut omitted = [false; STAGES];
    for name in strings(of, "omitStages") {
        let all = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete];
        match all.into_iter().find(|s| s.name() == name) {
            Some(stage) => omitted[stage as usize] = true,
            None if name == "Panic" => {}
            None => return Err(format!("omitStages: {name:?} is no stage")),
        }
    }
    Ok(omitted)
}

impl Rule {
    fn matches(&self, user: &UserInfo, info: &Info) -> bool {
        let any = |list: &[String], one: &str| list.is_empty() || list.iter().any(|v| v == one);
        if !any(&self.users, &user.name) || !any(&self.verbs, &info.verb) {
            return false;
        }
        if !self.groups.is_empty() && !self.groups.iter().any(|g| user.in_group(g)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource && any(&self.namespaces, &info.namespace) && self.resource_matches(info);
        }
        if !self.paths.is_empty() {
            return !info.is_resource && self.paths.iter().any(|p| path_matches(p, &info.path));
        }
        true
    }

    fn resource_matches(&self, info: &Info) -> bool {
        self.resources.is_empty()
            || self.resources.iter().any(|r| {
                let resource = r.resources.is_empty() || r.resources.iter().any(|name| resource_fits(name, info));
                r.group == info.group && resource && (r.names.is_empty() || r.names.contains(&info.name))
            })
    }
}

/// `pods`, `pods/log`, `*`, `*/status`, `pods/*`.
fn resource_fits(pattern: &str, info: &Info) -> bool {
    match pattern.split_once('/') {
        None => pattern == "*" || (pattern == info.resource && info.subresource.is_empty()),
        Some((resource, subresource)) => {
            !info.subresource.is_empty()
                && (resource == "*" || resource == info.resource)
                && (subresource == "*" || subresource == info.subresource)
        }
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn the_first_rule_decides() {
        let policy = Policy::compile(&json!({"omitStages": ["RequestReceived"], "rules": [
            {"level": "None", "users": ["bob"], "verbs": ["get"]},
            {"level": "RequestResponse", "resources": [{"group": "", "resources": ["pods"]}], "omitStages": ["ResponseStarted"]},
            {"level": "Request", "resources": [{"group": "", "resources": ["pods/log", "*/status"], "resourceNames": ["p"]}]},
            {"level": "None", "nonResourceURLs": ["/healthz*"]},
            {"level": "Metadata", "namespaces": ["a"]},
        ]}))
        .expect("good");
        for (user, method, path, want) in [
            ("bob", Method::GET, "/api/v1/namespaces/a/pods/p", Level::None),
            ("ann", Method::GET, "/api/v1/namespaces/a/pods/p", Level::RequestResponse),
            ("ann", Method::GET, "/api/v1/namespaces/a/pods/p/log", Level::Request),
            ("ann", Method::PUT, "/api/v1/namespaces/b/services/p/status", Level::Request),
            ("ann", Method::GET, "/api/v1/namespaces/a/pods/q/log", Level::Metadata),
            ("ann", Method::GET, "/api/v1/namespaces/b/secrets", Level::None),
            ("ann", Method::GET, "/healthz/ping", Level::None),
        ] {
            let info = Info::parse(&method, path, "").expect("path");
            assert_eq!(policy.of(&UserInfo::new(user, &[]), &info).0, want, "{user} {path}");
        }
        let info = Info::parse(&Method::GET, "/api/v1/pods", "").expect("path");
        assert_eq!(policy.of(&UserInfo::new("ann", &[]), &info).1, [true, true, false]);
    }

    #[test]
    fn wrong_policies_are_refused() {
        for policy in [json!({}), json!({"rules": [{"level": "All"}]}), json!({"omitStages": ["Later"], "rules": [{"level": "None"}]})] {
            assert!(Policy::compile(&policy).is_err(), "{policy}");
        }
        assert!(Policy::read(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn by_default_writes_are_kept() {
        let policy = Policy::default();
        let level = |user: &str, group: &str, method: Method, path: &str| {
            let info = Info::parse(&method, path, "").expect("path");
            policy.of(&UserInfo::new(user, &[group]), &info).0
        };
        assert_eq!(level("ann", "x", Method::GET, "/api/v1/namespaces/a/secrets/s"), Level::Metadata);
        assert_eq!(level("system:kube-scheduler", "x", Method::POST, "/api/v1/namespaces/a/pods/p/binding"), Level::Metadata);
        assert_eq!(level("system:node:n", "system:nodes", Method::GET, "/api/v1/pods"), Level::None);
        assert_eq!(level("ann", "x", Method::GET, "/livez"), Level::None);
    }
}
