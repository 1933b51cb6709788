//! Nobody grants what they do not hold: whoever writes a role must hold its rules or the verb `escalate`,
//! whoever writes a binding must hold the role's rules or the verb `bind` on it.

use std::collections::BTreeSet;

use serde_json::Value;
use tiphys_meta::{ApiError, Gvr, object};
use tiphys_registry::UserInfo;

use super::rbac::{Rule, url_matches};
use super::{Attributes, Authorization, MASTERS};
use crate::objects::{items, text};

pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Whether `user` may write `new` in the place of `old`.
pub fn check(authz: &Authorization, user: &UserInfo, gvr: &Gvr, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    if user.in_group(MASTERS) || old.is_some_and(|old| only_for_deletion(new, old)) {
        return Ok(());
    }
    let namespace = object::namespace(new);
    let refused = match gvr.resource.as_ref() {
        "roles" | "clusterroles" => check_role(authz, user, gvr, new, old, namespace),
        "rolebindings" | "clusterrolebindings" => return check_binding(authz, user, gvr, new, namespace),
        _ => Ok(()),
    };
    refused.map_err(|why| ApiError::forbidden(gvr, object::name(new), &why))
}

fn check_role(authz: &Authorization, user: &UserInfo, gvr: &Gvr, new: &Value, old: Option<&Value>, namespace: &str) -> Result<(), String> {
    let name = if old.is_some() { object::name(new) } else { "" };
    let question = Attributes {
        verb: "escalate",
        is_resource: true,
        group: GROUP,
        version: "*",
        resource: &gvr.resource,
        namespace,
        name,
        ..Attributes::default()
    };
    if authz.decide(user, &question).is_allowed() {
        return Ok(());
    }
    confirm(authz, user, namespace, &Rule::of_role(new))?;
    let aggregates = |role: &Value| !items(role, &["aggregationRule", "clusterRoleSelectors"]).is_empty();
    if (aggregates(new) || old.is_some_and(aggregates)) && confirm(authz, user, namespace, &everything()).is_err() {
        return Err("must have cluster-admin privileges to use the aggregationRule".into());
    }
    Ok(())
}

fn check_binding(authz: &Authorization, user: &UserInfo, gvr: &Gvr, new: &Value, namespace: &str) -> Result<(), ApiError> {
    let role_ref = &new["roleRef"];
    let name = text(role_ref, &["name"]);
    let resource = if text(role_ref, &["kind"]) == "ClusterRole" { "clusterroles" } else { "roles" };
    let group = text(role_ref, &["apiGroup"]);
    let question = Attributes { verb: "bind", is_resource: true, group, version: "*", resource, namespace, name, ..Attributes::default() };
    if authz.decide(user, &question).is_allowed() {
        return Ok(());
    }
    let Some(rules) = authz.rbac.referenced_rules(role_ref, namespace) else {
        return Err(ApiError::not_found(&Gvr::new(GROUP, "v1", resource.to_owned()), name));
    };
    confirm(authz, user, namespace, &rules).map_err(|why| ApiError::forbidden(gvr, object::name(new), &why))
}

fn everything() -> Vec<Rule> {
    let all = || vec!["*".to_owned()];
    vec![Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() }, Rule { verbs: all(), urls: all(), ..Rule::default() }]
}

fn confirm(authz: &Authorization, user: &UserInfo, namespace: &str, wanted: &[Rule]) -> Result<(), String> {
    let held = authz.rbac.rules_for(user, namespace);
    let missing: Vec<Rule> = wanted.iter().flat_map(break_down).filter(|w| !held.iter().any(|h| covers(h, w))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let shown: BTreeSet<String> = merged(missing).iter().map(compact).collect();
    let list = shown.into_iter().collect::<Vec<_>>().join("\n");
    let groups = user.groups.iter().map(|g| format!("{g:?}")).collect::<Vec<_>>().join(" ");
    Err(format!("user {:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{list}", user.name))
}

/// One rule for each thing, with all its verbs.
fn merged(single: Vec<Rule>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for mut rule in single {
        let same = |o: &&mut Rule| o.groups == rule.groups && o.resources == rule.resources && o.names == rule.names && o.urls == rule.urls;
        match out.iter_mut().find(same) {
            Some(there) => there.verbs.append(&mut rule.verbs),
            None => out.push(rule),
        }
    }
    out
}

/// Rules of one verb on one thing each.
fn break_down(rule: &Rule) -> Vec<Rule> {
    let one = |s: &String| vec![s.clone()];
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for url in &rule.urls {
            out.push(Rule { verbs: one(verb), urls: one(url), ..Rule::default() });
        }
        for group in &rule.groups {
            for resource in &rule.resources {
                let whole = Rule { verbs: one(verb), groups: one(group), resources: one(resource), ..Rule::default() };
                if rule.names.is_empty() {
                    out.push(whole);
                } else {
                    out.extend(rule.names.iter().map(|name| Rule { names: one(name), ..whole.clone() }));
                }
            }
        }
    }
    out
}

/// `wanted` is one of [`break_down`].
fn covers(held: &Rule, wanted: &Rule) -> bool {
    let has = |list: &[String], item: &str| list.iter().any(|i| i == "*" || i == item);
    if !has(&held.verbs, &wanted.verbs[0]) {
        return false;
    }
    if let Some(url) = wanted.urls.first() {
        return held.urls.iter().any(|h| url_matches(h, url));
    }
    let (group, resource) = (&wanted.groups[0], &wanted.resources[0]);
    let of_subresource = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    let resources = has(&held.resources, resource) || of_subresource.is_some_and(|any| held.resources.contains(&any));
    let names = held.names.is_empty() || wanted.names.first().is_some_and(|n| held.names.contains(n));
    has(&held.groups, group) && resources && names
}

/// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
fn compact(rule: &Rule) -> String {
    let quoted = |list: &[String]| list.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(" ");
    let parts = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.urls),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ];
    let shown: Vec<String> = parts.iter().filter(|(_, l)| !l.is_empty()).map(|(name, l)| format!("{name}:[{}]", quoted(l))).collect();
    format!("{{{}}}", shown.join(", "))
}

/// The garbage collector and owners must be able to free objects they could not have granted.
fn only_for_deletion(new: &Value, old: &Value) -> bool {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        let meta = object::meta_mut(&mut object);
        for field in ["ownerReferences", "finalizers", "resourceVersion", "managedFields", "generation"] {
            meta.remove(field);
        }
        object
    };
    stripped(new) == stripped(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse_rules;

    fn covered(held: &str, wanted: &str) -> bool {
        let held = parse_rules(held);
        parse_rules(wanted).iter().flat_map(break_down).all(|w| held.iter().any(|h| covers(h, &w)))
    }

    #[test]
    fn coverage() {
        let table = [
            ("get core pods", "get core pods", true),
            ("get core pods", "get,list core pods", false),
            ("* * *", "get apps deployments/scale x", true),
            ("get core pods a", "get core pods", false),
            ("get core pods", "get core pods a", true),
            ("get * */scale", "get apps deployments/scale", true),
            ("get * */scale", "get apps deployments", false),
            ("* * *", "get url /healthz", false),
            ("get url /healthz*", "get url /healthz/x", true),
        ];
        for (held, wanted, want) in table {
            assert_eq!(covered(held, wanted), want, "{held} / {wanted}");
        }
    }

    #[test]
    fn what_is_missing_is_told_in_upstreams_form() {
        let rule = parse_rules("get apps deployments a").remove(0);
        assert_eq!(compact(&rule), r#"{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["a"], Verbs:["get"]}"#);
    }
}
