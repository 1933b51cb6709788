use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tiphys_client::{Action, Note, ObjectKey, Plan, Verb};
use tiphys_meta::quantity::Format;
use tiphys_meta::{Gvr, LabelSelector, Quantity};
use tiphys_types::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricStatus,
};
use tiphys_types::api::core::v1::{ObjectReference, Pod};
use tiphys_types::apimachinery::pkg::api::resource::Quantity as TypedQuantity;
use tiphys_types::metav1::Time;
use tiphys_types::resources;

use super::calc::{Proposal, Question, Samples, Target, Tolerance, propose};
use super::limits::{Bounds, History, Limited, limit};
use crate::shared::pod::about;

/// `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;

/// What is to be scaled, as its `scale` subresource says.
pub(super) struct Scale {
    pub(super) gvr: Gvr,
    pub(super) object: Value,
}

impl Scale {
    fn replicas(&self) -> i32 {
        self.object["spec"]["replicas"].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0)
    }

    pub(super) fn selector(&self) -> &str {
        self.object["status"]["selector"].as_str().unwrap_or("")
    }
}

pub(super) struct Observed {
    pub(super) autoscaler: Arc<HorizontalPodAutoscaler>,
    pub(super) scale: Result<Scale, String>,
    /// What the selected pods use: one answer for each metric of the spec.
    pub(super) samples: Vec<Result<Samples, String>>,
    pub(super) pods: Vec<Arc<Pod>>,
}

struct Draft<'a> {
    autoscaler: &'a HorizontalPodAutoscaler,
    me: ObjectReference,
    status: HorizontalPodAutoscalerStatus,
    now: Timestamp,
}

pub(super) fn plan(observed: &Observed, history: &mut History, now: Timestamp) -> Plan {
    let autoscaler = &*observed.autoscaler;
    let mut plan = Plan::default();
    let status = autoscaler.status.clone().unwrap_or_default();
    let mut draft = Draft { autoscaler, me: about(autoscaler), status, now };
    let scale = match &observed.scale {
        Ok(scale) => scale,
        Err(error) => {
            plan.note(Note::warning(&draft.me, "FailedGetScale", error.clone()));
            draft.say(
                "AbleToScale",
                "False",
                "FailedGetScale",
                &format!("the HPA controller was unable to get the target's current scale: {error}"),
            );
            draft.write(&mut plan);
            return plan;
        }
    };
    draft.say("AbleToScale", "True", "SucceededGetScale", "the HPA controller was able to get the target's current scale");
    let current = scale.replicas();
    history.begin(current, now);
    draft.status.current_replicas = Some(current);
    if let Some((wanted, reason)) = draft.decide(observed, scale, history, &mut plan) {
        draft.status.desired_replicas = wanted;
        if wanted != current {
            draft.rescale(scale, wanted, &reason, &mut plan);
            history.changed(wanted - current, now);
        }
    }
    draft.write(&mut plan);
    plan
}

impl Draft<'_> {
    /// How many there should be and why; none where nothing can be said.
    fn decide(&mut self, observed: &Observed, scale: &Scale, history: &mut History, plan: &mut Plan) -> Option<(i32, String)> {
        let spec = &self.autoscaler.spec;
        let bounds = Bounds { min: spec.min_replicas.unwrap_or(1), max: spec.max_replicas, current: scale.replicas() };
        if bounds.current == 0 {
            self.say("ScalingActive", "False", "ScalingDisabled", "scaling is disabled since the replica count of the target is zero");
            return Some((0, String::new()));
        }
        if bounds.current > bounds.max {
            return Some((bounds.max, "Current number of replicas above Spec.MaxReplicas".into()));
        }
        if bounds.current < bounds.min {
            return Some((bounds.min, "Current number of replicas below Spec.MinReplicas".into()));
        }
        let (proposed, metric) = self.by_metrics(observed, scale, plan)?;
        let Limited { replicas, stabilized, limited } = limit(proposed, bounds, spec.behavior.as_ref(), history, self.now);
        let (reason, message) = stabilized.unwrap_or(("ReadyForNewScale", "recommended size matches current size"));
        self.say("AbleToScale", "True", reason, message);
        match limited {
            Some((reason, message)) => self.say("ScalingLimited", "True", reason, message),
            None => self.say("ScalingLimited", "False", "DesiredWithinRange", "the desired count is within the acceptable range"),
        }
        let why = if proposed > bounds.current { format!("{metric} above target") } else { "All metrics below target".into() };
        Some((replicas, why))
    }

    /// The highest that any metric asks for. Where one cannot be read, the others may still ask for more, but not for fewer.
    fn by_metrics(&mut self, observed: &Observed, scale: &Scale, plan: &mut Plan) -> Option<(i32, String)> {
        let selector = match scale.selector() {
            "" => {
                plan.note(Note::warning(&self.me, "SelectorRequired", "selector is required"));
                self.say("ScalingActive", "False", "InvalidSelector", "the HPA target's scale is missing a selector");
                return None;
            }
            text => LabelSelector::parse(text).ok()?,
        };
        let pods: Vec<&Pod> = observed.pods.iter().map(|p| &**p).filter(|p| selector.matches_map(p.metadata.labels.as_ref())).collect();
        let (mut best, mut statuses, mut failures) = (None::<(i32, String)>, Vec::new(), Vec::new());
        let metrics = self.autoscaler.spec.metrics.as_deref().unwrap_or_default();
        for (metric, samples) in metrics.iter().zip(&observed.samples) {
            match self.by_metric(metric, samples.clone(), scale.replicas(), &pods) {
                Ok((proposal, name, status)) => {
                    statuses.push(status);
                    if best.as_ref().is_none_or(|(n, _)| proposal.replicas > *n) {
                        best = Some((proposal.replicas, name));
                    }
                }
                Err((reason, error)) => {
                    plan.note(Note::warning(&self.me, reason, error.clone()));
                    failures.push((reason, error, words(metric)));
                }
            }
        }
        self.status.current_metrics = Some(statuses).filter(|s| !s.is_empty());
        let usable = best.filter(|(n, _)| failures.is_empty() || *n >= scale.replicas());
        let Some((replicas, name)) = usable else {
            let (reason, error, what) = failures.first().cloned()?;
            self.say("ScalingActive", "False", reason, &format!("the HPA was unable to compute the replica count: {error}"));
            let (bad, all) = (failures.len(), metrics.len());
            let text = format!("invalid metrics ({bad} invalid out of {all}), first error is: failed to get {what} metric value: {error}");
            plan.note(Note::warning(&self.me, "FailedComputeMetricsReplicas", text));
            return None;
        };
        let text = format!("the HPA was able to successfully calculate a replica count from {name}");
        self.say("ScalingActive", "True", "ValidMetricFound", &text);
        Some((replicas, name))
    }

    fn by_metric(
        &self,
        metric: &MetricSpec,
        samples: Result<Samples, String>,
        current: i32,
        pods: &[&Pod],
    ) -> Result<(Proposal, String, MetricStatus), (&'static str, String)> {
        let (resource, container, goal, reason) = match (&metric.resource, &metric.container_resource) {
            (Some(r), _) => (&r.name, "", &r.target, "FailedGetResourceMetric"),
            (None, Some(c)) => (&c.name, c.container.as_str(), &c.target, "FailedGetContainerResourceMetric"),
            (None, None) => return Err((other_reason(metric), samples.err().unwrap_or_default())),
        };
        let target = target_of(goal).map_err(|e| (reason, e))?;
        let noun = if matches!(target, Target::Utilization(_)) { "utilization" } else { "usage" };
        let failed = |e: String| (reason, format!("failed to get {resource} {noun}: {e}"));
        let samples = samples.map_err(|e| failed(format!("unable to get metrics for resource {resource}: {e}")))?;
        let question = Question { current, target, resource, container, tolerance: self.tolerance(), now: self.now };
        let proposal = propose(&question, pods, samples).map_err(failed)?;
        let name = match (target, container) {
            (Target::Average(_), _) => format!("{resource} resource"),
            (_, "") => format!("{resource} resource utilization (percentage of request)"),
            _ => format!("{resource} container resource utilization (percentage of request)"),
        };
        let status = status_of(metric, resource, container, &proposal);
        Ok((proposal, name, status))
    }

    fn tolerance(&self) -> Tolerance {
        let behavior = self.autoscaler.spec.behavior.as_ref();
        let own = |q: Option<&TypedQuantity>| q.map_or(TOLERANCE, |q| resources::quantity(q).as_f64());
        Tolerance {
            up: own(behavior.and_then(|b| b.scale_up.as_ref()).and_then(|r| r.tolerance.as_ref())),
            down: own(behavior.and_then(|b| b.scale_down.as_ref()).and_then(|r| r.tolerance.as_ref())),
        }
    }

    fn rescale(&mut self, scale: &Scale, wanted: i32, reason: &str, plan: &mut Plan) {
        let mut object = scale.object.clone();
        object["spec"]["replicas"] = json!(wanted);
        let text = |field: &str| scale.object["metadata"][field].as_str().unwrap_or("").to_owned();
        plan.act(Action {
            verb: Verb::Update { object, subresource: "scale" },
            gvr: scale.gvr.clone(),
            key: ObjectKey::new(&text("namespace"), &text("name")),
            done: Some(Note::normal(&self.me, "SuccessfulRescale", format!("New size: {wanted}; reason: {reason}"))),
            failed: Some(Note::warning(&self.me, "FailedRescale", format!("New size: {wanted}; reason: {reason}; error: {{error}}"))),
            settled_is_fine: false,
        });
        // If that fails this is what is left to say.
        let (autoscaler, mut status, now) = (self.autoscaler.clone(), self.status.clone(), self.now);
        status.desired_replicas = self.autoscaler.status.as_ref().map_or(0, |s| s.desired_replicas);
        plan.if_failed = Some(Box::new(move |error| {
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            set(&mut status, "AbleToScale", "False", "FailedUpdateScale", &message, now);
            vec![Action::update_status(&HorizontalPodAutoscaler { status: Some(status), ..autoscaler })]
        }));
        self.say("AbleToScale", "True", "SucceededRescale", &format!("the HPA controller was able to update the target scale to {wanted}"));
        self.status.last_scale_time = Some(Time(self.now));
    }

    fn say(&mut self, kind: &str, state: &str, reason: &str, message: &str) {
        set(&mut self.status, kind, state, reason, message, self.now);
    }

    fn write(self, plan: &mut Plan) {
        let next = HorizontalPodAutoscaler { status: Some(self.status), ..self.autoscaler.clone() };
        plan.update_status_if_changed(self.autoscaler, &next);
    }
}

fn set(status: &mut HorizontalPodAutoscalerStatus, kind: &str, state: &str, reason: &str, message: &str, now: Timestamp) {
    let all = status.conditions.get_or_insert_default();
    let since = all.iter().find(|c| c.type_ == kind && c.status == state).and_then(|c| c.last_transition_time.clone());
    let next = HorizontalPodAutoscalerCondition {
        type_: kind.into(),
        status: state.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(since.unwrap_or(Time(now))),
    };
    match all.iter_mut().find(|c| c.type_ == kind) {
        Some(there) => *there = next,
        None => all.push(next),
    }
}

fn target_of(target: &MetricTarget) -> Result<Target, String> {
    match (&target.average_value, target.average_utilization) {
        (Some(value), _) => Ok(Target::Average(resources::quantity(value).milli())),
        (None, Some(percent)) => Ok(Target::Utilization(percent)),
        (None, None) => {
            Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".into())
        }
    }
}

fn words(metric: &MetricSpec) -> String {
    match (&metric.resource, &metric.container_resource) {
        (Some(r), _) => format!("{} resource", r.name),
        (None, Some(c)) => format!("{} container", c.name),
        (None, None) => metric.type_.to_lowercase(),
    }
}

fn other_reason(metric: &MetricSpec) -> &'static str {
    match metric.type_.as_str() {
        "Object" => "FailedGetObjectMetric",
        "Pods" => "FailedGetPodsMetric",
        _ => "FailedGetExternalMetric",
    }
}

fn status_of(metric: &MetricSpec, resource: &str, container: &str, proposal: &Proposal) -> MetricStatus {
    let average = if resource == resources::MEMORY {
        Quantity::new(proposal.average / 1000, Format::BinarySi)
    } else {
        Quantity::from_milli(proposal.average)
    };
    let current = MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(TypedQuantity(average.to_string())),
        value: None,
    };
    let mut status = MetricStatus { type_: metric.type_.clone(), ..Default::default() };
    if container.is_empty() {
        status.resource = Some(ResourceMetricStatus { name: resource.into(), current });
    } else {
        status.container_resource = Some(ContainerResourceMetricStatus { name: resource.into(), container: container.into(), current });
    }
    status
}
