//! TaintNodesByCondition: a node that has just joined takes no pods until the node controller has seen it ready.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tiphys_meta::ApiError;

use super::tree::{list_mut, spec, text};
use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;

pub(super) struct TaintNodesByCondition;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is_whole("", "nodes")
    }

    async fn admit(&self, _: &Arc<Registry>, _: &Attributes<'_>, node: &mut Value, _: Option<&Value>) -> Result<(), ApiError> {
        let taints = list_mut(spec(node), "taints");
        if !taints.iter().any(|t| text(t, "key") == NOT_READY && text(t, "effect") == "NoSchedule") {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}
