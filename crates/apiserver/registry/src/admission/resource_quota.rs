//! ResourceQuota: what an object takes is charged to every quota of its namespace that counts it, before it is written.
//!
//! The charge is a conditional write of the quota's status, tried again when another came first: so the sum is exact under concurrency.
//! As upstream: a charge whose object is then not written stays until the quota controller counts again.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvr, Quantity, object, time};
use tiphys_schema::apply::{self, Options};
use tiphys_types::quota;
use tiphys_types::resources::ResourceList;

use super::{Attributes, Operation, Plugin};
use crate::registry::{Registry, WriteError};
use crate::resource::Resource;
use crate::storage::{Draft, Entry};

pub(super) struct ResourceQuota;

/// Conflicts on a quota's status before the request fails.
const TRIES: usize = 100;

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        if attributes.namespace.is_empty() || attributes.is("", "events") || attributes.is("", "namespaces") {
            return false;
        }
        match (attributes.operation, attributes.subresource) {
            (Operation::Create, "") => true,
            (Operation::Update, "") => {
                attributes.is("resource.k8s.io", "resourceclaims")
                    || ["pods", "services", "persistentvolumeclaims"].iter().any(|r| attributes.is("", r))
            }
            (Operation::Update, "resize") => attributes.is("", "pods"),
            _ => false,
        }
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let gvr = Gvr::new("", "v1", "resourcequotas");
        let Some((resource, _)) = registry.resources.find(&gvr) else { return Ok(()) };
        let prefix = resource.prefix_of(attributes.namespace);
        let (quotas, _) = resource.cache.list(&prefix, &prefix);
        let Some(object) = object.filter(|_| !quotas.is_empty()) else { return Ok(()) };
        if old.is_some() && attributes.is_whole("", "pods") && has_deadline(old) == has_deadline(Some(object)) {
            return Ok(());
        }
        for quota in quotas {
            charge(registry, &resource, attributes, quota, object, old).await?;
        }
        Ok(())
    }
}

fn has_deadline(pod: Option<&Value>) -> bool {
    pod.is_some_and(|p| p["spec"]["activeDeadlineSeconds"].as_i64().is_some())
}

async fn charge(
    registry: &Arc<Registry>,
    resource: &Arc<Resource>,
    attributes: &Attributes<'_>,
    mut entry: Arc<Entry>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    for _ in 0..TRIES {
        let quota = entry.to_value();
        let Some(used) = judge(registry, attributes, &quota, object, old)? else { return Ok(()) };
        if attributes.dry_run {
            return Ok(());
        }
        let mut charged = quota;
        let status = object::as_map(object::as_map(&mut charged).entry("status").or_insert(Value::Null));
        let texts = used.iter().map(|(name, amount)| (name.clone(), json!(amount.to_string()))).collect();
        status.insert("used".into(), Value::Object(texts));
        if let Some(kind) = resource.kind {
            let now = time::format(registry.config.clock.now());
            let options = Options { manager: "kube-apiserver", subresource: "status", now: &now, reset: &[&["spec"]], force: false };
            apply::update(&apply::Schema::Kind(kind), Some(&entry.to_value()), &mut charged, &options);
        }
        let draft = Arc::new(Draft::new(&resource.shape, entry.key().clone(), charged)?);
        match registry.write(resource, &draft, entry.revision()).await {
            Ok(_) => return Ok(()),
            Err(WriteError::Conflict(Some(newer))) => entry = newer,
            Err(WriteError::Conflict(None)) => return Ok(()),
            Err(WriteError::Failed(error)) => return Err(error),
        }
    }
    Err(ApiError::conflict(&resource.gvr, entry.name(), crate::verbs::update::OPTIMISTIC_LOCK))
}

fn amounts(tree: &Value) -> ResourceList {
    let pairs = tree.as_object().into_iter().flatten();
    pairs.filter_map(|(k, v)| Some((k.clone(), Quantity::parse(v.as_str()?).ok()?))).collect()
}

fn shown<'a>(names: &[&str], of: &'a ResourceList) -> String {
    let pair = |name: &&str| of.get::<str>(name).map(|amount: &'a Quantity| format!("{name}={amount}"));
    names.iter().filter_map(pair).collect::<Vec<_>>().join(",")
}

/// The quota's new `used`; none if it does not count the object, or nothing changes.
fn judge(
    registry: &Registry,
    attributes: &Attributes<'_>,
    quota: &Value,
    object: &Value,
    old: Option<&Value>,
) -> Result<Option<ResourceList>, ApiError> {
    let (group, resource) = (&*attributes.gvr.group, &*attributes.gvr.resource);
    let (hard, used) = (amounts(&quota["status"]["hard"]), amounts(&quota["status"]["used"]));
    let tracked = quota::tracked(group, resource, hard.keys().map(String::as_str));
    if tracked.is_empty() || !quota::in_scope(&quota["spec"], group, resource, object) {
        return Ok(None);
    }
    let name = object::name(quota);
    if (group, resource) == ("", "pods") {
        let missing = quota::missing_compute(&tracked, object);
        if !missing.is_empty() {
            let each = missing.iter().map(|(r, c)| format!("{r} for: {}", c.iter().cloned().collect::<Vec<_>>().join(",")));
            let why = format!("failed quota: {name}: must specify {}", each.collect::<Vec<_>>().join("; "));
            return Err(attributes.forbidden(&why));
        }
    }
    if tracked.iter().any(|t| !used.contains_key(*t)) {
        return Err(attributes.forbidden(&format!("status unknown for quota: {name}, resources: {}", tracked.join(","))));
    }
    let now = registry.config.clock.now();
    let mut delta = quota::usage(group, resource, object, now);
    if let Some(old) = old.filter(|o| quota::in_scope(&quota["spec"], group, resource, o)) {
        let before = quota::usage(group, resource, old, now);
        for (name, amount) in &mut delta {
            let less = before.get(name).copied().unwrap_or(Quantity::ZERO);
            *amount = if *amount > less { *amount - less } else { Quantity::ZERO };
        }
    }
    delta.retain(|name, amount| !amount.is_zero() && hard.contains_key(name));
    if delta.is_empty() {
        return Ok(None);
    }
    let mut sum = used.clone();
    delta.iter().for_each(|(name, amount)| *sum.entry(name.clone()).or_insert(Quantity::ZERO) += *amount);
    let exceeded: Vec<&str> = delta.keys().map(String::as_str).filter(|n| sum.get(*n) > hard.get(*n)).collect();
    if !exceeded.is_empty() {
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            shown(&exceeded, &delta),
            shown(&exceeded, &used),
            shown(&exceeded, &hard)
        );
        return Err(attributes.forbidden(&why));
    }
    Ok(Some(sum))
}
