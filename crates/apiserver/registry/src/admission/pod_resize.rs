//! PodResizeValidator: a pod that runs on a node is resized only within what the node has (KEP-1287).

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_meta::{ApiError, Cause, Gvr, Quantity, object};
use tiphys_types::resources;

use super::tree::text;
use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;

pub(super) struct PodResize;

#[async_trait]
impl Plugin for PodResize {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && attributes.subresource == "resize" && attributes.is("", "pods")
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        pod: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let (Some(pod), Some(old)) = (pod, old) else { return Ok(()) };
        let name = text(&pod["spec"], "nodeName");
        // The generation moves with the spec, and with nothing else.
        if name.is_empty() || pod["metadata"]["generation"] == old["metadata"]["generation"] {
            return Ok(());
        }
        let node = registry.get_value(&Gvr::new("", "v1", "nodes"), "", name);
        let node = node.ok_or_else(|| attributes.forbidden(&format!("node {name:?} not found")))?;
        let system = object::labels(&node).find(|(key, _)| *key == "kubernetes.io/os").map(|(_, system)| system);
        if let Some(other) = system.filter(|s| *s != "linux") {
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {other:?}");
            return Err(refusal(attributes, &why, "UnsupportedPlatform"));
        }
        match too_large(pod, &node["status"]["allocatable"]) {
            Some(why) => Err(refusal(attributes, &why, "NodeCapacity")),
            None => Ok(()),
        }
    }
}

fn refusal(attributes: &Attributes<'_>, why: &str, reason: &str) -> ApiError {
    let mut error = attributes.forbidden(why);
    error.causes.push(Cause { reason: reason.to_owned(), message: String::new(), field: String::new() });
    error
}

/// What the pod asks for and the node never has.
fn too_large(pod: &Value, allocatable: &Value) -> Option<String> {
    let Ok(pod) = serde_json::from_value(pod.clone()) else { return None };
    let asked = resources::requests(&pod);
    let has = |name: &str| allocatable[name].as_str().and_then(|text| Quantity::parse(text).ok()).unwrap_or(Quantity::ZERO);
    let shown = |name: &str, amount: Quantity| if name == "cpu" { amount.milli() } else { amount.value() };
    let over = ["cpu", "memory"].into_iter().filter_map(|name| {
        let (wanted, has) = (*asked.get(name)?, has(name));
        (wanted > has).then(|| format!("{name}, requested: {}, allocatable: {}", shown(name, wanted), shown(name, has)))
    });
    let over: Vec<String> = over.collect();
    (!over.is_empty()).then(|| format!("node didn't have enough allocatable resources: {}", over.join("; ")))
}
