//! Makes the default objects, mends the mandatory ones, tells of schemas whose level is missing, and has the rules follow what users write.

use std::sync::Arc;

use serde_json::{Value, json};
use tiphys_client::{Client, ClientError, Patch};
use tiphys_meta::{Gvr, object};
use tiphys_registry::Registry;

use super::Flow;
use super::defaults::{self, AUTO_UPDATE, is_mandatory};
use crate::objects::{Objects, items, known, text};

pub(crate) async fn run(flow: Arc<Flow>, registry: Arc<Registry>, objects: Arc<dyn Objects>, client: Client) {
    ensure(objects.as_ref(), &client, false).await;
    loop {
        let (Some(schemas), Some(levels)) = (registry.cached(&known::FLOW_SCHEMAS), registry.cached(&known::PRIORITY_LEVELS)) else {
            return;
        };
        let (mut schemas, mut levels) = (schemas.subscribe(), levels.subscribe());
        drop((schemas.initial(), levels.initial()));
        loop {
            settle(&flow, objects.as_ref(), &client).await;
            let go_on = tokio::select! {
                changes = schemas.next() => changes.is_some(),
                changes = levels.next() => changes.is_some(),
            };
            if !go_on {
                break;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn settle(flow: &Flow, objects: &dyn Objects, client: &Client) {
    ensure(objects, client, true).await;
    let read = |gvr: &Gvr| objects.list(gvr, "").iter().map(|o| Value::clone(o)).collect::<Vec<Value>>();
    let (schemas, levels) = (read(&known::FLOW_SCHEMAS), read(&known::PRIORITY_LEVELS));
    flow.reconfigure(&schemas, &levels);
    for schema in &schemas {
        if let Some(conditions) = dangling(schema, &levels) {
            let version = object::resource_version(schema);
            let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}}));
            // A conflict means that a newer schema comes along.
            let _ = client.patch_value(&known::FLOW_SCHEMAS, "", object::name(schema), "status", &patch).await;
        }
    }
}

/// Whether everything that is not to be changed is there; at the start the suggested objects too, which users may remove later.
async fn ensure(objects: &dyn Objects, client: &Client, only_mandatory: bool) {
    let wanted = [(&known::PRIORITY_LEVELS, defaults::levels()), (&known::FLOW_SCHEMAS, defaults::schemas())];
    for (gvr, list) in wanted {
        for want in list.iter().filter(|o| !only_mandatory || is_mandatory(object::name(o))) {
            if let Err(error) = ensure_one(objects, client, gvr, want).await {
                tracing::warn!(name = object::name(want), resource = %gvr.resource, %error, "cannot keep an object of flow control");
            }
        }
    }
}

async fn ensure_one(objects: &dyn Objects, client: &Client, gvr: &Gvr, want: &Value) -> Result<(), ClientError> {
    let name = object::name(want);
    let Some(have) = objects.get(gvr, "", name) else {
        return match client.create_value(gvr, "", want).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        };
    };
    let ours = is_mandatory(name) || text(&have, &["metadata", "annotations", AUTO_UPDATE]) == "true";
    if !ours || have["spec"] == want["spec"] || same_but_weight(name, &have, want) {
        return Ok(());
    }
    let mut object = Value::clone(&have);
    object["spec"] = want["spec"].clone();
    match client.update_value(gvr, &object, "").await {
        Err(error) if !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

/// The shares of the exempt level may be changed, as nothing else of it may.
fn same_but_weight(name: &str, have: &Value, want: &Value) -> bool {
    name == "exempt" && have["spec"]["type"] == want["spec"]["type"] && have["spec"]["exempt"].is_object()
}

/// The conditions with a true `Dangling` one; none where it is right already.
fn dangling(schema: &Value, levels: &[Value]) -> Option<Vec<Value>> {
    let level = text(schema, &["spec", "priorityLevelConfiguration", "name"]);
    let there = levels.iter().any(|l| object::name(l) == level);
    let (status, reason, rest) =
        if there { ("False", "Found", "and it exists") } else { ("True", "NotFound", "but there is no such object") };
    let mut conditions = items(schema, &["status", "conditions"]).to_vec();
    let found = conditions.iter().position(|c| text(c, &["type"]) == "Dangling");
    if found.is_some_and(|i| text(&conditions[i], &["status"]) == status) {
        return None;
    }
    let now = tiphys_meta::time::format(tiphys_base::Clock::now(&tiphys_base::SystemClock));
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {rest}");
    let condition = json!({"type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": now});
    match found {
        Some(i) => conditions[i] = condition,
        None => conditions.push(condition),
    }
    Some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_without_its_level_dangles() {
        let mut schema = json!({"spec": {"priorityLevelConfiguration": {"name": "exempt"}}});
        let conditions = dangling(&schema, &defaults::levels()).expect("a change");
        assert_eq!((text(&conditions[0], &["status"]), text(&conditions[0], &["reason"])), ("False", "Found"));
        schema["status"]["conditions"] = json!(conditions);
        assert!(dangling(&schema, &defaults::levels()).is_none());
        let conditions = dangling(&schema, &[]).expect("a change");
        assert_eq!((conditions.len(), text(&conditions[0], &["status"])), (1, "True"));
    }
}
