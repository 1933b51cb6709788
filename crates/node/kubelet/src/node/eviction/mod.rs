//! Hard eviction: when memory, disk, inodes or process numbers run short, the pod that hurts most goes, and the node says so.
//! Pods that exceed a limit of their own on local storage go too.
//!
//! The kernel tells of no threshold of these kinds alike on all versions, so figures are read on a timer, as upstream does: three
//! small files every ten seconds. Deliberately absent: soft thresholds and minimum reclaims.

mod local;
pub(crate) mod plan;

use super::NodeState;
use super::machine;
use crate::agent::Agent;
use crate::gc;
use crate::metrics::count;
use crate::pod::spec;
use crate::pod::status::Verdict;
use crate::pod::worker::{Eviction, Shown};
use plan::{Candidate, Resource, Seen, Shortage, Signals};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tiphys_cri as cri;
use tiphys_meta::Quantity;
use tiphys_meta::quantity::Format;
use tiphys_types::api::core::v1::{Pod, PodCondition};
use tiphys_types::metav1::Time;
use tiphys_types::resources;

const PERIOD: Duration = Duration::from_secs(10);
/// What upstream leaves pods that exceed limits or whose node is in need.
const IMMEDIATE: i64 = 1;

type Stats = HashMap<String, cri::PodSandboxStats>;

pub(crate) async fn run(agent: Arc<Agent>, node: Arc<NodeState>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = Seen::default();
    loop {
        ticks.tick().await;
        let shortages = plan::shortages(&signals(&agent), &agent.config.eviction());
        let pressure = seen.update(&shortages, agent.clock.now());
        *agent.pressure.lock() = pressure;
        node.set_health(|health| {
            health.memory_pressure = pressure.memory;
            health.disk_pressure = pressure.disk;
            health.pid_pressure = pressure.pids;
        });
        if evict_over_limits(&agent).await {
            continue;
        }
        if let Some(shortage) = shortages.first() {
            relieve(&agent, &node, *shortage).await;
        }
    }
}

fn signals(agent: &Agent) -> Signals {
    let positive = |bytes: i64| u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
    let disk = machine::disk(&agent.config.root_dir);
    Signals {
        memory: positive(agent.machine.memory).zip(positive(machine::memory_field("MemAvailable"))),
        disk,
        inodes: machine::inodes(&agent.config.root_dir),
        pids: Some((machine::max_processes(), machine::max_processes().saturating_sub(machine::processes()))),
    }
}

/// One step at a time: what helps shows in the next figures.
async fn relieve(agent: &Arc<Agent>, node: &NodeState, shortage: Shortage) {
    tracing::warn!(?shortage, "the node is running short");
    let on_disk = matches!(shortage.resource, Resource::Disk | Resource::Inodes);
    if on_disk && gc::remove_unused_images(agent).await {
        return node.changed.notify_one();
    }
    let stats = stats(agent).await;
    let pods: Vec<Shown> = agent.workers.list().into_iter().filter(|s| !s.over && !spec::is_critical(&s.pod)).collect();
    let looked_at = agent.clone();
    let measured = tokio::task::spawn_blocking(move || {
        let candidates: Vec<Candidate> = pods.iter().map(|pod| candidate(&looked_at, pod, &stats, on_disk)).collect();
        let chosen = plan::victim(shortage.resource, &candidates).map(|c| c.uid.clone());
        chosen.and_then(|uid| pods.into_iter().find(|pod| spec::uid(&pod.pod) == uid)).map(|pod| {
            let message = shortage_message(&shortage, &pod.pod, stats.get(spec::uid(&pod.pod)));
            (pod, message)
        })
    });
    if let Ok(Some((victim, message))) = measured.await {
        evict(agent, &victim.pod, message, 0);
    }
}

async fn stats(agent: &Agent) -> Stats {
    let list = agent.runtime.list_pod_sandbox_stats(&cri::PodSandboxStatsFilter::default()).await.unwrap_or_default();
    list.into_iter().map(|s| (s.attributes.metadata.uid.clone(), s)).collect()
}

fn candidate(agent: &Agent, shown: &Shown, stats: &Stats, on_disk: bool) -> Candidate {
    let uid = spec::uid(&shown.pod).to_owned();
    let stats = stats.get(&uid);
    let asked = resources::requests(&shown.pod);
    let request = |name: &str| asked.get(name).map_or(0, |q| q.value().max(0) as u64);
    let disk = if on_disk { local::usage(agent, shown, stats).total() } else { 0 };
    let inodes = stats.iter().flat_map(|s| &s.containers).filter_map(|c| c.writable_layer.as_ref()).map(|f| f.inodes_used).sum();
    Candidate {
        uid,
        priority: spec::spec(&shown.pod).priority.unwrap_or(0),
        memory: (stats.map_or(0, |s| s.memory.working_set_bytes), request(resources::MEMORY)),
        disk: (disk, request("ephemeral-storage")),
        inodes,
        pids: stats.map_or(0, |s| s.process_count),
    }
}

fn amount(bytes: u64) -> String {
    Quantity::new(i64::try_from(bytes).unwrap_or(i64::MAX) / 1024 * 1024, Format::BinarySi).to_string()
}

/// Upstream's words, with every container that uses more than it asked for.
fn shortage_message(shortage: &Shortage, pod: &Pod, stats: Option<&cri::PodSandboxStats>) -> String {
    let word = shortage.resource.word();
    let shown = |number: u64| match shortage.resource {
        Resource::Memory | Resource::Disk => amount(number),
        Resource::Inodes | Resource::Pids => number.to_string(),
    };
    let mut message = format!(
        "The node was low on resource: {word}. Threshold quantity: {}, available: {}. ",
        shown(shortage.threshold),
        shown(shortage.available)
    );
    for container in spec::containers(pod) {
        let Some(own) = stats.and_then(|s| s.containers.iter().find(|c| c.attributes.metadata.name == container.name)) else { continue };
        let used = match shortage.resource {
            Resource::Memory => own.memory.working_set_bytes,
            Resource::Disk => own.writable_layer.as_ref().map_or(0, |f| f.used_bytes),
            Resource::Inodes | Resource::Pids => continue,
        };
        let asked = container.resources.as_ref().and_then(|r| Quantity::parse(&r.requests.as_ref()?.get(word)?.0).ok());
        let asked = asked.unwrap_or(Quantity::ZERO);
        if i64::try_from(used).is_ok_and(|used| used > asked.value()) {
            let (name, used) = (&container.name, amount(used));
            message += &format!("Container {name} was using {used}, request is {asked}, has larger consumption of {word}. ");
        }
    }
    message
}

/// True when a pod went.
async fn evict_over_limits(agent: &Arc<Agent>) -> bool {
    let pods: Vec<Shown> = agent.workers.list().into_iter().filter(|s| !s.over && local::is_bounded(&s.pod)).collect();
    if pods.is_empty() {
        return false;
    }
    let stats = stats(agent).await;
    let looked_at = agent.clone();
    let over = tokio::task::spawn_blocking(move || {
        let one = |shown: Shown| {
            let usage = local::usage(&looked_at, &shown, stats.get(spec::uid(&shown.pod)));
            local::excess(&shown.pod, &usage).map(|message| (shown, message))
        };
        pods.into_iter().filter_map(one).collect::<Vec<_>>()
    });
    let over = over.await.unwrap_or_default();
    over.iter().for_each(|(shown, message)| evict(agent, &shown.pod, message.clone(), IMMEDIATE));
    !over.is_empty()
}

fn evict(agent: &Arc<Agent>, pod: &Pod, message: String, grace: i64) {
    agent.events.warning(pod, None, "Evicted", &message);
    count(&agent.metrics.evictions);
    let condition = PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("TerminationByKubelet".into()),
        message: Some(message.clone()),
        observed_generation: spec::generation(pod),
        last_transition_time: Some(Time(agent.clock.now())),
        ..PodCondition::default()
    };
    let verdict = Verdict { reason: "Evicted".into(), message };
    agent.workers.evict(spec::uid(pod), Eviction { verdict, grace: Some(grace), condition: Some(condition) });
}
