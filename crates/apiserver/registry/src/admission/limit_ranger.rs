//! LimitRanger: defaults and bounds of what containers, pods and claims may ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvr, Quantity, object};
use tiphys_types::api::core::v1::Pod;
use tiphys_types::resources::{self, Options, ResourceList};

use super::tree::{containers, list, text};
use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;

pub(super) struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create => attributes.is_whole("", "pods") || attributes.is_whole("", "persistentvolumeclaims"),
            Operation::Update => {
                attributes.is_whole("", "persistentvolumeclaims") || attributes.is("", "pods") && attributes.subresource == "resize"
            }
            Operation::Delete | Operation::Connect => false,
        }
    }

    async fn admit(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        if attributes.is("", "pods") && old.is_none_or(|o| object::deletion_timestamp(o).is_none()) {
            limits(registry, attributes.namespace).iter().for_each(|limit_range| fill(limit_range, object));
        }
        Ok(())
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(object) = object.filter(|_| old.is_none_or(|o| object::deletion_timestamp(o).is_none())) else { return Ok(()) };
        for limit_range in limits(registry, attributes.namespace) {
            let mut errors = Vec::new();
            for limit in list(&limit_range["spec"], "limits") {
                if attributes.is("", "pods") { check_pod(limit, object, &mut errors) } else { check_claim(limit, object, &mut errors) }
            }
            if !errors.is_empty() {
                let mut seen = std::collections::BTreeSet::new();
                errors.retain(|error: &String| seen.insert(error.clone()));
                let why = if errors.len() == 1 { errors.swap_remove(0) } else { format!("[{}]", errors.join(", ")) };
                return Err(attributes.forbidden(&why));
            }
        }
        Ok(())
    }
}

fn limits(registry: &Registry, namespace: &str) -> Vec<Arc<Value>> {
    let all = registry.cached(&Gvr::new("", "v1", "limitranges")).map(|c| c.list(namespace)).unwrap_or_default();
    all.iter().map(|entry| registry.trees.of(entry)).collect()
}

/// Defaults for containers that ask for nothing; what was set is noted in an annotation.
fn fill(limit_range: &Value, pod: &mut Value) {
    let mut notes = Vec::new();
    let defaults: Vec<&Value> = list(&limit_range["spec"], "limits").iter().filter(|l| text(l, "type") == "Container").collect();
    for (field, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = text(container, "name").to_owned();
            for (kind, source, word) in [("requests", "defaultRequest", "request"), ("limits", "default", "limit")] {
                let set = fill_one(container, kind, defaults.iter().filter_map(|d| d[source].as_object()));
                if !set.is_empty() {
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let annotations = object::as_map(object::meta_mut(pod).entry("annotations").or_insert(Value::Null));
        annotations.insert("kubernetes.io/limit-ranger".into(), json!(format!("LimitRanger plugin set: {}", notes.join("; "))));
    }
}

fn fill_one<'a>(container: &mut Value, kind: &str, defaults: impl Iterator<Item = &'a serde_json::Map<String, Value>>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults.flatten() {
        let given = container["resources"][kind].get(name).is_some();
        if !given {
            let resources = object::as_map(object::as_map(container).entry("resources").or_insert(Value::Null));
            object::as_map(resources.entry(kind).or_insert(Value::Null)).insert(name.clone(), amount.clone());
            set.push(name.clone());
        }
    }
    set.sort();
    set
}

fn amounts(tree: &Value) -> ResourceList {
    let pairs = tree.as_object().into_iter().flatten();
    pairs.filter_map(|(k, v)| Some((k.clone(), Quantity::parse(v.as_str()?).ok()?))).collect()
}

/// What is asked for, and what may be used.
struct Asked {
    requests: ResourceList,
    limits: ResourceList,
}

fn check_pod(limit: &Value, pod: &Value, errors: &mut Vec<String>) {
    match text(limit, "type") {
        "Container" => {
            for (_, container) in containers(&pod["spec"]) {
                let resources = &container["resources"];
                let asked = Asked { requests: amounts(&resources["requests"]), limits: amounts(&resources["limits"]) };
                check("Container", limit, &asked, errors);
            }
        }
        "Pod" => {
            let Ok(pod) = serde_json::from_value::<Pod>(pod.clone()) else { return };
            let options = Options { exclude_overhead: true, ..Options::default() };
            let asked = Asked { requests: resources::requests_with(&pod, options), limits: resources::limits_with(&pod, options) };
            check("Pod", limit, &asked, errors);
        }
        _ => {}
    }
}

fn check_claim(limit: &Value, claim: &Value, errors: &mut Vec<String>) {
    const KIND: &str = "PersistentVolumeClaim";
    if text(limit, "type") != KIND {
        return;
    }
    let asked = Asked { requests: amounts(&claim["spec"]["resources"]["requests"]), limits: BTreeMap::new() };
    errors.extend(amounts(&limit["min"]).iter().filter_map(|(name, bound)| below(KIND, name, bound, &asked)));
    for (name, bound) in amounts(&limit["max"]) {
        match asked.requests.get(&name) {
            None => errors.push(format!("maximum {name} usage per {KIND} is {bound}.  No request is specified")),
            Some(request) if *request > bound => {
                errors.push(format!("maximum {name} usage per {KIND} is {bound}, but request is {request}"));
            }
            Some(_) => {}
        }
    }
}

fn check(kind: &str, limit: &Value, asked: &Asked, errors: &mut Vec<String>) {
    errors.extend(amounts(&limit["min"]).iter().filter_map(|(name, bound)| below(kind, name, bound, asked)));
    errors.extend(amounts(&limit["max"]).iter().filter_map(|(name, bound)| above(kind, name, bound, asked)));
    errors.extend(amounts(&limit["maxLimitRequestRatio"]).iter().filter_map(|(name, bound)| too_elastic(kind, name, bound, asked)));
}

fn below(kind: &str, name: &str, bound: &Quantity, asked: &Asked) -> Option<String> {
    let said = |rest: String| Some(format!("minimum {name} usage per {kind} is {bound}{rest}"));
    match (asked.requests.get(name), asked.limits.get(name)) {
        (None, _) => said(".  No request is specified".into()),
        (Some(request), _) if request < bound => said(format!(", but request is {request}")),
        (_, Some(limit)) if limit < bound => said(format!(", but limit is {limit}")),
        _ => None,
    }
}

fn above(kind: &str, name: &str, bound: &Quantity, asked: &Asked) -> Option<String> {
    let said = |rest: String| Some(format!("maximum {name} usage per {kind} is {bound}{rest}"));
    match (asked.requests.get(name), asked.limits.get(name)) {
        (_, None) => said(".  No limit is specified".into()),
        (_, Some(limit)) if limit > bound => said(format!(", but limit is {limit}")),
        (Some(request), _) if request > bound => said(format!(", but request is {request}")),
        _ => None,
    }
}

fn too_elastic(kind: &str, name: &str, bound: &Quantity, asked: &Asked) -> Option<String> {
    let said = |rest: String| Some(format!("{name} max limit to request ratio per {kind} is {bound}, but {rest}"));
    let Some(request) = asked.requests.get(name).filter(|q| !q.is_zero()) else {
        return said("no request is specified or request is 0".into());
    };
    let Some(limit) = asked.limits.get(name).filter(|q| !q.is_zero()) else {
        return said("no limit is specified or limit is 0".into());
    };
    let ratio = limit.as_f64() / request.as_f64();
    if ratio > bound.as_f64() { said(format!("provided ratio is {ratio:.6}")) } else { None }
}
