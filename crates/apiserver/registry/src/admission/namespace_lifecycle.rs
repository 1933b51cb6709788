//! NamespaceLifecycle: nothing new in namespaces that are not there or are going; the system's own namespaces stay.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_meta::{ApiError, Cause, Gvr};

use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;

pub(super) struct NamespaceLifecycle;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(crate) fn namespaces() -> Gvr {
    Gvr::new("", "v1", "namespaces")
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create | Operation::Update => !attributes.namespace.is_empty() && !attributes.is("", "namespaces"),
            Operation::Delete => attributes.is("", "namespaces"),
            Operation::Connect => false,
        }
    }

    async fn admit(&self, registry: &Arc<Registry>, attributes: &Attributes<'_>, _: &mut Value, _: Option<&Value>) -> Result<(), ApiError> {
        let gvr = namespaces();
        let cached = registry.cached(&gvr);
        let mut namespace = cached.as_ref().and_then(|c| c.get("", attributes.namespace));
        if namespace.is_none() {
            registry.catch_up().await;
            namespace = cached.and_then(|c| c.get("", attributes.namespace));
        }
        let Some(namespace) = namespace else { return Err(ApiError::not_found(&gvr, attributes.namespace)) };
        if attributes.operation == Operation::Create && namespace.field("status.phase") == Some("Terminating") {
            let name = attributes.namespace;
            let why = format!("unable to create new content in namespace {name} because it is being terminated");
            let mut error = attributes.forbidden(&why);
            error.causes.push(Cause {
                reason: "NamespaceTerminating".into(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".into(),
            });
            return Err(error);
        }
        Ok(())
    }

    async fn validate(&self, _: &Arc<Registry>, attributes: &Attributes<'_>, _: Option<&Value>, _: Option<&Value>) -> Result<(), ApiError> {
        if attributes.operation == Operation::Delete && IMMORTAL.contains(&attributes.name.as_str()) {
            return Err(attributes.forbidden("this namespace may not be deleted"));
        }
        Ok(())
    }
}
