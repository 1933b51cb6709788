//! The default policy is made true at each start: what is missing is made, what lacks rules or subjects gets them back. An object whose
//! `autoupdate` annotation says "false" is left alone. Aggregated ClusterRoles are made with what they gather; later on a controller sees to them.

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tiphys_client::{Client, ClientError, Patch};
use tiphys_meta::{Gvr, object};

use super::{AUTOUPDATE, objects};
use crate::authorize::rbac::Rule;
use crate::objects::{Objects, items, known, selector_matches};

/// So many writes are under way at once; the store puts them on disk together.
const AT_ONCE: usize = 64;

fn gvr_of(role: &Value) -> &'static Gvr {
    const ALL: [(&str, &Gvr); 4] = [
        ("Role", &known::ROLES),
        ("ClusterRole", &known::CLUSTER_ROLES),
        ("RoleBinding", &known::ROLE_BINDINGS),
        ("ClusterRoleBinding", &known::CLUSTER_ROLE_BINDINGS),
    ];
    let kind = role["kind"].as_str().unwrap_or("");
    ALL.into_iter().find(|(k, _)| *k == kind).map_or(&known::CLUSTER_ROLES, |(_, gvr)| gvr)
}

/// Makes the default policy true.
pub async fn ensure(client: &Client, cache: &dyn Objects) -> Result<(), ClientError> {
    let mut wanted = objects();
    fill_aggregated(&mut wanted);
    let mut results = stream::iter(wanted)
        .map(|want| async move {
            let gvr = gvr_of(&want);
            let namespace = object::namespace(&want).to_owned();
            match cache.get(gvr, &namespace, object::name(&want)) {
                None => match client.create_value(gvr, &namespace, &want).await {
                    Err(error) if !error.is_already_exists() => Err(error),
                    _ => Ok(()),
                },
                Some(have) => mend(client, gvr, &have, &want).await,
            }
        })
        .buffer_unordered(AT_ONCE);
    while let Some(result) = results.next().await {
        result?;
    }
    Ok(())
}

async fn mend(client: &Client, gvr: &Gvr, have: &Value, want: &Value) -> Result<(), ClientError> {
    let protected = object::annotations(have).any(|(k, v)| k == AUTOUPDATE && v == "false");
    let Some(patch) = lacking(have, want).filter(|_| !protected) else { return Ok(()) };
    let (namespace, name) = (object::namespace(want), object::name(want));
    client.patch_value(gvr, namespace, name, "", &Patch::Merge(patch)).await.map(drop)
}

/// A merge patch that adds what `have` lacks; what it has beyond that stays.
fn lacking(have: &Value, want: &Value) -> Option<Value> {
    let mut patch = json!({});
    for field in ["rules", "subjects"] {
        // Aggregated rules are the aggregation's business.
        if want.get("aggregationRule").is_some() && field == "rules" {
            continue;
        }
        let (mut all, wanted) = (items(have, &[field]).to_vec(), items(want, &[field]));
        let missing: Vec<Value> = wanted.iter().filter(|w| !all.iter().any(|h| same_item(h, w))).cloned().collect();
        if !missing.is_empty() {
            all.extend(missing);
            patch[field] = json!(all);
        }
    }
    if want.get("aggregationRule").is_some() && have.get("aggregationRule") != want.get("aggregationRule") {
        patch["aggregationRule"] = want["aggregationRule"].clone();
    }
    for field in ["labels", "annotations"] {
        let Some(wanted) = want["metadata"][field].as_object() else { continue };
        for (key, value) in wanted.iter().filter(|(k, v)| have["metadata"][field].get(*k) != Some(v)) {
            patch["metadata"][field][key] = value.clone();
        }
    }
    (patch != json!({})).then_some(patch)
}

/// Rules are the same when they grant the same lists; subjects when they name the same.
fn same_item(a: &Value, b: &Value) -> bool {
    if a.get("verbs").is_some() {
        return Rule::from_value(a) == Rule::from_value(b);
    }
    ["kind", "name", "namespace"]
        .iter()
        .all(|f| a.get(*f).and_then(Value::as_str).unwrap_or("") == b.get(*f).and_then(Value::as_str).unwrap_or(""))
}

/// On a fresh cluster the gathered rules stand in the first version already.
fn fill_aggregated(wanted: &mut [Value]) {
    // Three rounds: admin gathers edit, which gathers view.
    for _ in 0..3 {
        let roles: Vec<Value> = wanted.iter().filter(|o| o["kind"] == "ClusterRole").cloned().collect();
        for role in wanted.iter_mut().filter(|o| o["kind"] == "ClusterRole" && o.get("aggregationRule").is_some()) {
            role["rules"] = gathered(role, &mut roles.iter());
        }
    }
}

fn gathered(role: &Value, all: &mut dyn Iterator<Item = &Value>) -> Value {
    let selectors = items(role, &["aggregationRule", "clusterRoleSelectors"]);
    let mut from: Vec<&Value> = all
        .filter(|other| object::name(other) != object::name(role))
        .filter(|other| selectors.iter().any(|s| selector_matches(s, other)))
        .collect();
    from.sort_by_key(|r| object::name(r).to_owned());
    let mut rules: Vec<Value> = Vec::new();
    for rule in from.into_iter().flat_map(|r| items(r, &["rules"])) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Value::Array(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_gathers_edit_and_view() {
        let mut all = objects();
        fill_aggregated(&mut all);
        let rules = |name: &str| {
            let role = all.iter().find(|r| object::name(r) == name && r["kind"] == "ClusterRole").expect("role");
            items(role, &["rules"]).len()
        };
        assert_eq!(rules("view"), rules("system:aggregate-to-view") + rules("system:aggregated-metrics-reader"));
        assert_eq!(rules("edit"), rules("system:aggregate-to-edit") + rules("view"));
        assert!(rules("admin") >= rules("edit") + rules("system:aggregate-to-admin"));
    }

    #[test]
    fn only_what_lacks_is_added() {
        let want = json!({"metadata": {"labels": {"a": "1"}}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        assert_eq!(lacking(&want, &want), None);
        let have = json!({"metadata": {"labels": {"b": "2"}}, "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]});
        let patch = lacking(&have, &want).expect("a patch");
        assert_eq!(patch["rules"].as_array().map(Vec::len), Some(2));
        assert_eq!(patch["metadata"], json!({"labels": {"a": "1"}}));
    }
}
