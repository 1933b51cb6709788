//! `podFailurePolicy` (KEP-3329) and `successPolicy` (KEP-3998).

use tiphys_types::api::batch::v1::{PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, SuccessPolicy};
use tiphys_types::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::indexes::{self, Indexes};

/// What a failed pod means for its job.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Count,
    Ignore,
    FailIndex,
    FailJob(String),
}

pub(super) fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let Some(policy) = policy else { return Verdict::Count };
    let status = pod.status.clone().unwrap_or_default();
    let (namespace, name) = (pod.metadata.namespace.as_deref().unwrap_or(""), pod.metadata.name.as_deref().unwrap_or(""));
    for (at, rule) in policy.rules.iter().enumerate() {
        let why = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => exited(&status, codes).map(|(container, code)| {
                format!("Container {container} for pod {namespace}/{name} failed with exit code {code} matching FailJob rule at index {at}")
            }),
            (None, Some(patterns)) => {
                let holds = |kind: &str, value: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == value);
                let found = patterns.iter().find(|p| holds(&p.type_, p.status.as_deref().unwrap_or("True")));
                found.map(|p| format!("Pod {namespace}/{name} has condition {} matching FailJob rule at index {at}", p.type_))
            }
            (None, None) => None,
        };
        if let Some(why) = why {
            return match rule.action.as_str() {
                "Ignore" => Verdict::Ignore,
                "FailIndex" => Verdict::FailIndex,
                "FailJob" => Verdict::FailJob(why),
                _ => Verdict::Count,
            };
        }
    }
    Verdict::Count
}

fn exited(status: &PodStatus, codes: &PodFailurePolicyOnExitCodesRequirement) -> Option<(String, i32)> {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let code = |c: &ContainerStatus| c.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code);
    let mut matching =
        all.filter(|c| codes.container_name.as_ref().is_none_or(|n| *n == c.name)).filter_map(|c| Some((c.name.clone(), code(c)?)));
    matching.find(|(_, code)| *code != 0 && codes.values.contains(code) == (codes.operator == "In"))
}

/// The sentence for the condition, if a rule is met.
pub(super) fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    for (at, rule) in policy?.rules.iter().enumerate() {
        let wanted = rule.succeeded_indexes.as_ref().map(|text| indexes::parse(text, completions));
        let among = wanted.as_ref().map_or(succeeded.len(), |w| w.intersection(succeeded).count());
        let met = match (rule.succeeded_count, &wanted) {
            (Some(count), _) => among >= usize::try_from(count).unwrap_or(0),
            (None, Some(wanted)) => among == wanted.len(),
            (None, None) => false,
        };
        if met {
            return Some(format!("Matched rules at index {at}"));
        }
    }
    None
}
