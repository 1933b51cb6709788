//! Admission policies in CEL: ValidatingAdmissionPolicy (KEP-3488) and MutatingAdmissionPolicy (KEP-3962).
//!
//! Policies and their bindings are read from the watch cache at each write, so they hold from the write after the one that made them; what is compiled
//! is kept for as long as the policy stays the same.
//!
//! Audit annotations, and failures where a binding's action is `Audit`, go to the audit log (`Attributes::notes`).

mod compiled;
mod matching;
mod mutating;
mod params;
mod validating;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tiphys_meta::{ApiError, Gvk, Gvr};

use super::Attributes;
use crate::conditions::Review;
use crate::meters::Meters;
use crate::registry::Registry;
use crate::storage::Entry;
use compiled::Policy;
pub(super) use mutating::MutatingAdmissionPolicy;
use tokio::time::Instant;
pub(super) use validating::ValidatingAdmissionPolicy;

const GROUP: &str = "admissionregistration.k8s.io";

/// Compiled policies, by resource and name, each with the revision that it was compiled from.
#[derive(Default)]
pub(crate) struct Policies(Mutex<Compiled>);

type Compiled = HashMap<(&'static str, String), (i64, Arc<Policy>)>;

impl Policies {
    fn compiled(&self, kind: &'static str, entry: &Entry, meters: &Meters) -> Arc<Policy> {
        let key = (kind, entry.name().to_owned());
        if let Some((revision, policy)) = self.0.lock().get(&key)
            && *revision == entry.revision()
        {
            return policy.clone();
        }
        // Outside the lock: compiling may take a while, and doing it twice does no harm.
        let begun = Instant::now();
        let policy = Arc::new(Policy::compile(&entry.to_value()));
        meters.compiled.observe(begun.elapsed());
        self.0.lock().insert(key, (entry.revision(), policy.clone()));
        policy
    }

    /// Forgets policies that are no more.
    fn keep(&self, kind: &'static str, entries: &[Arc<Entry>]) {
        let mut compiled = self.0.lock();
        if compiled.keys().filter(|(k, _)| *k == kind).count() > entries.len() {
            compiled.retain(|(k, name), _| *k != kind || entries.iter().any(|e| e.name() == name));
        }
    }
}

/// A policy with one of its bindings that concerns a request.
struct Bound {
    policy: Arc<Policy>,
    binding: Value,
    /// The resource in the version by which the policy knows it, and the kind of its objects.
    gvr: Gvr,
    gvk: Gvk,
}

impl Bound {
    fn binding_name(&self) -> &str {
        tiphys_meta::object::name(&self.binding)
    }
}

/// What went wrong before a policy could be asked.
struct Misconfigured {
    policy: Arc<Policy>,
    why: String,
}

/// Whether policies are asked about such a request: never about policies themselves, so that nobody locks the administrator out.
fn concerned(attributes: &Attributes<'_>) -> bool {
    let resource = attributes.gvr.resource.as_ref();
    let own = attributes.gvr.group == GROUP && (resource.contains("admissionpolic") || resource.ends_with("webhookconfigurations"));
    // Reviews and the like keep nothing and never come here; RBAC does (KEP-3488).
    !own
}

/// The policies of a kind that concern the request, with their bindings, by name.
fn bound(
    registry: &Registry,
    (policies, bindings): (&'static str, &'static str),
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> (Vec<Bound>, Vec<Misconfigured>) {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    let list = |resource: &'static str| registry.cached(&Gvr::new(GROUP, "v1", resource)).map(|c| c.list("")).unwrap_or_default();
    let entries = list(policies);
    registry.policies.keep(policies, &entries);
    if entries.is_empty() {
        return (all, wrong);
    }
    let bindings: Vec<Value> = list(bindings).iter().map(|b| b.to_value()).collect();
    let subject = matching::Subject::new(registry, attributes, object, old);
    for entry in entries {
        let bound: Vec<&Value> = bindings.iter().filter(|b| b["spec"]["policyName"] == *entry.name()).collect();
        if bound.is_empty() {
            continue;
        }
        let policy = registry.policies.compiled(policies, &entry, &registry.meters);
        let Some((gvr, gvk)) = subject.matches(&policy.constraints) else { continue };
        if let Some(kind) = &policy.param_kind
            && params::resource_of(registry, kind).is_none()
        {
            let shown = format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind);
            let why = format!("failed to find resource referenced by paramKind: '{shown}'");
            wrong.push(Misconfigured { policy: policy.clone(), why: format!("failed to configure policy: {why}") });
            continue;
        }
        for binding in bound {
            let fits = binding["spec"].get("matchResources").is_none_or(|m| subject.matches(m).is_some());
            if fits {
                all.push(Bound { policy: policy.clone(), binding: binding.clone(), gvr: gvr.clone(), gvk: gvk.clone() });
            }
        }
    }
    (all, wrong)
}

fn review<'a>(attributes: &'a Attributes<'_>, bound: &'a Bound, options: &'a Value) -> Review<'a> {
    Review {
        operation: attributes.operation.as_str(),
        kind: &bound.gvk,
        gvr: &bound.gvr,
        subresource: attributes.subresource,
        namespace: attributes.namespace,
        name: &attributes.name,
        user: attributes.user,
        dry_run: attributes.dry_run,
        requested: attributes.requested,
        options,
    }
}

/// The request's namespace; none for a namespace itself.
fn namespace(registry: &Registry, attributes: &Attributes<'_>) -> Result<Option<Value>, ApiError> {
    if attributes.namespace.is_empty() || attributes.is("", "namespaces") {
        return Ok(None);
    }
    let gvr = Gvr::new("", "v1", "namespaces");
    match registry.get_value(&gvr, "", attributes.namespace) {
        Some(namespace) => Ok(Some(namespace)),
        None => Err(ApiError::not_found(&gvr, attributes.namespace)),
    }
}

/// The object as the version has it that a policy knows.
async fn in_version<'o>(registry: &Registry, gvr: &Gvr, object: Option<&'o Value>) -> Result<Option<Cow<'o, Value>>, String> {
    let Some(object) = object else { return Ok(None) };
    let Some((resource, version)) = registry.resources.find(gvr) else { return Ok(Some(Cow::Borrowed(object))) };
    if resource.definition().is_some() && object["apiVersion"] != *gvr.api_version() {
        let converted = registry.converted(gvr, vec![object.clone()]).await;
        return converted.map(|mut o| o.pop().map(Cow::Owned)).map_err(|e| format!("failed to convert object version: {}", e.message));
    }
    match resource.served.get(version) {
        Some(served) if resource.definition().is_none() && resource.gvr != *gvr => {
            let mut converted = object.clone();
            served.conversion.to_served(&mut converted);
            converted["apiVersion"] = Value::from(served.api_version.clone());
            Ok(Some(Cow::Owned(converted)))
        }
        _ => Ok(Some(Cow::Borrowed(object))),
    }
}
