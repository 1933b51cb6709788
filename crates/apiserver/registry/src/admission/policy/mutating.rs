//! MutatingAdmissionPolicy: apply configurations and JSON patches that expressions make.
//!
//! Of the object as a policy left it defaults are set again. Policies with `reinvocationPolicy: IfNeeded` are asked once more where the object has
//! changed since they saw it: by later policies, by webhooks, or by the built-in plugins that run again then.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_cel::{List, REQUEST_LIMIT, StructVal, Val};
use tiphys_meta::{ApiError, Cause};
use tiphys_schema::apply;
use tiphys_schema::codec::{Strictness, json as codec};
use tiphys_schema::patch;

use super::compiled::Mutation;
use super::{Bound, bound, concerned, in_version, namespace, params, review};
use crate::admission::{Attributes, Plugin};
use crate::conditions::{Inputs, Scope};
use crate::registry::Registry;
use crate::resource::Model;
use crate::verbs::rules::{after_webhooks, other_kind};

pub(in crate::admission) struct MutatingAdmissionPolicy;

const RESOURCES: (&str, &str) = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");

#[async_trait]
impl Plugin for MutatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        concerned(attributes)
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
        let (all, wrong) = bound(registry, RESOURCES, attributes, Some(object), old);
        if all.is_empty() && wrong.is_empty() {
            return Ok(());
        }
        let mut errors: Vec<String> = Vec::new();
        for one in wrong.into_iter().filter(|w| !w.policy.fails_open) {
            errors.push(format!("policy {:?} denied request: {}", one.policy.name, one.why));
        }
        let namespace = if all.is_empty() { None } else { namespace(registry, attributes)? };
        let round = Round { registry, attributes, namespace: namespace.as_ref(), old };
        let mut seen: Vec<Option<Value>> = vec![None; all.len()];
        for again in [attributes.reinvoked(), true] {
            let before = object.clone();
            for (bound, seen) in all.iter().zip(&mut seen) {
                let needed = !again || (bound.policy.reinvoked && seen.as_ref() != Some(object));
                if needed {
                    errors.extend(round.run(bound, object).await);
                    *seen = Some(object.clone());
                }
            }
            // One round more for those before, and only if somebody changed something.
            if before == *object {
                break;
            }
            attributes.note_change();
        }
        refuse(attributes, errors)
    }
}

fn refuse(attributes: &Attributes<'_>, errors: Vec<String>) -> Result<(), ApiError> {
    let Some(first) = errors.first() else { return Ok(()) };
    let mut error = attributes.forbidden("admission request denied by policy");
    error.reason = tiphys_meta::Reason::Invalid;
    error.message.clone_from(first);
    error.causes.extend(errors.iter().map(|message| Cause { reason: String::new(), message: message.clone(), field: String::new() }));
    Err(error)
}

struct Round<'r> {
    registry: &'r Registry,
    attributes: &'r Attributes<'r>,
    namespace: Option<&'r Value>,
    old: Option<&'r Value>,
}

impl Round<'_> {
    /// Changes the object as a policy wants it with one binding. Errors of policies that fail open are left out.
    async fn run(&self, bound: &Bound, object: &mut Value) -> Vec<String> {
        let mut errors = Vec::new();
        let params = match params::collect(self.registry, bound, self.attributes.namespace) {
            Ok(params) => params,
            Err(why) => {
                errors.push(format!("failed to configure binding: {why}"));
                Vec::new()
            }
        };
        for param in &params {
            if let Err(why) = self.run_with(bound, param.as_ref(), object).await {
                errors.push(why);
            }
        }
        if bound.policy.fails_open {
            return Vec::new();
        }
        let (policy, binding) = (&bound.policy.name, bound.binding_name());
        errors.into_iter().map(|why| format!("policy '{policy}' with binding '{binding}' denied request: {why}")).collect()
    }

    async fn run_with(&self, bound: &Bound, param: Option<&Value>, object: &mut Value) -> Result<(), String> {
        let options = self.attributes.options();
        let review = review(self.attributes, bound, &options);
        let request = review.to_value();
        let old = in_version(self.registry, &bound.gvr, self.old).await?;
        let mut failed = Ok(());
        for (i, mutation) in bound.policy.mutations.iter().enumerate() {
            let current = in_version(self.registry, &bound.gvr, Some(object)).await?.ok_or("the object is gone")?.into_owned();
            let inputs = Inputs {
                object: Some(&current),
                old: old.as_deref(),
                params: param,
                request: &request,
                namespace: self.namespace,
                authorizer: review.asked(self.registry.authorizer()),
            };
            if i == 0 && !bound.policy.conditions.is_empty() && !bound.policy.conditions.hold_in(&inputs, &bound.policy.variables)? {
                return Ok(());
            }
            let patched = match self.made(bound, mutation, &inputs, &current) {
                Ok(patched) => self.restored(bound, patched).await,
                Err(why) => Err(why),
            };
            match patched {
                Ok(patched) => *object = patched,
                // The mutations after a failed one are made all the same.
                Err(why) => failed = failed.and(Err(why)),
            }
        }
        failed
    }

    /// The object with the change that an expression makes, in the version that the policy knows.
    fn made(&self, bound: &Bound, mutation: &Mutation, inputs: &Inputs<'_>, object: &Value) -> Result<Value, String> {
        let scope = Scope::new(inputs, &bound.policy.variables, REQUEST_LIMIT);
        let made = scope.eval(&mutation.expression, &mutation.program).and_then(|made| made)?;
        if mutation.json_patch {
            return json_patched(object, &made);
        }
        let Val::Struct(made) = made else { return Err("unsupported return type from ApplyConfiguration expression".into()) };
        check_names(&made, "Object").map_err(|why| format!("type mismatch: {why}"))?;
        let mut config = Val::Struct(made).to_json().map_err(|e| e.to_string())?;
        config["apiVersion"] = object.get("apiVersion").cloned().unwrap_or_default();
        config["kind"] = object.get("kind").cloned().unwrap_or_default();
        let (resource, version) = self.registry.resources.find(&bound.gvr).ok_or("the resource is gone")?;
        let schema = match other_kind(&resource, object) {
            Some(kind) => apply::Schema::Kind(kind),
            None => resource.served.get(version).ok_or("the version is gone")?.schema(),
        };
        apply::merge_config(&schema, object, &config).map_err(|why| format!("error applying patch: {why}"))
    }

    /// A changed object in the version of the request, in canonical form and with its defaults.
    async fn restored(&self, bound: &Bound, patched: Value) -> Result<Value, String> {
        let (resource, version) = self.registry.resources.find(&bound.gvr).ok_or("the resource is gone")?;
        let served = resource.served.get(version).ok_or("the version is gone")?;
        let own = self.attributes.gvr;
        match &served.model {
            _ if other_kind(&resource, &patched).is_some() => after_webhooks(&resource, version, patched).map_err(|e| e.message),
            Model::Builtin(kind, _) => {
                let mut object = codec::canonicalize(kind, patched, Strictness::Ignore).map_err(|e| e.to_string())?.object;
                served.conversion.to_stored(&mut object);
                object["apiVersion"] = Value::from(resource.gvr.api_version());
                resource.strategy.default(&mut object);
                Ok(object)
            }
            Model::Custom(_) => {
                let patched = after_webhooks(&resource, version, patched).map_err(|e| e.message)?;
                let mut back = self.registry.converted(own, vec![patched]).await.map_err(|e| e.message)?;
                back.pop().ok_or_else(|| "an object was lost in conversion".into())
            }
        }
    }
}

fn json_patched(object: &Value, made: &Val<'_>) -> Result<Value, String> {
    let Val::List(operations) = made else { return Err("type mismatch: JSONPatchType.expression should evaluate to array".into()) };
    let operations = operations_of(operations)?;
    let bytes = serde_json::to_vec(&operations).map_err(|e| e.to_string())?;
    let (operations, _) = patch::parse_json_patch(&bytes).map_err(|e| format!("JSON Patch: {e}"))?;
    let mut patched = object.clone();
    match patch::json(&mut patched, &operations) {
        Ok(()) => Ok(patched),
        // A test that fails means that the patch is not wanted.
        Err(error) if error.is_failed_test() => Ok(object.clone()),
        Err(error) => Err(format!("JSON Patch: {error}")),
    }
}

fn operations_of(list: &List<'_>) -> Result<Value, String> {
    let mut operations = Vec::new();
    for item in list.iter() {
        let Val::Struct(operation) = &item else {
            return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into());
        };
        let mut made = serde_json::Map::new();
        for (name, value) in &operation.fields {
            if let Val::Struct(inner) = value {
                check_names(inner, "Object").or_else(|why| if inner.name.starts_with("Object.") { Ok(()) } else { Err(why) })?;
            }
            let json =
                value.to_json().map_err(|e| format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {e}"))?;
            // Empty is as if it were not there, which `from` is mostly.
            if !(&**name == "from" && json == "") {
                made.insert(name.to_string(), json);
            }
        }
        operations.push(Value::Object(made));
    }
    Ok(Value::Array(operations))
}

/// Objects below a field are of the type named after it: `Object.spec.template`. Lists and maps between have no name.
fn check_names(object: &StructVal<'_>, expected: &str) -> Result<(), String> {
    if &*object.name != expected {
        return Err(format!(
            "unexpected type name {:?}, expected {expected:?}, which matches field name path from root Object type",
            &*object.name
        ));
    }
    object.fields.iter().try_for_each(|(name, value)| check_value(value, &format!("{expected}.{name}")))
}

fn check_value(value: &Val<'_>, expected: &str) -> Result<(), String> {
    match value {
        Val::Struct(inner) => check_names(inner, expected),
        Val::List(List::Values(items)) => items.iter().try_for_each(|item| check_value(item, expected)),
        Val::Map(tiphys_cel::Map::Values(entries)) => entries.values().try_for_each(|item| check_value(item, expected)),
        _ => Ok(()),
    }
}
