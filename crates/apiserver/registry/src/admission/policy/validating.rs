//! ValidatingAdmissionPolicy.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_cel::{REQUEST_LIMIT, Val};
use tiphys_meta::{ApiError, Cause, Reason};

use super::compiled::{Policy, Validation};
use super::{Bound, bound, concerned, in_version, namespace, params, review};
use crate::admission::tree::list;
use crate::admission::{Attributes, Plugin};
use crate::conditions::{Inputs, Scope};
use crate::registry::Registry;

pub(in crate::admission) struct ValidatingAdmissionPolicy;

const RESOURCES: (&str, &str) = ("validatingadmissionpolicies", "validatingadmissionpolicybindings");
const MAX_MESSAGE: usize = 5 * 1024;

/// Why a request is refused, by which policy and binding.
struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: String,
}

#[async_trait]
impl Plugin for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        concerned(attributes)
    }

    async fn validate(
        &self,
        registry: &Arc<Registry>,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let (all, wrong) = bound(registry, RESOURCES, attributes, object, old);
        if all.is_empty() && wrong.is_empty() {
            return Ok(());
        }
        let mut denials: Vec<Denial> = Vec::new();
        for one in wrong.into_iter().filter(|w| !w.policy.fails_open) {
            denials.push(Denial { policy: one.policy.name.clone(), binding: None, message: one.why, reason: String::new() });
        }
        let namespace = if all.is_empty() { None } else { namespace(registry, attributes)? };
        for bound in &all {
            judge(registry, attributes, bound, (object, old), namespace.as_ref(), &mut denials);
        }
        denials.into_iter().next().map_or(Ok(()), |denial| Err(refusal(attributes, &denial)))
    }
}

fn refusal(attributes: &Attributes<'_>, denial: &Denial) -> ApiError {
    let Denial { policy, binding, message, reason } = denial;
    let by = binding.as_ref().map(|b| format!(" with binding '{b}'")).unwrap_or_default();
    let message = format!("ValidatingAdmissionPolicy '{policy}'{by} denied request: {message}");
    let mut error = attributes.forbidden(&message);
    error.reason = if reason.is_empty() { Reason::Invalid } else { Reason::from_name(reason) };
    error.code = match reason.as_str() {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    error.causes.push(Cause { reason: String::new(), message, field: String::new() });
    error
}

/// What a policy says with one binding: denials, or warnings where the binding wants them.
fn judge(
    registry: &Registry,
    attributes: &Attributes<'_>,
    bound: &Bound,
    (object, old): (Option<&Value>, Option<&Value>),
    namespace: Option<&Value>,
    denials: &mut Vec<Denial>,
) {
    let denial = |message: String, reason: &str| Denial {
        policy: bound.policy.name.clone(),
        binding: Some(bound.binding_name().to_owned()),
        message,
        reason: reason.to_owned(),
    };
    let params = match params::collect(registry, bound, attributes.namespace) {
        Ok(params) => params,
        Err(why) if !bound.policy.fails_open => return denials.push(denial(format!("failed to configure binding: {why}"), "")),
        Err(_) => return,
    };
    let actions = list(&bound.binding["spec"], "validationActions");
    let review = review(attributes, bound);
    let request = review.to_value();
    let (object, old) = (in_version(registry, &bound.gvr, object), in_version(registry, &bound.gvr, old));
    for param in &params {
        let inputs = Inputs {
            object: object.as_deref(),
            old: old.as_deref(),
            params: param.as_ref(),
            request: &request,
            namespace,
            authorizer: review.asked(registry.authorizer()),
        };
        let (failures, forced) = run(&bound.policy, &inputs);
        for Failure { message, reason } in failures {
            if actions.iter().any(|a| a == "Warn") {
                let (policy, binding) = (&bound.policy.name, bound.binding_name());
                let warning = format!("Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}");
                attributes.warnings.lock().push(warning);
            }
            if actions.iter().any(|a| a == "Deny") {
                denials.push(denial(message, &reason));
            }
        }
        denials.extend(forced.into_iter().map(|message| denial(message, "")));
    }
}

struct Failure {
    message: String,
    reason: String,
}

/// What fails, and errors of annotations, which deny whatever the binding's actions are.
fn run(policy: &Policy, inputs: &Inputs<'_>) -> (Vec<Failure>, Vec<String>) {
    let error = |message: String| if policy.fails_open { Vec::new() } else { vec![Failure { message, reason: String::new() }] };
    if !policy.conditions.is_empty() {
        match policy.conditions.hold_in(inputs, &policy.variables) {
            Ok(true) => {}
            Ok(false) => return (Vec::new(), Vec::new()),
            Err(why) => return (error(why), Vec::new()),
        }
    }
    let scope = Scope::new(inputs, &policy.variables, REQUEST_LIMIT);
    let mut verdicts = Vec::new();
    for validation in &policy.validations {
        match scope.eval(&validation.expression, &validation.program) {
            Ok(verdict) => verdicts.push((validation, verdict)),
            Err(why) => return (error(why), Vec::new()),
        }
    }
    let messages = Scope::new(inputs, &policy.variables, scope.remaining());
    let mut failures = Vec::new();
    for (validation, verdict) in verdicts {
        match verdict {
            Ok(Val::Bool(true)) => {}
            Ok(_) => failures.push(Failure { message: message(validation, &messages), reason: validation.reason.clone() }),
            Err(why) => failures.extend(error(why)),
        }
    }
    (failures, annotations(policy, inputs))
}

fn message(validation: &Validation, scope: &Scope<'_, '_>) -> String {
    if let Some((expression, program)) = &validation.message_expression
        && let Ok(Ok(Val::Str(message))) = scope.eval(expression, program)
    {
        let message = message.trim();
        if !message.is_empty() && message.len() <= MAX_MESSAGE && !message.contains('\n') {
            return message.to_owned();
        }
    }
    if validation.message.is_empty() { format!("failed expression: {}", validation.expression.trim()) } else { validation.message.clone() }
}

/// Errors of audit annotations. Their values are for the audit log, which does not take any yet.
fn annotations(policy: &Policy, inputs: &Inputs<'_>) -> Vec<String> {
    let scope = Scope::new(inputs, &policy.variables, REQUEST_LIMIT);
    let mut errors = Vec::new();
    for (expression, program) in &policy.annotations {
        match scope.eval(expression, program) {
            Ok(Ok(Val::Str(_) | Val::Null)) => {}
            Ok(Ok(_)) => errors.push(format!("valueExpression '{expression}' resulted in unsupported return type")),
            Ok(Err(why)) | Err(why) if !policy.fails_open => errors.push(why),
            _ => {}
        }
    }
    errors
}
