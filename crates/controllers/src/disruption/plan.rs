use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tiphys_client::{Note, Plan};
use tiphys_meta::intstr::Round;
use tiphys_types::api::core::v1::Pod;
use tiphys_types::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use tiphys_types::apimachinery::pkg::util::intstr::IntOrString;
use tiphys_types::metav1::{Condition, Time};
use tiphys_types::{pods, rollout};

use crate::shared::pod::about;

/// An eviction that was granted must show as a deletion within this time; then it is taken as not having happened.
pub(super) const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Owner {
    None,
    /// Gone, or another one of the same name.
    Unknown,
    Scale {
        uid: String,
        replicas: i32,
    },
}

pub(super) struct Observed {
    pub(super) budget: Arc<PodDisruptionBudget>,
    /// The pods that it selects, with their owners where they matter.
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) owners: Result<Vec<Owner>, String>,
}

/// Whether the owners' scales are what a budget is counted by.
pub(super) fn needs_owners(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    let minimum = spec.and_then(|s| s.min_available.as_ref());
    spec.is_some_and(|s| s.max_unavailable.is_some()) || matches!(minimum, Some(IntOrString::String(_)))
}

pub(super) fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let budget = &observed.budget;
    let me = about(&**budget);
    if observed.pods.is_empty() {
        plan.note(Note::normal(&me, "NoPods", "No matching pods found"));
    }
    let (expected, desired) = match expectations(observed, &mut plan) {
        Ok(counts) => counts,
        Err(error) => {
            plan.note(Note::warning(
                &me,
                "CalculateExpectedPodCountFailed",
                format!("Failed to calculate the number of expected pods: {error}"),
            ));
            let mut status = budget.status.clone().unwrap_or_default();
            status.disruptions_allowed = Some(0);
            set_condition(&mut status, "False", "SyncFailed", &error, now);
            write(budget, status, &mut plan);
            return plan;
        }
    };
    let (disrupted, recheck) = still_disrupted(observed, now, &mut plan);
    let healthy =
        observed.pods.iter().filter(|p| !pods::is_terminating(p) && !disrupted.contains_key(name(p)) && pods::is_ready(p)).count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    // A budget that matches nothing yet allows nothing: its first pods may come before it is looked at again.
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|d| !d.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: budget.status.as_ref().and_then(|s| s.conditions.clone()),
    };
    let (state, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_condition(&mut status, state, reason, "", now);
    write(budget, status, &mut plan);
    if let Some(delay) = recheck {
        plan.again_after(delay);
    }
    plan
}

fn write(budget: &PodDisruptionBudget, mut status: PodDisruptionBudgetStatus, plan: &mut Plan) {
    let old = budget.status.clone().unwrap_or_default();
    let numbers = |s: &PodDisruptionBudgetStatus| {
        [s.current_healthy, s.desired_healthy, s.expected_pods, s.disruptions_allowed].map(Option::unwrap_or_default)
    };
    let same = numbers(&old) == numbers(&status)
        && old.disrupted_pods.clone().unwrap_or_default() == status.disrupted_pods.clone().unwrap_or_default()
        && old.observed_generation == status.observed_generation
        && condition_of(&old).map(|c| (&c.status, &c.reason, &c.message))
            == condition_of(&status).map(|c| (&c.status, &c.reason, &c.message));
    if same {
        return;
    }
    for number in [&mut status.current_healthy, &mut status.desired_healthy, &mut status.expected_pods, &mut status.disruptions_allowed] {
        *number = Some(number.unwrap_or(0));
    }
    let next = PodDisruptionBudget { status: Some(status), ..budget.clone() };
    plan.act(tiphys_client::Action::update_status(&next));
}

fn condition_of(status: &PodDisruptionBudgetStatus) -> Option<&Condition> {
    status.conditions.iter().flatten().find(|c| c.type_ == ALLOWED)
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, state: &str, reason: &str, message: &str, now: Timestamp) {
    let since = condition_of(status).filter(|c| c.status == state).map_or(Time(now), |c| c.last_transition_time.clone());
    let next = Condition {
        type_: ALLOWED.into(),
        status: state.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since,
        observed_generation: status.observed_generation,
    };
    let all = status.conditions.get_or_insert_default();
    match all.iter_mut().find(|c| c.type_ == ALLOWED) {
        Some(there) => *there = next,
        None => all.push(next),
    }
}

/// `(expected pods, desired healthy)`
fn expectations(observed: &Observed, plan: &mut Plan) -> Result<(i32, i32), String> {
    let Some(spec) = observed.budget.spec.as_ref() else { return Ok((0, 0)) };
    let invalid = || "invalid value for IntOrString: invalid type: string is not a percentage".to_owned();
    if let Some(most) = &spec.max_unavailable {
        let expected = scale(observed, plan)?;
        let unavailable = rollout::scaled(most, expected, Round::Up).ok_or_else(invalid)?;
        return Ok((expected, (expected - unavailable).max(0)));
    }
    match &spec.min_available {
        Some(IntOrString::Int(least)) => Ok((i32::try_from(observed.pods.len()).unwrap_or(i32::MAX), *least)),
        Some(percentage) => {
            let expected = scale(observed, plan)?;
            Ok((expected, rollout::scaled(percentage, expected, Round::Up).ok_or_else(invalid)?))
        }
        None => Ok((0, 0)),
    }
}

/// The sum over all owners of what they mean to have.
fn scale(observed: &Observed, plan: &mut Plan) -> Result<i32, String> {
    let owners = observed.owners.as_ref().map_err(Clone::clone)?;
    let mut scales: HashMap<&str, i32> = HashMap::new();
    let mut unmanaged = false;
    for (pod, owner) in observed.pods.iter().zip(owners) {
        match owner {
            Owner::None => unmanaged = true,
            Owner::Unknown => return Err(format!("found no controllers for pod {:?}", name(pod))),
            Owner::Scale { uid, replicas } => {
                scales.insert(uid, *replicas);
            }
        }
    }
    if unmanaged {
        plan.note(Note::warning(
            &about(&*observed.budget),
            "UnmanagedPods",
            "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the PDB cannot be calculated \
             correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB \
             to an integer value.",
        ));
    }
    Ok(scales.values().sum())
}

/// Which granted evictions are still to be seen, and when the first of them is overdue.
fn still_disrupted(observed: &Observed, now: Timestamp, plan: &mut Plan) -> (BTreeMap<String, Time>, Option<Duration>) {
    let (mut still, mut recheck) = (BTreeMap::new(), None::<SignedDuration>);
    let budget = &observed.budget;
    let Some(disrupted) = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref()) else { return (still, None) };
    for pod in observed.pods.iter().filter(|p| !pods::is_terminating(p)) {
        let Some(since) = disrupted.get(name(pod)) else { continue };
        let left = since.0.duration_since(now) + DELETION_TIMEOUT;
        if left.is_negative() {
            let namespace = budget.metadata.namespace.as_deref().unwrap_or("");
            let text = format!(
                "Pod was expected by PDB {namespace}/{} to be deleted but it wasn't",
                budget.metadata.name.as_deref().unwrap_or("")
            );
            plan.note(Note::warning(&about(&**pod), "NotDeleted", text));
            continue;
        }
        recheck = Some(recheck.map_or(left, |r| r.min(left)));
        still.insert(name(pod).to_owned(), since.clone());
    }
    // A moment later, so that it is overdue then.
    (still, recheck.map(|left| left.unsigned_abs() + Duration::from_millis(10)))
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or("")
}
