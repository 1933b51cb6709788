//! RuntimeClass: what a runtime costs, and where it can run, goes into the pod (KEP-585, KEP-688).

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_meta::{ApiError, Gvr, object};

use super::tree::{list, list_mut, spec, text};
use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;

pub(super) struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is_whole("", "pods")
    }

    async fn admit(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        pod: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(class) = class(registry, attributes, pod)? else { return Ok(()) };
        let overhead = class["overhead"].get("podFixed").filter(|o| o.as_object().is_some_and(|m| !m.is_empty()));
        if let Some(overhead) = overhead {
            if pod["spec"].get("overhead").is_some_and(|given| given != overhead) {
                return Err(attributes.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
            }
            spec(pod).insert("overhead".into(), overhead.clone());
        }
        schedule(attributes, &class["scheduling"], pod)
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        pod: Option<&Value>,
        _: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(pod) = pod else { return Ok(()) };
        let Some(overhead) = pod["spec"].get("overhead").filter(|o| o.as_object().is_some_and(|m| !m.is_empty())) else { return Ok(()) };
        match class(registry, attributes, pod)? {
            None => Err(attributes.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")),
            Some(class) if class["overhead"].get("podFixed") != Some(overhead) => {
                Err(attributes.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
            }
            Some(_) => Ok(()),
        }
    }
}

fn class(registry: &Registry, attributes: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, ApiError> {
    let name = text(&pod["spec"], "runtimeClassName");
    if name.is_empty() {
        return Ok(None);
    }
    let class = registry.get_value(&Gvr::new("node.k8s.io", "v1", "runtimeclasses"), "", name);
    class.map(Some).ok_or_else(|| attributes.forbidden(&format!("pod rejected: RuntimeClass \"{name}\" not found")))
}

fn schedule(attributes: &Attributes<'_>, scheduling: &Value, pod: &mut Value) -> Result<(), ApiError> {
    let spec = spec(pod);
    if let Some(wanted) = scheduling.get("nodeSelector").and_then(Value::as_object).filter(|m| !m.is_empty()) {
        let selector = object::as_map(spec.entry("nodeSelector").or_insert(Value::Null));
        for (key, value) in wanted {
            if selector.get(key).is_some_and(|given| given != value) {
                let (given, value) = (selector[key].as_str().unwrap_or(""), value.as_str().unwrap_or(""));
                let why =
                    format!("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {given}");
                return Err(attributes.forbidden(&why));
            }
            selector.insert(key.clone(), value.clone());
        }
    }
    let more: Vec<Value> = list(scheduling, "tolerations").to_vec();
    if !more.is_empty() {
        let tolerations = list_mut(spec, "tolerations");
        let new: Vec<Value> = more.into_iter().filter(|t| !tolerations.contains(t)).collect();
        tolerations.extend(new);
    }
    Ok(())
}
