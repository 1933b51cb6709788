//! From what pods use to how many there should be.
//!
//! Pods that are not ready, or of which nothing is known, are taken for the worst against a change: as using nothing when there should be more,
//! as using all they may when there should be fewer. A change that this turns round is not made.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use tiphys_types::api::core::v1::{Container, Pod};
use tiphys_types::{pods, resources};

/// `--horizontal-pod-autoscaler-cpu-initialization-period` and `--horizontal-pod-autoscaler-initial-readiness-delay`.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// One pod's use of a resource, in thousandths.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub(super) value: i64,
    pub(super) at: Timestamp,
    pub(super) window: SignedDuration,
}

pub(super) type Samples = BTreeMap<String, Sample>;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// Percent of what is requested.
    Utilization(i32),
    /// Thousandths, on the average of all pods.
    Average(i64),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerance {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl Tolerance {
    fn allows(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    pub(super) utilization: Option<i32>,
    pub(super) average: i64,
}

pub(super) struct Question<'a> {
    pub(super) current: i32,
    pub(super) target: Target,
    pub(super) resource: &'a str,
    /// Empty: the whole pod.
    pub(super) container: &'a str,
    pub(super) tolerance: Tolerance,
    pub(super) now: Timestamp,
}

#[derive(Default)]
struct Groups<'a> {
    ready: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

pub(super) fn propose(question: &Question<'_>, selected: &[&Pod], mut samples: Samples) -> Result<Proposal, String> {
    if selected.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let groups = group(question, selected, &samples);
    samples.retain(|name, _| !groups.ignored.contains(name.as_str()) && !groups.unready.contains(name.as_str()));
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let requests = match question.target {
        Target::Utilization(_) => requests(question, selected)?,
        Target::Average(_) => BTreeMap::new(),
    };
    let (ratio, utilization, average) = usage(question.target, &samples, &requests)?;
    let answer = |replicas| Ok(Proposal { replicas, utilization, average });
    let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !up_with_unready && groups.missing.is_empty() {
        let replicas = if question.tolerance.allows(ratio) { question.current } else { up(ratio, groups.ready) };
        return answer(replicas);
    }
    let fill = |value: i64| Sample { value, at: question.now, window: SignedDuration::ZERO };
    for name in &groups.missing {
        let worst = match question.target {
            Target::Utilization(percent) => requests.get(*name).copied().unwrap_or(0) * i64::from(percent.max(100)) / 100,
            Target::Average(target) => target,
        };
        if ratio < 1.0 {
            samples.insert((*name).to_owned(), fill(worst));
        } else if ratio > 1.0 {
            samples.insert((*name).to_owned(), fill(0));
        }
    }
    if up_with_unready {
        samples.extend(groups.unready.iter().map(|name| ((*name).to_owned(), fill(0))));
    }
    let (again, ..) = usage(question.target, &samples, &requests)?;
    let replicas = up(again, samples.len());
    let turned = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
    let against = (again < 1.0 && replicas > question.current) || (again > 1.0 && replicas < question.current);
    answer(if question.tolerance.allows(again) || turned || against { question.current } else { replicas })
}

fn up(ratio: f64, pods: usize) -> i32 {
    (ratio * pods as f64).ceil() as i32
}

/// Ratio to the target, the utilization in percent, and the average.
fn usage(target: Target, samples: &Samples, requests: &BTreeMap<&str, i64>) -> Result<(f64, Option<i32>, i64), String> {
    let total: i64 = samples.values().map(|s| s.value).sum();
    match target {
        Target::Average(wanted) => {
            let average = total / i64::try_from(samples.len().max(1)).unwrap_or(i64::MAX);
            Ok((average as f64 / wanted as f64, None, average))
        }
        Target::Utilization(wanted) => {
            let known: Vec<(i64, i64)> = samples.iter().filter_map(|(n, s)| Some((s.value, *requests.get(n.as_str())?))).collect();
            let (used, requested) = known.iter().fold((0, 0), |(u, r), (a, b)| (u + a, r + b));
            if requested == 0 {
                return Err("no metrics returned matched known pods".into());
            }
            let utilization = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
            Ok((f64::from(utilization) / f64::from(wanted), Some(utilization), used / known.len() as i64))
        }
    }
}

fn group<'a>(question: &Question<'_>, selected: &[&'a Pod], samples: &Samples) -> Groups<'a> {
    let mut groups = Groups::default();
    for pod in selected {
        let name = pod.metadata.name.as_deref().unwrap_or("");
        if pods::is_terminating(pod) || pods::phase(pod) == "Failed" {
            groups.ignored.insert(name);
        } else if pods::phase(pod) == "Pending" {
            groups.unready.insert(name);
        } else if let Some(sample) = samples.get(name) {
            if question.resource == resources::CPU && is_starting(pod, sample, question.now) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        } else {
            groups.missing.insert(name);
        }
    }
    groups
}

/// Whether what it uses of the processor tells only of its start.
fn is_starting(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let Some(status) = &pod.status else { return true };
    let (Some(ready), Some(started)) = (pods::condition(status, pods::READY), &status.start_time) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |t| t.0);
    let is_unready = ready.status == "False";
    if started.0 + CPU_INITIALIZATION > now {
        is_unready || sample.at < changed.saturating_add(sample.window).unwrap_or(changed)
    } else {
        // Never ready yet.
        is_unready && started.0 + INITIAL_READINESS > changed
    }
}

fn requests<'a>(question: &Question<'_>, selected: &[&'a Pod]) -> Result<BTreeMap<&'a str, i64>, String> {
    selected.iter().map(|pod| Ok((pod.metadata.name.as_deref().unwrap_or(""), request(question, pod)?))).collect()
}

fn request(question: &Question<'_>, pod: &Pod) -> Result<i64, String> {
    let name = pod.metadata.name.as_deref().unwrap_or("");
    let spec = pod.spec.as_ref();
    let whole = spec.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()).filter(|r| !r.is_empty());
    if question.container.is_empty() && whole.is_some() {
        let sum = resources::requests(pod);
        let amount = sum.get(question.resource).map(tiphys_meta::Quantity::milli);
        return amount.ok_or_else(|| format!("missing pod-level request for {} in Pod {name}", question.resource));
    }
    let sidecars = spec.into_iter().flat_map(|s| s.init_containers.iter().flatten()).filter(|c| resources::is_sidecar(c));
    let containers = spec.into_iter().flat_map(|s| &s.containers).chain(sidecars);
    let mut mine = containers.filter(|c| question.container.is_empty() || c.name == question.container).peekable();
    if mine.peek().is_none() && !question.container.is_empty() {
        return Err(format!("container {} not found in Pod {name}", question.container));
    }
    mine.try_fold(0, |sum, container| Ok(sum + request_of(question.resource, container, name)?))
}

fn request_of(resource: &str, container: &Container, pod: &str) -> Result<i64, String> {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let amount = requests.and_then(|r| r.get(resource)).map(|q| resources::quantity(q).milli());
    amount.ok_or_else(|| format!("missing request for {resource} in container {} of Pod {pod}", container.name))
}
