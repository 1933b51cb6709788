//! DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or cannot be reached, unless they say otherwise.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tiphys_meta::ApiError;

use super::tree::{list, list_mut, spec, text};
use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;

pub(super) struct DefaultTolerationSeconds;

const SECONDS: u32 = 300;
const KEYS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Delete && attributes.is_whole("", "pods")
    }

    async fn admit(&self, _: &Arc<Registry>, _: &Attributes<'_>, pod: &mut Value, _: Option<&Value>) -> Result<(), ApiError> {
        let missing: Vec<&str> = KEYS.into_iter().filter(|key| !tolerates(list(&pod["spec"], "tolerations"), key)).collect();
        for key in missing {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
            list_mut(spec(pod), "tolerations").push(toleration);
        }
        Ok(())
    }
}

fn tolerates(tolerations: &[Value], key: &str) -> bool {
    tolerations.iter().any(|t| (text(t, "key").is_empty() || text(t, "key") == key) && matches!(text(t, "effect"), "" | "NoExecute"))
}
