//! How fast a number of replicas may change: between its bounds, not back and forth, and by the policies of `spec.behavior`.

use jiff::{SignedDuration, Timestamp};
use tiphys_types::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// `--horizontal-pod-autoscaler-downscale-stabilization`.
const STABILIZATION: i32 = 300;
/// Nothing looks further back (the longest period that the API admits is half an hour, the longest window an hour).
const MEMORY: SignedDuration = SignedDuration::from_hours(1);

/// What was proposed and done lately.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    proposals: Vec<(Timestamp, i32)>,
    /// Changes of the number, up and down.
    changes: Vec<(Timestamp, i32)>,
}

impl History {
    pub(super) fn begin(&mut self, current: i32, now: Timestamp) {
        if self.proposals.is_empty() {
            self.proposals.push((now, current));
        }
        self.proposals.retain(|(at, _)| now.duration_since(*at) < MEMORY);
        self.changes.retain(|(at, _)| now.duration_since(*at) < MEMORY);
    }

    pub(super) fn changed(&mut self, by: i32, now: Timestamp) {
        self.changes.push((now, by));
    }

    fn since(&self, seconds: i32, now: Timestamp) -> impl Iterator<Item = i32> {
        let cutoff = now - SignedDuration::from_secs(i64::from(seconds));
        self.proposals.iter().filter(move |(at, _)| *at > cutoff).map(|(_, n)| *n)
    }

    /// The number at the beginning of a period that ends now.
    fn at_start(&self, current: i32, seconds: i32, now: Timestamp) -> i32 {
        let cutoff = now - SignedDuration::from_secs(i64::from(seconds));
        current - self.changes.iter().filter(|(at, _)| *at > cutoff).map(|(_, by)| by).sum::<i32>()
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min: i32,
    pub(super) max: i32,
    pub(super) current: i32,
}

/// A reason and its words.
pub(super) type Why = (&'static str, &'static str);

pub(super) struct Limited {
    pub(super) replicas: i32,
    /// Some: an earlier proposal was applied instead.
    pub(super) stabilized: Option<Why>,
    pub(super) limited: Option<Why>,
}

const UP_STABILIZED: Why =
    ("ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation");
const DOWN_STABILIZED: Why =
    ("ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation");
const UP_LIMIT: Why = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Why = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: Why = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Why = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

pub(super) fn limit(
    proposed: i32,
    bounds: Bounds,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    history: &mut History,
    now: Timestamp,
) -> Limited {
    let (stable, why) = match behavior {
        None => (history.since(STABILIZATION, now).fold(proposed, i32::max), DOWN_STABILIZED),
        Some(behavior) => stabilize(proposed, bounds, behavior, history, now),
    };
    history.proposals.push((now, proposed));
    let (replicas, reason) = match behavior {
        None => plain(stable, bounds),
        Some(behavior) => by_policies(stable, bounds, behavior, history, now),
    };
    Limited { replicas, stabilized: (stable != proposed).then_some(why), limited: reason.filter(|_| replicas != stable) }
}

/// At most doubled, or four.
fn plain(wanted: i32, bounds: Bounds) -> (i32, Option<Why>) {
    let fastest = bounds.current.saturating_mul(2).max(4);
    let (most, why) = if bounds.max > fastest { (fastest, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
    if wanted < bounds.min {
        (bounds.min, Some(TOO_FEW))
    } else if wanted > most {
        (most, Some(why))
    } else {
        (wanted, None)
    }
}

fn window(rules: Option<&HPAScalingRules>, default: i32) -> i32 {
    rules.and_then(|r| r.stabilization_window_seconds).unwrap_or(default)
}

fn stabilize(proposed: i32, bounds: Bounds, behavior: &HorizontalPodAutoscalerBehavior, history: &History, now: Timestamp) -> (i32, Why) {
    let lowest = history.since(window(behavior.scale_up.as_ref(), 0), now).fold(proposed, i32::min);
    let highest = history.since(window(behavior.scale_down.as_ref(), STABILIZATION), now).fold(proposed, i32::max);
    let why = if proposed >= bounds.current { UP_STABILIZED } else { DOWN_STABILIZED };
    (bounds.current.max(lowest).min(highest), why)
}

fn by_policies(
    wanted: i32,
    bounds: Bounds,
    behavior: &HorizontalPodAutoscalerBehavior,
    history: &History,
    now: Timestamp,
) -> (i32, Option<Why>) {
    if wanted > bounds.current {
        let fastest = rate(bounds.current, behavior.scale_up.as_ref(), history, now, true).max(bounds.current);
        let (most, why) = if bounds.max > fastest { (fastest, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
        if wanted > most { (most, Some(why)) } else { (wanted, None) }
    } else if wanted < bounds.current {
        let fastest = rate(bounds.current, behavior.scale_down.as_ref(), history, now, false).min(bounds.current);
        let (least, why) = if bounds.min < fastest { (fastest, DOWN_LIMIT) } else { (bounds.min, TOO_FEW) };
        if wanted < least { (least, Some(why)) } else { (wanted, None) }
    } else {
        (wanted, None)
    }
}

/// The furthest that the policies let the number go now.
fn rate(current: i32, rules: Option<&HPAScalingRules>, history: &History, now: Timestamp, up: bool) -> i32 {
    let unlimited = if up { i32::MAX } else { 0 };
    let Some(rules) = rules else { return unlimited };
    let select = rules.select_policy.as_deref().unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let offers = rules.policies.iter().flatten().map(|policy| {
        let start = history.at_start(current, policy.period_seconds, now);
        let factor = f64::from(policy.value) / 100.0;
        match (policy.type_.as_str(), up) {
            ("Pods", true) => start.saturating_add(policy.value),
            ("Pods", false) => start.saturating_sub(policy.value),
            // Rounded up, or a small number would never grow.
            (_, true) => (f64::from(start) * (1.0 + factor)).ceil() as i32,
            (_, false) => (f64::from(start) * (1.0 - factor)) as i32,
        }
    });
    let furthest = if up == (select != "Min") { offers.max() } else { offers.min() };
    furthest.unwrap_or(unlimited)
}
