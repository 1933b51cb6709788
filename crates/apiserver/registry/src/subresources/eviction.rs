//! `pods/eviction`: a deletion that a PodDisruptionBudget may refuse (KEP-85, KEP-3017).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tiphys_kinds::Subresource;
use tiphys_meta::{ApiError, Cause, Gvr, Reason, object, time};
use tiphys_schema::Facts;

use super::binding::set_condition;
use super::success;
use crate::answer::Answer;
use crate::options::{DeleteOptions, WriteOptions};
use crate::registry::Registry;
use crate::request::{RequestInfo, Verb};
use crate::storage::Entry;
use crate::verbs::Call;
use crate::verbs::update::{Change, How};

/// Pods that a budget may count as evicted but not yet gone.
const MOST_DISRUPTED: usize = 2000;
/// Conflicts on a budget's status before the client is told to come back.
const TRIES: usize = 20;

static MARK: Subresource = Subresource { name: "status", prepare_update: |_, _, _| {}, validate_update: |_, _, _| {} };

pub(super) async fn create(call: &mut Call<'_>, body: Bytes) -> Result<Answer, ApiError> {
    let write = WriteOptions::parse(call.info, &call.query, "CreateOptions")?;
    let kind = Facts::builtin().kind_of("policy", "v1", "Eviction").ok_or_else(|| ApiError::internal("no kind policy/v1 Eviction"))?;
    let mut eviction = call.decode(&in_todays_version(body), kind, write.validation)?;
    call.check_namespace(&mut eviction)?;
    if object::name(&eviction) != call.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    // An eviction is created like anything else: webhooks, policies and NodeRestriction see it.
    call.admit_sent(kind, &mut eviction, write.dry_run).await?;
    let mut options = DeleteOptions::from_tree(&eviction["deleteOptions"])?;
    options.dry_run |= write.dry_run;
    let asked_version = options.resource_version.is_some();
    let pod = call.current().await.ok_or_else(|| call.not_found(&call.info.name))?.to_value();
    if exempt(&pod) {
        return evict(call, &pod, &options).await;
    }
    let Some(budget) = budget_of(call.registry, &pod)? else { return evict(call, &pod, &options).await };
    if !is_ready(&pod) && unhealthy_may_go(&budget.to_value()) {
        if !asked_version {
            options.resource_version = Some(object::resource_version(&pod).to_owned());
        }
        return evict(call, &pod, &options)
            .await
            .map_err(|error| if error.is_conflict() && !asked_version { too_many(10, &still_processed(budget.name())) } else { error });
    }
    spend(call, budget.name(), object::name(&pod), options.dry_run).await?;
    evict(call, &pod, &options).await
}

/// Clients that found `policy/v1beta1` in discovery, where evictions were first, still say so; upstream takes it.
fn in_todays_version(body: Bytes) -> Bytes {
    match tiphys_schema::codec::json::decode_raw(&body) {
        Ok(mut tree) if tree["apiVersion"] == "policy/v1beta1" => {
            tree["apiVersion"] = json!("policy/v1");
            tree.to_string().into()
        }
        _ => body,
    }
}

/// Pods that are over, not begun or going anyway need no budget.
fn exempt(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending")) || object::deletion_timestamp(pod).is_some()
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn unhealthy_may_go(budget: &Value) -> bool {
    let number = |f: &str| budget["status"][f].as_i64().unwrap_or(0);
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || (number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0)
}

fn budgets() -> Gvr {
    Gvr::new("policy", "v1", "poddisruptionbudgets")
}

fn budget_of(registry: &Registry, pod: &Value) -> Result<Option<Arc<Entry>>, ApiError> {
    let all = registry.cached(&budgets()).map(|c| c.list(object::namespace(pod))).unwrap_or_default();
    let selects = |budget: &Arc<Entry>| {
        let selector = &budget.to_value()["spec"]["selector"];
        tiphys_types::selector::from_value(selector).is_ok_and(|s| s.matches_object(pod))
    };
    let mut matching = all.into_iter().filter(selects);
    let first = matching.next();
    if matching.next().is_some() {
        return Err(ApiError::new(
            Reason::Unknown,
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    Ok(first)
}

/// Marks the pod as disrupted and deletes it.
async fn evict(call: &mut Call<'_>, pod: &Value, options: &DeleteOptions) -> Result<Answer, ApiError> {
    let mut options = options.clone();
    if !options.dry_run {
        let write = WriteOptions { dry_run: false, manager: String::new(), validation: crate::options::Validation::Ignore, force: None };
        let mut change = Disrupt { uid: options.uid.clone(), version: options.resource_version.clone() };
        let marked = call.change(&mut change, How { subresource: Some(&MARK), unconditional: true }, &write).await?;
        if options.resource_version.is_some() {
            options.resource_version = Some(marked.revision().to_string());
        }
    }
    call.delete_named(object::name(pod), &options).await?;
    success(call)
}

struct Disrupt {
    uid: Option<String>,
    version: Option<String>,
}

#[async_trait]
impl Change for Disrupt {
    async fn wanted(&mut self, call: &mut Call<'_>, old: &Value) -> Result<Value, ApiError> {
        let conflict = |why: String| Err(ApiError::conflict(&Gvr::new("", "v1", "Pod"), object::name(old), &why));
        if let Some(uid) = self.uid.as_deref().filter(|u| !u.is_empty() && *u != object::uid(old)) {
            return conflict(format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
                object::uid(old)
            ));
        }
        if let Some(version) = self.version.as_deref().filter(|v| !v.is_empty() && *v != object::resource_version(old)) {
            return conflict(format!(
                "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
                object::resource_version(old)
            ));
        }
        let mut pod = old.clone();
        let status = object::as_map(object::as_map(&mut pod).entry("status").or_insert(Value::Null));
        let condition =
            json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"});
        set_condition(status, &condition, &time::format(call.registry.config.clock.now()));
        Ok(pod)
    }
}

/// Takes one disruption from the budget, or refuses with 429.
async fn spend(call: &mut Call<'_>, budget: &str, pod: &str, dry_run: bool) -> Result<(), ApiError> {
    let gvr = budgets();
    let (namespace, user) = (call.info.namespace.clone(), call.info.user.clone());
    let info = RequestInfo { subresource: "status".into(), ..RequestInfo::new(Verb::Update, gvr, &namespace, budget, user) };
    for _ in 0..TRIES {
        call.registry.catch_up().await;
        let Some(entry) = call.registry.cached(&info.gvr).and_then(|c| c.get(&namespace, budget)) else { return Ok(()) };
        let mut tree = entry.to_value();
        check(&tree, budget)?;
        let allowed = tree["status"]["disruptionsAllowed"].as_i64().unwrap_or(0) - 1;
        if dry_run {
            return Ok(());
        }
        let now = time::format(call.registry.config.clock.now());
        let status = object::as_map(object::as_map(&mut tree).entry("status").or_insert(Value::Null));
        status.insert("disruptionsAllowed".into(), json!(allowed));
        object::as_map(status.entry("disruptedPods").or_insert(Value::Null)).insert(pod.to_owned(), json!(now));
        if allowed == 0 {
            exhausted(status, &now);
        }
        match Box::pin(call.registry.handle(&info, tree.to_string().into())).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    let mut error = ApiError::new(Reason::Timeout, format!("couldn't update PodDisruptionBudget \"{budget}\" due to conflicts"));
    error.retry_after_seconds = 10;
    Err(error)
}

fn exhausted(status: &mut serde_json::Map<String, Value>, now: &str) {
    let condition = status.get_mut("conditions").and_then(Value::as_array_mut);
    let Some(condition) = condition.and_then(|c| c.iter_mut().find(|c| c["type"] == "DisruptionAllowed")) else { return };
    if condition["status"] != "False" {
        condition["status"] = json!("False");
        condition["lastTransitionTime"] = json!(now);
    }
    condition["reason"] = json!("InsufficientPods");
}

fn check(budget: &Value, name: &str) -> Result<(), ApiError> {
    let number = |f: &str| budget["status"][f].as_i64().unwrap_or(0);
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err(too_many(10, &still_processed(name)));
    }
    let forbidden = |why| Err(ApiError::forbidden(&Gvr::new("policy", "v1", "poddisruptionbudget"), name, why));
    if number("disruptionsAllowed") < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if budget["status"]["disruptedPods"].as_object().is_some_and(|p| p.len() > MOST_DISRUPTED) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if number("disruptionsAllowed") > 0 {
        return Ok(());
    }
    let (desired, current) = (number("desiredHealthy"), number("currentHealthy"));
    let message = if current <= desired {
        format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
    } else {
        format!("The disruption budget {name} does not allow evicting pods currently")
    };
    Err(too_many(0, &message))
}

fn still_processed(budget: &str) -> String {
    format!("The disruption budget {budget} is still being processed by the server.")
}

fn too_many(retry_after: i32, message: &str) -> ApiError {
    let mut error = ApiError::new(Reason::TooManyRequests, "Cannot evict pod as it would violate the pod's disruption budget.");
    error.retry_after_seconds = retry_after;
    error.causes.push(Cause { reason: "DisruptionBudget".into(), message: message.into(), field: String::new() });
    error
}
