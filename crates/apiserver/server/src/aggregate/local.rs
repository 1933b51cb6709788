//! The APIServices that stand for what this server answers itself: one for each built-in version, made at the start, and one for each
//! version of a custom resource's group, kept as long as a definition serves it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tiphys_client::{Client, ClientError, DeleteOptions, Patch};
use tiphys_meta::object;
use tiphys_registry::Registry;

use super::Aggregator;
use super::availability::set_available;
use crate::documents::priorities;
use crate::objects::{Objects, items, known, text};

const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Group, version, priority of the group, priority of the version.
type Wanted = (String, String, i64, i64);

pub(crate) async fn run(aggregator: Arc<Aggregator>, registry: Arc<Registry>, client: Client) {
    let objects = aggregator.objects.clone();
    ensure(objects.as_ref(), &client, builtin(), "onstart").await;
    aggregator.registered.store(true, Ordering::Relaxed);
    loop {
        let Some(definitions) = registry.cached(&known::CUSTOM_RESOURCE_DEFINITIONS) else { return };
        let Some(services) = registry.cached(&known::API_SERVICES) else { return };
        let (mut definitions, mut services) = (definitions.subscribe(), services.subscribe());
        drop((definitions.initial(), services.initial()));
        loop {
            follow_definitions(objects.as_ref(), &client).await;
            // An APIService of ours that was deleted comes back with the next look.
            let go_on = tokio::select! {
                changes = definitions.next() => changes.is_some(),
                changes = services.next() => changes.is_some(),
            };
            if !go_on {
                break;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

fn builtin() -> Vec<Wanted> {
    let groups = tiphys_schema::discovery::builtin();
    let all = groups.iter().flat_map(|g| g.versions.iter().map(move |v| (g.name.clone(), v.version.clone())));
    all.filter_map(|(group, version)| {
        let (of_group, of_version) = priorities::of_version(&group, &version)?;
        Some((group, version, of_group, of_version))
    })
    .collect()
}

fn name_of(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

/// Makes those that are missing, and marks them available.
async fn ensure(objects: &dyn Objects, client: &Client, wanted: Vec<Wanted>, managed: &str) {
    let made = wanted.into_iter().map(|wanted| async move {
        let name = name_of(&wanted.0, &wanted.1);
        if let Err(error) = ensure_one(objects, client, &name, wanted, managed).await {
            tracing::warn!(name, %error, "cannot make a local APIService");
        }
    });
    stream::iter(made).buffer_unordered(8).collect::<Vec<()>>().await;
}

async fn ensure_one(objects: &dyn Objects, client: &Client, name: &str, wanted: Wanted, managed: &str) -> Result<(), ClientError> {
    const AVAILABLE: (&str, &str, &str) = ("True", "Local", "Local APIServices are always available");
    let (group, version, of_group, of_version) = wanted;
    let Some(there) = objects.get(&known::API_SERVICES, "", name) else {
        let mut spec = json!({"version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version});
        if !group.is_empty() {
            spec["group"] = json!(group);
        }
        let object = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": name, "labels": {MANAGED: managed}}, "spec": spec});
        return match client.create_value(&known::API_SERVICES, "", &object).await {
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => Err(error),
            // The condition is a second write: whoever creates an object does not set its status.
            Ok(_) => mark(client, name, AVAILABLE).await,
        };
    };
    if text(&there, &["spec", "service", "name"]).is_empty() { set_available(objects, client, name, AVAILABLE).await } else { Ok(()) }
}

async fn mark(client: &Client, name: &str, (status, reason, message): (&str, &str, &str)) -> Result<(), ClientError> {
    let now = tiphys_meta::time::format(tiphys_base::Clock::now(&tiphys_base::SystemClock));
    let condition = json!({"type": "Available", "status": status, "reason": reason, "message": message, "lastTransitionTime": now});
    let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    client.patch_value(&known::API_SERVICES, "", name, "status", &patch).await.map(|_| ())
}

async fn follow_definitions(objects: &dyn Objects, client: &Client) {
    let wanted: BTreeSet<(String, String)> =
        objects.list(&known::CUSTOM_RESOURCE_DEFINITIONS, "").iter().filter(|d| is_established(d)).flat_map(|d| served(d)).collect();
    let have = objects.list(&known::API_SERVICES, "");
    for object in have.iter().filter(|o| object::labels(o).any(|(k, v)| k == MANAGED && v == "true")) {
        let key = (text(object, &["spec", "group"]).to_owned(), text(object, &["spec", "version"]).to_owned());
        if !wanted.contains(&key)
            && let Err(error) = client.delete_value(&known::API_SERVICES, "", object::name(object), &DeleteOptions::default()).await
            && !error.is_not_found()
        {
            tracing::warn!(name = object::name(object), %error, "cannot remove a local APIService");
        }
    }
    let missing = wanted.into_iter().filter(|(group, version)| {
        let name = name_of(group, version);
        !have.iter().any(|o| object::name(o) == name)
    });
    let missing: Vec<Wanted> = missing.map(|(group, version)| (group, version, 1000, 100)).collect();
    ensure(objects, client, missing, "true").await;
}

fn is_established(definition: &Value) -> bool {
    let conditions = items(definition, &["status", "conditions"]);
    conditions.iter().any(|c| text(c, &["type"]) == "Established" && text(c, &["status"]) == "True")
}

fn served(definition: &Value) -> Vec<(String, String)> {
    let group = text(definition, &["spec", "group"]);
    let versions = items(definition, &["spec", "versions"]).iter();
    let served = versions.filter(|v| v.get("served").and_then(Value::as_bool).unwrap_or(false));
    served.map(|v| (group.to_owned(), text(v, &["name"]).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_has_an_api_service() {
        let names: Vec<String> = builtin().iter().map(|(group, version, ..)| name_of(group, version)).collect();
        for name in ["v1.", "v1.apps", "v2.autoscaling", "v1.rbac.authorization.k8s.io"] {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
        assert!(!names.iter().any(|n| n.ends_with("apiregistration.k8s.io")));
    }

    #[test]
    fn definitions_that_serve() {
        let definition = json!({"spec": {"group": "x", "versions": [{"name": "v1", "served": true}, {"name": "v2", "served": false}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]}});
        assert!(is_established(&definition) && !is_established(&json!({})));
        assert_eq!(served(&definition), [("x".to_owned(), "v1".to_owned())]);
    }
}
