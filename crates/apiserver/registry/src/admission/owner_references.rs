//! OwnerReferencesPermissionEnforcement: who may not delete an object may not hand it to an owner whose deletion would delete it, and who may
//! not set an owner's finalizers may not block its deletion.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_meta::{ApiError, Gvk, object};
use tiphys_schema::Facts;

use super::tree::{list, text};
use super::{Attributes, Operation, Plugin};
use crate::config::Question;
use crate::registry::Registry;

pub(super) struct OwnerReferences;

#[async_trait]
impl Plugin for OwnerReferences {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Delete && attributes.subresource != "status"
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(new) = new else { return Ok(()) };
        let owners = |tree: Option<&Value>| tree.map(|t| list(&t["metadata"], "ownerReferences").to_vec()).unwrap_or_default();
        let (before, after) = (owners(old), owners(Some(new)));
        if after == before || attributes.user.in_group("system:masters") {
            return Ok(());
        }
        // Setting owners on create needs no permission to delete: it was just made.
        if old.is_some() {
            let question = Question {
                verb: "delete",
                group: &attributes.gvr.group,
                version: &attributes.gvr.version,
                resource: &attributes.gvr.resource,
                namespace: attributes.namespace,
                name: object::name(new),
                ..Question::default()
            };
            if !registry.allowed(attributes.user, &question).await {
                return Err(attributes.forbidden("cannot set an ownerRef on a resource you can't delete"));
            }
        }
        for owner in after.iter().filter(|o| blocks(o) && !before.iter().any(|b| b["uid"] == o["uid"] && blocks(b))) {
            self.check_block(registry, attributes, owner).await?;
        }
        Ok(())
    }
}

fn blocks(owner: &Value) -> bool {
    owner["blockOwnerDeletion"] == true
}

impl OwnerReferences {
    async fn check_block(&self, registry: &Arc<Registry>, attributes: &Attributes<'_>, owner: &Value) -> Result<(), ApiError> {
        let gvk = Gvk::from_api_version(text(owner, "apiVersion"), text(owner, "kind"));
        let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
        let Some(facts) = Facts::builtin().resource_of_kind(&gvk) else {
            // An unknown kind cannot be asked about; upstream refuses only what it can map.
            return Ok(());
        };
        let question = Question {
            verb: "update",
            group: &gvk.group,
            version: &gvk.version,
            resource: &facts.gvr.resource,
            subresource: "finalizers",
            namespace: if facts.namespaced { attributes.namespace } else { "" },
            name: text(owner, "name"),
            path: "",
        };
        if registry.allowed(attributes.user, &question).await { Ok(()) } else { Err(attributes.forbidden(why)) }
    }
}
