//! PodTopologyLabels: a pod carries the zone and region of its node (KEP-4742).

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tiphys_meta::{ApiError, Gvr, object};

use super::tree::text;
use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;

pub(super) struct PodTopologyLabels;

const COPIED: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    /// The labels of a binding become the pod's.
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let created = attributes.operation == Operation::Create && attributes.subresource.is_empty();
        attributes.is("", "pods") && (created || attributes.subresource == "binding")
    }

    async fn admit(&self, registry: &Arc<Registry>, at: &Attributes<'_>, new: &mut Value, _: Option<&Value>) -> Result<(), ApiError> {
        let node = if at.subresource.is_empty() { text(&new["spec"], "nodeName") } else { text(&new["target"], "name") };
        let Some(node) = registry.cached(&Gvr::new("", "v1", "nodes")).and_then(|c| c.get("", node)) else { return Ok(()) };
        let labels: Map<String, Value> =
            node.labels().filter(|(k, _)| COPIED.contains(k)).map(|(k, v)| (k.to_owned(), Value::from(v))).collect();
        if !labels.is_empty() {
            object::as_map(object::meta_mut(new).entry("labels").or_insert(Value::Null)).extend(labels);
        }
        Ok(())
    }
}
