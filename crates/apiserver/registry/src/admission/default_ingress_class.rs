//! DefaultIngressClass: an Ingress that names no class gets the default one, if there is one.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvr, object};

use super::tree::spec;
use super::{Attributes, Operation, Plugin};
use crate::registry::Registry;

pub(super) struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is_whole("networking.k8s.io", "ingresses")
    }

    async fn admit(&self, registry: &Arc<Registry>, _: &Attributes<'_>, ingress: &mut Value, _: Option<&Value>) -> Result<(), ApiError> {
        let annotated = object::annotations(ingress).any(|(k, _)| k == "kubernetes.io/ingress.class");
        if annotated || ingress["spec"].get("ingressClassName").is_some() {
            return Ok(());
        }
        let all = registry.cached(&Gvr::new("networking.k8s.io", "v1", "ingressclasses")).map(|c| c.list("")).unwrap_or_default();
        let is_default = |c: &Value| object::annotations(c).any(|(k, v)| k == "ingressclass.kubernetes.io/is-default-class" && v == "true");
        let made = |c: &Value| c["metadata"]["creationTimestamp"].as_str().unwrap_or("").to_owned();
        let defaults = all.iter().map(|e| e.to_value()).filter(is_default);
        let newest = defaults.max_by(|a, b| made(a).cmp(&made(b)).then_with(|| object::name(b).cmp(object::name(a))));
        if let Some(class) = newest {
            spec(ingress).insert("ingressClassName".into(), json!(object::name(&class)));
        }
        Ok(())
    }
}
