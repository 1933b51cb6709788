//! ValidatingAdmissionPolicy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tiphys_cel::{REQUEST_LIMIT, Val};
use tiphys_meta::{ApiError, Cause, Reason};
use tokio::time::Instant;

use super::compiled::{Annotation, Policy, Validation};
use super::{Bound, bound, concerned, in_version, namespace, params, review};
use crate::admission::tree::list;
use crate::admission::{Attributes, Plugin};
use crate::conditions::{Inputs, Scope};
use crate::meters::Meters;
use crate::registry::Registry;

pub(in crate::admission) struct ValidatingAdmissionPolicy;

const RESOURCES: (&str, &str) = ("validatingadmissionpolicies", "validatingadmissionpolicybindings");
const MAX_MESSAGE: usize = 5 * 1024;
const MAX_ANNOTATION: usize = 10 * 1024;
/// Where the audit log has failures that a binding wants there.
const FAILURE_NOTE: &str = "validation.policy.admission.k8s.io/validation_failure";

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
        let (all, wrong) = bound(registry, RESOURCES, attributes, object, old);
        if all.is_empty() && wrong.is_empty() {
            return Ok(());
        }
        let mut findings = Findings::default();
        for one in wrong.into_iter().filter(|w| !w.policy.fails_open) {
            findings.denials.push(Denial { policy: one.policy.name.clone(), binding: None, message: one.why, reason: String::new() });
        }
        let namespace = if all.is_empty() { None } else { namespace(registry, attributes)? };
        for bound in &all {
            judge(registry, attributes, bound, (object, old), namespace.as_ref(), &mut findings).await;
        }
        for (key, values) in findings.annotations {
            attributes.notes.add(|| key, || values.join(", "));
        }
        findings.denials.into_iter().next().map_or(Ok(()), |denial| Err(refusal(attributes, &denial)))
    }
}

/// What all policies come to.
#[derive(Default)]
struct Findings {
    denials: Vec<Denial>,
    /// For the audit log: distinct values of the bindings and parameters by `POLICY/KEY`.
    annotations: BTreeMap<String, Vec<String>>,
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

/// What a policy says with one binding: denials, warnings and words for the audit log, as the binding wants them.
async fn judge(
    registry: &Registry,
    attributes: &Attributes<'_>,
    bound: &Bound,
    (object, old): (Option<&Value>, Option<&Value>),
    namespace: Option<&Value>,
    findings: &mut Findings,
) {
    let converted = async {
        let params = params::collect(registry, bound, attributes.namespace)?;
        Ok::<_, String>((params, in_version(registry, &bound.gvr, object).await?, in_version(registry, &bound.gvr, old).await?))
    };
    let (params, object, old) = match converted.await {
        Ok(all) => all,
        Err(why) if !bound.policy.fails_open => {
            return findings.denials.push(denial(bound, format!("failed to configure binding: {why}"), ""));
        }
        Err(_) => return,
    };
    let options = attributes.options();
    let review = review(attributes, bound, &options);
    let request = review.to_value();
    for param in &params {
        let inputs = Inputs {
            object: object.as_deref(),
            old: old.as_deref(),
            params: param.as_ref(),
            request: &request,
            namespace,
            authorizer: review.asked(registry.authorizer()),
        };
        let begun = Instant::now();
        let Verdict { failures, annotations, forced } = run(&bound.policy, &inputs);
        count(&registry.meters, bound, begun.elapsed(), failures.is_empty() && forced.is_empty());
        failures.into_iter().for_each(|failure| tell(attributes, bound, failure, findings));
        findings.denials.extend(forced.into_iter().map(|message| denial(bound, message, "")));
        for (key, value) in annotations {
            let values = findings.annotations.entry(format!("{}/{key}", bound.policy.name)).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
}

/// What a policy did with a request, for the metrics.
fn count(meters: &Meters, bound: &Bound, took: Duration, allowed: bool) {
    meters.evaluated.observe(took);
    let (policy, binding) = (&bound.policy.name, bound.binding_name());
    if allowed {
        return meters.policy(policy, binding, "allow", took);
    }
    for action in list(&bound.binding["spec"], "validationActions").iter().filter_map(Value::as_str) {
        meters.policy(policy, binding, &action.to_ascii_lowercase(), took);
    }
}

fn denial(bound: &Bound, message: String, reason: &str) -> Denial {
    let (policy, binding) = (bound.policy.name.clone(), Some(bound.binding_name().to_owned()));
    Denial { policy, binding, message, reason: reason.to_owned() }
}

/// Does with a failure what the binding wants done (`validationActions`).
fn tell(attributes: &Attributes<'_>, bound: &Bound, failure: Failure, findings: &mut Findings) {
    let actions = list(&bound.binding["spec"], "validationActions");
    let wants = |action: &str| actions.iter().any(|a| a == action);
    let (policy, binding) = (&*bound.policy.name, bound.binding_name());
    if wants("Audit") {
        let value = Noted { message: &failure.message, policy, binding, expression_index: failure.index, validation_actions: actions };
        attributes.notes.add(|| FAILURE_NOTE.to_owned(), || serde_json::to_string(&[value]).unwrap_or_default());
    }
    if wants("Warn") {
        let message = &failure.message;
        let warning = format!("Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}");
        attributes.warnings.lock().push(warning);
    }
    if wants("Deny") {
        findings.denials.push(denial(bound, failure.message, &failure.reason));
    }
}

/// A failure as the audit log has it, in upstream's order.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Noted<'a> {
    message: &'a str,
    policy: &'a str,
    binding: &'a str,
    expression_index: usize,
    validation_actions: &'a [Value],
}

struct Failure {
    /// The validation's place in the policy.
    index: usize,
    message: String,
    reason: String,
}

#[derive(Default)]
struct Verdict {
    failures: Vec<Failure>,
    /// Audit annotations by their keys.
    annotations: Vec<(String, String)>,
    /// Errors of annotations, which deny whatever the binding's actions are.
    forced: Vec<String>,
}

fn run(policy: &Policy, inputs: &Inputs<'_>) -> Verdict {
    let error = |index: usize, message: String| {
        let failure = (!policy.fails_open).then(|| Failure { index, message, reason: String::new() });
        Verdict { failures: failure.into_iter().collect(), ..Verdict::default() }
    };
    if !policy.conditions.is_empty() {
        match policy.conditions.hold_in(inputs, &policy.variables) {
            Ok(true) => {}
            Ok(false) => return Verdict::default(),
            Err(why) => return error(0, why),
        }
    }
    let scope = Scope::new(inputs, &policy.variables, REQUEST_LIMIT);
    let mut verdicts = Vec::new();
    for validation in &policy.validations {
        match scope.eval(&validation.expression, &validation.program) {
            Ok(verdict) => verdicts.push((validation, verdict)),
            Err(why) => return error(0, why),
        }
    }
    let messages = Scope::new(inputs, &policy.variables, scope.remaining());
    let mut failures = Vec::new();
    for (index, (validation, verdict)) in verdicts.into_iter().enumerate() {
        match verdict {
            Ok(Val::Bool(true)) => {}
            Ok(_) => failures.push(Failure { index, message: message(validation, &messages), reason: validation.reason.clone() }),
            Err(why) => failures.extend(error(index, why).failures),
        }
    }
    let (annotations, forced) = annotations(policy, inputs);
    Verdict { failures, annotations, forced }
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

/// Audit annotations by their keys, and errors of those that have none.
fn annotations(policy: &Policy, inputs: &Inputs<'_>) -> (Vec<(String, String)>, Vec<String>) {
    let scope = Scope::new(inputs, &policy.variables, REQUEST_LIMIT);
    let (mut annotations, mut errors) = (Vec::new(), Vec::new());
    for Annotation { key, expression, program } in &policy.annotations {
        match scope.eval(expression, program) {
            Ok(Ok(Val::Str(value))) => {
                let value = first_bytes(value.trim(), MAX_ANNOTATION);
                annotations.extend((!value.is_empty()).then(|| (key.clone(), value.to_owned())));
            }
            Ok(Ok(Val::Null)) => {}
            Ok(Ok(_)) => errors.push(format!("valueExpression '{expression}' resulted in unsupported return type")),
            Ok(Err(why)) | Err(why) if !policy.fails_open => errors.push(why),
            _ => {}
        }
    }
    (annotations, errors)
}

/// At most so many bytes, and no half letters.
fn first_bytes(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}
