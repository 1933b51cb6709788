//! Stopping containers: preStop, order of sidecars, grace, SIGTERM, SIGKILL.

use super::spec::{self, KillReason};
use super::view::{Run, View};
use crate::agent::Agent;
use crate::hooks;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tiphys_types::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::time::Instant;

/// Containers get this long after SIGTERM, whatever was asked for.
const MINIMUM: i64 = 2;

/// Kills all running containers of a pod at once, main ones before sidecars, then stops its sandboxes.
/// `grace` may be lowered while it waits; None leaves each container its own.
pub(crate) async fn pod(agent: &Arc<Agent>, pod: &Arc<Pod>, view: &View, grace: watch::Receiver<Option<i64>>) -> Result<(), String> {
    let order = Order::new(pod, view);
    let mut tasks = tokio::task::JoinSet::new();
    for run in view.running() {
        let (agent, pod, run, grace, order) = (agent.clone(), pod.clone(), run.clone(), grace.clone(), order.clone());
        tasks.spawn(async move {
            let result = container(&agent, &pod, &run, "", KillReason::Unknown, grace, Some(&order)).await;
            order.ended(&run.name);
            result
        });
    }
    let mut failed = None;
    while let Some(result) = tasks.join_next().await {
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed = Some(error),
            Err(panic) => failed = Some(panic.to_string()),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    for sandbox in &view.sandboxes {
        agent.runtime.stop_pod_sandbox(&sandbox.id).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

pub(crate) async fn container(
    agent: &Arc<Agent>,
    pod: &Pod,
    run: &Run,
    message: &str,
    reason: KillReason,
    mut grace: watch::Receiver<Option<i64>>,
    order: Option<&Order>,
) -> Result<(), String> {
    let found = spec::container(pod, &run.name);
    let words = if message.is_empty() { format!("Stopping container {}", run.name) } else { message.to_owned() };
    agent.events.normal(pod, Some(&run.name), "Killing", &words);
    let own = found.as_ref().map_or(MINIMUM, |c| spec::grace_period(pod, c, reason));
    let started = Instant::now();
    let budget = |lowered: Option<i64>| lowered.unwrap_or(own);
    let left = |lowered: Option<i64>| {
        let used = started.elapsed();
        Duration::from_secs(budget(lowered).max(0) as u64).saturating_sub(used)
    };
    let hook = found.as_ref().and_then(|c| c.lifecycle.as_ref()?.pre_stop.as_ref());
    if let (Some(container), Some(hook)) = (&found, hook)
        && !left(*grace.borrow()).is_zero()
    {
        let running = hooks::run(agent, pod, container, run, hook);
        tokio::select! {
            result = running => if let Err(error) = result {
                tracing::warn!(pod = spec::format(pod), container = run.name, error, "PreStop hook failed");
                agent.events.warning(pod, Some(&run.name), "FailedPreStopHook", "PreStopHook failed");
            },
            () = expired(&mut grace, left) => {}
        }
    }
    if let Some(order) = order {
        tokio::select! {
            () = order.turn(&run.name) => {}
            () = expired(&mut grace, left) => {}
        }
    }
    stop(agent, run, grace, left).await
}

/// Resolves when the budget, as lowered meanwhile, is used up.
async fn expired(grace: &mut watch::Receiver<Option<i64>>, left: impl Fn(Option<i64>) -> Duration) {
    loop {
        let now = *grace.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep(left(now)) => return,
            changed = grace.changed() => if changed.is_err() {
                return tokio::time::sleep(left(now)).await;
            },
        }
    }
}

async fn stop(
    agent: &Arc<Agent>,
    run: &Run,
    mut grace: watch::Receiver<Option<i64>>,
    left: impl Fn(Option<i64>) -> Duration,
) -> Result<(), String> {
    let minimum = Duration::from_secs(MINIMUM as u64);
    loop {
        let now = *grace.borrow_and_update();
        let stopping = agent.runtime.stop_container(&run.id, left(now).max(minimum));
        tokio::select! {
            result = stopping => return match result {
                Err(error) if !error.is_not_found() => Err(error.to_string()),
                _ => Ok(()),
            },
            // Somebody is in more of a hurry: ask again with less.
            Ok(()) = grace.changed() => {}
        }
    }
}

/// Who must have ended before a sidecar is stopped: all main containers and the sidecars after it (KEP-753).
#[derive(Clone)]
pub(crate) struct Order {
    ended: Arc<HashMap<String, watch::Sender<bool>>>,
    before: Arc<HashMap<String, Vec<String>>>,
}

impl Order {
    fn new(pod: &Pod, view: &View) -> Self {
        let running = |name: &str| view.running().any(|r| r.name == name);
        let all = spec::init_containers(pod).iter().chain(spec::containers(pod));
        let ended = all.map(|c| (c.name.clone(), watch::Sender::new(!running(&c.name)))).collect();
        let mut before = HashMap::new();
        let mut later: Vec<String> = spec::containers(pod).iter().map(|c| c.name.clone()).collect();
        for sidecar in spec::init_containers(pod).iter().rev().filter(|c| spec::is_sidecar(c)) {
            before.insert(sidecar.name.clone(), later.clone());
            later.push(sidecar.name.clone());
        }
        Order { ended: Arc::new(ended), before: Arc::new(before) }
    }

    async fn turn(&self, name: &str) {
        for other in self.before.get(name).into_iter().flatten() {
            if let Some(ended) = self.ended.get(other) {
                let _ = ended.subscribe().wait_for(|ended| *ended).await;
            }
        }
    }

    fn ended(&self, name: &str) {
        if let Some(ended) = self.ended.get(name) {
            ended.send_replace(true);
        }
    }
}
