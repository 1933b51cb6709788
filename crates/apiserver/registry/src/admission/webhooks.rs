//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: where they stand among the plugins. Who is called and how is the server's
//! ([`crate::Webhooks`]), which reaches Services and speaks TLS. What a webhook changed is brought into canonical form with its defaults again.
//!
//! Absent: mutating webhooks on deletions, whose patches would be thrown away.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_meta::ApiError;

use super::{Attributes, Plugin};
use crate::config::{About, Write};
use crate::registry::Registry;
use crate::verbs::rules::after_webhooks;

pub(super) struct MutatingAdmissionWebhook;
pub(super) struct ValidatingAdmissionWebhook;

/// Nobody locks the cluster's administrator out: the configurations themselves are never sent to a webhook.
fn may_be_sent(attributes: &Attributes<'_>) -> bool {
    let resource = attributes.gvr.resource.as_ref();
    let configurations = resource.ends_with("webhookconfigurations") || resource.contains("admissionpolic");
    !(attributes.gvr.group == "admissionregistration.k8s.io" && configurations)
}

fn parts<'a>(attributes: &'a Attributes<'_>, object: Option<&'a Value>, old: Option<&'a Value>) -> Write<'a> {
    let Attributes { operation, gvr, requested, subresource, namespace, name, .. } = attributes;
    Write { operation: *operation, gvr, requested, subresource, namespace, name, object, old }
}

fn about<'a>(attributes: &'a Attributes<'_>) -> About<'a> {
    let Attributes { user, dry_run, warnings, notes, .. } = attributes;
    About { user, dry_run: *dry_run, options: attributes.options(), warnings, notes }
}

#[async_trait]
impl Plugin for MutatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        may_be_sent(attributes)
    }

    fn connects(&self) -> bool {
        true
    }

    async fn admit(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(webhooks) = registry.webhooks().filter(|_| !attributes.reinvoked()) else { return Ok(()) };
        let patched = webhooks.mutate(&parts(attributes, Some(object), old), &about(attributes)).await?;
        let Some(patched) = patched else { return Ok(()) };
        let Some((resource, version)) = registry.resources.find(attributes.gvr) else { return Ok(()) };
        *object = after_webhooks(&resource, version, patched)?;
        attributes.note_change();
        Ok(())
    }
}

#[async_trait]
impl Plugin for ValidatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        may_be_sent(attributes)
    }

    fn connects(&self) -> bool {
        true
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        match registry.webhooks() {
            Some(webhooks) => webhooks.validate(&parts(attributes, object, old), &about(attributes)).await,
            None => Ok(()),
        }
    }
}
