//! Objects in a version other than the one they are kept in: by renaming (`conversion.strategy: None`), or by a webhook that gets all of them at
//! once in a ConversionReview.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tiphys_meta::{ApiError, Gvk, Gvr, Reason, object};
use tiphys_schema::structural::embedded::Misfit;

use super::{Custom, Definition, Version};
use crate::cache::Event;
use crate::chance;
use crate::registry::Registry;
use crate::resource::{Model, Resource, Served};
use crate::storage::Entry;
use crate::verbs::rules::other_kind;

impl Registry {
    /// The entries as the served version shows them.
    pub(crate) async fn views(&self, served: &Served, mut entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, ApiError> {
        let Model::Custom(custom) = &served.model else { return Ok(entries) };
        let others: Vec<usize> = entries.iter().enumerate().filter(|(_, e)| !custom.shows(e)).map(|(i, _)| i).collect();
        if others.is_empty() {
            return Ok(entries);
        }
        let trees = others.iter().filter_map(|i| entries.get(*i)).map(|e| e.to_value()).collect();
        let converted = self.convert(&custom.definition, custom.version(), trees).await?;
        for (i, tree) in others.into_iter().zip(converted) {
            if let Some(entry) = entries.get_mut(i) {
                *entry = custom.shown(entry, &tree);
            }
        }
        Ok(entries)
    }

    pub(crate) async fn view(&self, served: &Served, entry: &Arc<Entry>) -> Result<Arc<Entry>, ApiError> {
        if served.as_custom().is_none_or(|custom| custom.shows(entry)) {
            return Ok(entry.clone());
        }
        let mut views = self.views(served, vec![entry.clone()]).await?;
        views.pop().ok_or_else(|| ApiError::internal("an object was lost in conversion"))
    }

    /// An event as the served version shows it.
    pub(crate) async fn event_view(&self, served: &Served, event: Arc<Event>) -> Result<Arc<Event>, ApiError> {
        let Model::Custom(custom) = &served.model else { return Ok(event) };
        let both = || std::iter::once(&event.entry).chain(&event.previous);
        if both().all(|e| custom.shows(e)) {
            return Ok(event);
        }
        let mut views = self.views(served, both().cloned().collect()).await?.into_iter();
        let entry = views.next().unwrap_or_else(|| event.entry.clone());
        Ok(Arc::new(Event::new(entry, views.next(), event.deleted)))
    }

    /// The other versions in which a custom resource is served: what is written in one is written in all.
    pub fn equivalents(&self, gvr: &Gvr) -> Vec<Gvr> {
        let found = self.resources.find(gvr);
        let versions = found.map(|(resource, _)| resource.served.iter().map(|s| s.gvr.clone()).collect()).unwrap_or_default();
        let mut versions: Vec<Gvr> = versions;
        versions.retain(|v| v != gvr);
        versions
    }

    /// Custom resources in another of their versions.
    pub async fn converted(&self, to: &Gvr, objects: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        let (resource, version) =
            self.resources.find(to).ok_or_else(|| ApiError::internal(format!("there is no {}", to.group_resource())))?;
        match resource.served.get(version).and_then(|s| s.as_custom()) {
            Some(custom) => self.convert(&custom.definition, custom.version(), objects).await,
            None => Ok(objects.into_iter().map(|object| builtin_converted(&resource, version, object)).collect()),
        }
    }

    /// The objects in a version of their definition. Those that are in it already stay as they are.
    pub(crate) async fn convert(&self, definition: &Definition, to: &Version, mut trees: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        let others: Vec<usize> = trees.iter().enumerate().filter(|(_, t)| t["apiVersion"] != *to.api_version).map(|(i, _)| i).collect();
        if others.is_empty() {
            return Ok(trees);
        }
        let sent: Vec<Value> = others.iter().map(|i| trees.get_mut(*i).map(Value::take).unwrap_or_default()).collect();
        let converted = match &definition.conversion {
            None => sent.into_iter().map(|tree| renamed(tree, to)).collect(),
            Some(_) => self.convert_by_webhook(definition, to, sent).await?,
        };
        for (i, mut tree) in others.into_iter().zip(converted) {
            to.coerce(&mut tree, Misfit::Refuse)?;
            if let Some(place) = trees.get_mut(i) {
                *place = tree;
            }
        }
        Ok(trees)
    }

    async fn convert_by_webhook(&self, definition: &Definition, to: &Version, sent: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        let from = sent.first().map(|t| Gvk::from_api_version(t["apiVersion"].as_str().unwrap_or(""), &definition.names.kind));
        let from = from.unwrap_or_else(|| to.gvk.clone());
        let name = format!("{}, Kind={}", from.api_version(), from.kind);
        let failed = |why: String| ApiError::new(Reason::Unknown, format!("conversion webhook for {name} {why}"));
        let webhook = definition.conversion.as_ref().ok_or_else(|| failed("failed: there is none".into()))?;
        let review = webhook.review.ok_or_else(|| ApiError::new(Reason::Unknown, "no supported conversion review versions"))?;
        let caller = self.webhooks().ok_or_else(|| failed("failed: webhooks cannot be called yet".into()))?;
        let uid = chance::uuid();
        let api_version = format!("apiextensions.k8s.io/{review}");
        let request = json!({"uid": uid, "desiredAPIVersion": to.api_version, "objects": sent});
        let document = json!({"kind": "ConversionReview", "apiVersion": api_version, "request": request});
        let answer = caller.convert(&webhook.client, &document).await.map_err(|why| failed(format!("failed: {why}")))?;
        let converted = converted_objects(answer, &api_version, &uid).map_err(|why| failed(format!("failed: {why}")))?;
        if converted.len() != sent.len() {
            return Err(failed(format!("returned {} objects, expected {}", converted.len(), sent.len())));
        }
        let pairs = sent.iter().zip(converted).enumerate();
        pairs.map(|(i, (original, tree))| accepted(original, tree, to, i).map_err(&failed)).collect()
    }
}

impl Custom {
    /// An entry of the served version, made from the kept one.
    fn shown(&self, entry: &Entry, tree: &Value) -> Arc<Entry> {
        Arc::new(Entry::shown(self.shape.clone(), entry.key().clone(), tree, entry.revision()))
    }
}

fn renamed(mut tree: Value, to: &Version) -> Value {
    object::as_map(&mut tree).insert("apiVersion".into(), Value::from(to.api_version.as_str()));
    tree
}

/// What a ConversionReview brought, or why it brought nothing.
/// A built-in object in another of its versions. What stands for it in admission (a Scale, an Eviction) is the same in all.
fn builtin_converted(resource: &Resource, version: usize, mut object: Value) -> Value {
    let of = object.get("apiVersion").and_then(Value::as_str).unwrap_or("").to_owned();
    let Some(to) = resource.served.get(version).filter(|s| s.api_version != of && other_kind(resource, &object).is_none()) else {
        return object;
    };
    if let Some(from) = resource.served.iter().find(|s| s.api_version == of) {
        from.conversion.to_stored(&mut object);
    }
    to.conversion.to_served(&mut object);
    object["apiVersion"] = Value::from(to.api_version.as_str());
    object
}

fn converted_objects(mut answer: Value, api_version: &str, uid: &str) -> Result<Vec<Value>, String> {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    if api_version.ends_with("/v1") {
        let (version, kind) = (text(&answer["apiVersion"]), text(&answer["kind"]));
        if version != api_version || kind != "ConversionReview" {
            return Err(format!("expected webhook response of {api_version}, Kind=ConversionReview, got {version}, Kind={kind}"));
        }
    }
    let response = answer.get_mut("response").filter(|r| r.is_object()).ok_or("no response provided")?;
    if api_version.ends_with("/v1") && response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text(&response["uid"])));
    }
    let status = text(&response["result"]["status"]);
    if status != "Success" {
        let message = text(&response["result"]["message"]);
        return Err(if message.is_empty() { format!("response.result.status was '{status}', not 'Success'") } else { message });
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// A webhook converts an object, it does not make another one of it.
fn accepted(original: &Value, mut tree: Value, to: &Version, index: usize) -> Result<Value, String> {
    let invalid = |why: String| format!("returned invalid converted object at index {index}: {why}");
    let text = |v: &Value, field: &str| v.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let version = text(&tree, "apiVersion");
    if version != to.api_version {
        return Err(invalid(format!("invalid groupVersion (expected {}, received {version})", to.api_version)));
    }
    let (expected, received) = (text(original, "kind"), text(&tree, "kind"));
    if expected != received {
        return Err(invalid(format!("invalid kind (expected {expected}, received {received})")));
    }
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (expected, received) = (text(&original["metadata"], field), text(&tree["metadata"], field));
        if expected != received {
            return Err(invalid(format!("must have the same {name}: {expected} != {received}")));
        }
    }
    keep_metadata(original, &mut tree).map_err(|why| format!("returned invalid metadata in object at index {index}: {why}"))?;
    Ok(tree)
}

/// Of metadata, a webhook may convert labels and annotations.
fn keep_metadata(original: &Value, tree: &mut Value) -> Result<(), String> {
    let given = tree.get("metadata").ok_or("missing metadata in converted object")?.clone();
    let given = given.as_object().ok_or("invalid metadata in converted object")?;
    let mut metadata = original.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match given.get(field).filter(|v| !v.is_null()) {
            None => drop(metadata.remove(field)),
            Some(Value::Object(map)) => {
                if let Some((key, _)) = map.iter().find(|(_, v)| !v.is_string()) {
                    return Err(format!("{field}[{key:?}] is no text"));
                }
                drop(metadata.insert(field.into(), Value::Object(map.clone())));
            }
            Some(_) => return Err(format!("{field} are no map")),
        }
    }
    object::as_map(tree).insert("metadata".into(), Value::Object(Map::from_iter(metadata)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "apiextensions.k8s.io/v1";

    #[test]
    fn answers_of_webhooks() {
        let answer = |response: Value| json!({"kind": "ConversionReview", "apiVersion": V1, "response": response});
        let good = answer(json!({"uid": "u", "convertedObjects": [{"a": 1}], "result": {"status": "Success"}}));
        assert_eq!(converted_objects(good.clone(), V1, "u"), Ok(vec![json!({"a": 1})]));
        assert_eq!(converted_objects(good, V1, "other"), Err("expected response.uid=\"other\", got \"u\"".into()));
        let failed = answer(json!({"uid": "u", "result": {"status": "Failure", "message": "no"}}));
        assert_eq!(converted_objects(failed, V1, "u"), Err("no".into()));
        assert_eq!(converted_objects(json!({"kind": "ConversionReview", "apiVersion": V1}), V1, "u"), Err("no response provided".into()));
    }

    #[test]
    fn labels_are_converted_and_the_rest_of_metadata_is_not() {
        let original = json!({"metadata": {"name": "a", "uid": "u", "labels": {"old": "1"}, "annotations": {"x": "y"}}});
        let mut tree = json!({"metadata": {"name": "a", "labels": {"new": "1"}, "generation": 9}});
        keep_metadata(&original, &mut tree).unwrap();
        assert_eq!(tree, json!({"metadata": {"name": "a", "uid": "u", "labels": {"new": "1"}}}));
        assert!(keep_metadata(&original, &mut json!({"metadata": {"labels": {"a": 1}}})).is_err());
    }
}
