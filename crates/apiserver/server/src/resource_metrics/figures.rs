//! From two summaries of a node to what it and its containers use. CPU time is counted by the kernel; a rate is how far the counter came between
//! two readings, and the time between them is the window that clients are told.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::summary::{Cpu, Stats, Summary};

/// Readings nearer to each other than this say little; those further apart are no longer about now.
const NEAREST: SignedDuration = SignedDuration::from_millis(500);
const FURTHEST: SignedDuration = SignedDuration::from_secs(60);
/// What a kubelet's own rate covers (cAdvisor's housekeeping interval).
const OWN_WINDOW: SignedDuration = SignedDuration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amounts {
    pub(super) at: Timestamp,
    pub(super) window: SignedDuration,
    pub(super) nanocores: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) node: Option<Amounts>,
    /// By namespace and name: what runs of a pod, container by container. A pod of which something is not known is left out.
    pods: HashMap<(String, String), Vec<(String, Amounts)>>,
}

impl Figures {
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<&[(String, Amounts)]> {
        self.pods.get(&(namespace.to_owned(), name.to_owned())).map(Vec::as_slice)
    }

    /// What is known from a summary and an earlier one.
    pub(super) fn between(earlier: Option<&Summary>, now: &Summary) -> Figures {
        let earlier = Earlier::of(earlier);
        let pods = now.pods.iter().filter_map(|pod| {
            let of = |c: &Stats| Some((c.name.clone(), amounts(earlier.container(&pod.pod_ref.uid, &c.name), c)?));
            let containers: Option<Vec<_>> = pod.containers.iter().map(of).collect();
            let key = (pod.pod_ref.namespace.clone(), pod.pod_ref.name.clone());
            containers.filter(|all| !all.is_empty()).map(|all| (key, all))
        });
        Figures { node: amounts(earlier.node, &now.node), pods: pods.collect() }
    }

    /// Whether every rate can be told from these summaries, or another is needed a moment later.
    pub(super) fn are_complete(earlier: Option<&Summary>, now: &Summary) -> bool {
        let earlier = Earlier::of(earlier);
        let known = |before: Option<&Cpu>, stats: &Stats| stats.cpu.as_ref().is_none_or(|cpu| measured(before, stats, cpu).is_some());
        let of_pod = |pod: &super::summary::PodStats| pod.containers.iter().all(|c| known(earlier.container(&pod.pod_ref.uid, &c.name), c));
        known(earlier.node, &now.node) && now.pods.iter().all(of_pod)
    }
}

/// Earlier readings, by the pod's uid and the container's name.
#[derive(Default)]
struct Earlier<'a> {
    node: Option<&'a Cpu>,
    containers: HashMap<(&'a str, &'a str), &'a Cpu>,
}

impl<'a> Earlier<'a> {
    fn of(summary: Option<&'a Summary>) -> Self {
        let Some(summary) = summary else { return Earlier::default() };
        let all = summary.pods.iter().flat_map(|pod| pod.containers.iter().map(move |c| (pod, c)));
        let containers = all.filter_map(|(pod, c)| Some(((pod.pod_ref.uid.as_str(), c.name.as_str()), c.cpu.as_ref()?))).collect();
        Earlier { node: summary.node.cpu.as_ref(), containers }
    }

    fn container(&self, uid: &'a str, name: &'a str) -> Option<&'a Cpu> {
        self.containers.get(&(uid, name)).copied()
    }
}

fn amounts(before: Option<&Cpu>, stats: &Stats) -> Option<Amounts> {
    let cpu = stats.cpu.as_ref()?;
    let bytes = stats.memory.as_ref()?.working_set_bytes?;
    let at: Timestamp = cpu.time.parse().ok()?;
    let (nanocores, window) = measured(before, stats, cpu).or_else(|| Some((cpu.usage_nano_cores?, OWN_WINDOW)))?;
    Some(Amounts { at, window, nanocores, bytes })
}

/// The rate since the earlier reading, or since a start that is not long ago: all counters start at nothing.
fn measured(before: Option<&Cpu>, stats: &Stats, cpu: &Cpu) -> Option<(u64, SignedDuration)> {
    let (at, total): (Timestamp, u64) = (cpu.time.parse().ok()?, cpu.usage_core_nano_seconds?);
    let since = |then: Timestamp, count: u64| {
        let window = at.duration_since(then);
        if !(NEAREST..=FURTHEST).contains(&window) {
            return None;
        }
        let grown = u128::from(total.checked_sub(count)?);
        let nanos = u128::try_from(window.as_nanos()).ok()?;
        Some((u64::try_from(grown * 1_000_000_000 / nanos).ok()?, window))
    };
    let reading = before.and_then(|before| since(before.time.parse().ok()?, before.usage_core_nano_seconds?));
    reading.or_else(|| since(stats.start_time.parse().ok()?, 0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A summary at a second: the node's counter, and a container's with its start, in seconds of CPU time.
    fn summary(second: u32, node: f64, container: f64, started: &str) -> Summary {
        let stats = |name: &str, total: f64, start: &str| {
            json!({"name": name, "startTime": start, "memory": {"workingSetBytes": 4096},
                "cpu": {"time": format!("2026-01-01T00:00:{second:02}Z"), "usageCoreNanoSeconds": (total * 1e9) as u64}})
        };
        let pod = json!({"podRef": {"name": "p", "namespace": "d", "uid": "u"}, "containers": [stats("c", container, started)]});
        serde_json::from_value(json!({"node": stats("", node, "2025-01-01T00:00:00Z"), "pods": [pod]})).expect("a summary")
    }

    const LONG_AGO: &str = "2025-06-01T00:00:00Z";

    #[test]
    fn a_rate_is_what_a_counter_grew() {
        let (first, second) = (summary(0, 100.0, 5.0, LONG_AGO), summary(10, 105.0, 7.5, LONG_AGO));
        assert!(!Figures::are_complete(None, &first) && Figures::are_complete(Some(&first), &second));
        let figures = Figures::between(Some(&first), &second);
        let node = figures.node.expect("known");
        assert_eq!((node.nanocores, node.window.as_secs(), node.bytes), (500_000_000, 10, 4096));
        assert_eq!(figures.pod("d", "p").map(|all| all[0].1.nanocores), Some(250_000_000));
        assert!(figures.pod("d", "q").is_none());
    }

    #[test]
    fn what_cannot_be_told_is_left_out() {
        let first = summary(0, 100.0, 5.0, LONG_AGO);
        let figures = Figures::between(None, &first);
        assert!(figures.node.is_none() && figures.pod("d", "p").is_none());
        let restarted = summary(10, 101.0, 0.1, LONG_AGO);
        assert!(Figures::between(Some(&first), &restarted).pod("d", "p").is_none(), "a counter that fell");
        let same = summary(0, 100.0, 5.0, LONG_AGO);
        assert!(!Figures::are_complete(Some(&first), &same), "the same reading");
    }

    #[test]
    fn a_young_container_is_measured_from_its_start() {
        let young = summary(20, 1.0, 5.0, "2026-01-01T00:00:10Z");
        let amounts = Figures::between(None, &young).pod("d", "p").map(|all| all[0].1).expect("known");
        assert_eq!((amounts.nanocores, amounts.window.as_secs()), (500_000_000, 10));
    }

    #[test]
    fn a_kubelets_own_rate_is_good_where_its_readings_stand_still() {
        let mut now = summary(0, 100.0, 5.0, LONG_AGO);
        now.node.cpu.as_mut().expect("cpu").usage_nano_cores = Some(7);
        assert_eq!(Figures::between(Some(&now.clone()), &now).node.map(|n| (n.nanocores, n.window)), Some((7, OWN_WINDOW)));
    }
}
