//! Hard eviction: when memory or disk runs short, the pod that hurts most goes, and the node says so.
//!
//! Memory has no file that tells of a threshold on every kernel (cgroup v1 here), so it is looked at on a timer, as upstream does.
//! Deliberately absent: soft thresholds, inode signals, per-container ephemeral storage limits.

use super::NodeState;
use super::machine;
use crate::agent::Agent;
use crate::metrics::count;
use crate::pod::spec;
use crate::pod::status::Verdict;
use crate::pod::worker::{Eviction, Shown};
use std::sync::Arc;
use std::time::Duration;
use tiphys_cri as cri;
use tiphys_types::api::core::v1::PodCondition;
use tiphys_types::metav1::Time;
use tiphys_types::resources;

const PERIOD: Duration = Duration::from_secs(10);

pub(crate) async fn run(agent: Arc<Agent>, node: Arc<NodeState>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let memory = machine::memory_field("MemAvailable");
        let short_of_memory = memory > 0 && memory < agent.config.eviction_memory_available as i64;
        let short_of_disk = machine::disk(&agent.config.root_dir)
            .is_some_and(|(total, free)| total > 0 && free * 100 / total < u64::from(agent.config.eviction_disk_percent));
        node.set_health(|health| {
            health.memory_pressure = short_of_memory;
            health.disk_pressure = short_of_disk;
        });
        if short_of_memory {
            evict_one(&agent, "memory", memory, agent.config.eviction_memory_available).await;
        }
    }
}

async fn evict_one(agent: &Arc<Agent>, what: &str, available: i64, threshold: u64) {
    let stats = agent.runtime.list_pod_sandbox_stats(&cri::PodSandboxStatsFilter::default()).await.unwrap_or_default();
    let usage = |pod: &Shown| {
        let uid = spec::uid(&pod.pod);
        stats.iter().find(|s| s.attributes.metadata.uid == uid).map_or(0, |s| s.memory.working_set_bytes as i64)
    };
    let pods = agent.workers.list().into_iter().filter(|s| !s.over && !spec::is_critical(&s.pod)).collect();
    let Some((victim, used)) = choose(pods, usage) else { return };
    let request = resources::requests(&victim.pod).get(resources::MEMORY).map_or(0, |q| q.value());
    let message = format!(
        "The node was low on resource: {what}. Threshold quantity: {threshold}, available: {available}. Pod was using {used}, request is {request}, has larger consumption of {what}. "
    );
    agent.events.warning(&victim.pod, None, "Evicted", &message);
    count(&agent.metrics.evictions);
    let condition = PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("TerminationByKubelet".into()),
        message: Some(message.clone()),
        observed_generation: spec::generation(&victim.pod),
        last_transition_time: Some(Time(agent.clock.now())),
        ..PodCondition::default()
    };
    let eviction = Eviction { verdict: Verdict { reason: "Evicted".into(), message }, grace: Some(0), condition: Some(condition) };
    agent.workers.evict(spec::uid(&victim.pod), eviction);
}

/// Those over their requests first, then the lowest priority, then the most over.
fn choose(pods: Vec<Shown>, usage: impl Fn(&Shown) -> i64) -> Option<(Shown, i64)> {
    let mut ranked: Vec<(bool, i32, i64, i64, Shown)> = pods
        .into_iter()
        .map(|pod| {
            let used = usage(&pod);
            let request = resources::requests(&pod.pod).get(resources::MEMORY).map_or(0, |q| q.value());
            (used <= request, spec::spec(&pod.pod).priority.unwrap_or(0), request - used, used, pod)
        })
        .collect();
    ranked.sort_by_key(|(within, priority, left, ..)| (*within, *priority, *left));
    ranked.into_iter().next().map(|(_, _, _, used, pod)| (pod, used))
}
