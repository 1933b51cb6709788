//! What is swept up: pods that nobody knows any more, logs that grow, images that nobody uses.

use crate::agent::Agent;
use crate::node::NodeState;
use crate::pod::sandbox;
use crate::pod::spec;
use crate::{logs, names};
use jiff::SignedDuration;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tiphys_client::Informer;
use tiphys_cri as cri;
use tiphys_types::api::core::v1::Pod;

/// Upstream's containerLogMonitorInterval.
const LOG_PERIOD: Duration = Duration::from_secs(10);
const IMAGE_PERIOD: Duration = Duration::from_secs(300);

pub(crate) fn start(agent: &Arc<Agent>, node: &Arc<NodeState>) {
    let for_logs = agent.clone();
    agent.tasks.spawn("log-rotation", async move {
        let mut ticks = tokio::time::interval(LOG_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            rotate_logs(&for_logs).await;
        }
    });
    let (for_images, node) = (agent.clone(), node.clone());
    agent.tasks.spawn("image-collector", async move {
        let mut ticks = tokio::time::interval(IMAGE_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if collect_images(&for_images).await {
                node.changed.notify_one();
            }
        }
    });
}

/// Ends sandboxes and removes folders of pods that left the API while no kubelet ran.
pub(crate) async fn sweep_orphans(agent: &Arc<Agent>, pods: &Informer<Pod>) {
    let mut alive: HashSet<String> = agent.workers.uids();
    alive.extend(pods.list().iter().map(|p| spec::uid(p).to_owned()));
    let sandboxes = match agent.runtime.list_pod_sandboxes(&cri::PodSandboxFilter::default()).await {
        Ok(list) => list,
        Err(error) => {
            tracing::warn!(%error, "cannot look for orphaned pods");
            return;
        }
    };
    for sandbox in sandboxes {
        let ours = sandbox.labels.get(names::POD_UID).filter(|uid| !uid.is_empty());
        if ours.is_none_or(|uid| alive.contains(uid)) {
            continue;
        }
        tracing::info!(id = sandbox.id, pod = sandbox.metadata.name, "removing an orphaned pod");
        if let Err(error) = remove(agent, &sandbox.id).await {
            tracing::warn!(%error, id = sandbox.id, "cannot remove an orphaned pod");
        }
    }
    for uid in agent.volumes.orphans(&alive) {
        if let Err(error) = agent.volumes.tear_down(&uid) {
            tracing::warn!(%error, uid, "cannot remove an orphaned pod's folder");
            continue;
        }
        agent.users.release(&uid);
    }
}

async fn remove(agent: &Agent, sandbox_id: &str) -> cri::Result<()> {
    let filter = cri::ContainerFilter { pod_sandbox_id: Some(sandbox_id.into()), ..Default::default() };
    for container in agent.runtime.list_containers(&filter).await? {
        agent.runtime.stop_container(&container.id, Duration::from_secs(2)).await?;
    }
    agent.runtime.stop_pod_sandbox(sandbox_id).await?;
    agent.runtime.remove_pod_sandbox(sandbox_id).await
}

async fn rotate_logs(agent: &Agent) {
    for shown in agent.workers.list() {
        let folder = sandbox::log_directory(&agent.config.pod_logs_dir, &shown.pod);
        for run in shown.view.running() {
            let path = folder.join(&run.name).join(format!("{}.log", run.restart_count));
            let (size, files) = (agent.config.container_log_max_size, agent.config.container_log_max_files);
            match logs::rotate(&path, size, files, agent.clock.now()) {
                Ok(true) => {
                    if let Err(error) = agent.runtime.reopen_container_log(&run.id).await {
                        tracing::warn!(%error, id = run.id, "the runtime does not reopen a log");
                    }
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, path = %path.display(), "cannot rotate a log"),
            }
        }
    }
}

/// True when images were removed.
async fn collect_images(agent: &Agent) -> bool {
    let Some((total, free)) = crate::node::machine::disk(&agent.config.root_dir) else { return false };
    let percent = |free: u64| (total.saturating_sub(free) * 100 / total.max(1)) as u8;
    // With twice of what is enough there is no need to throw anything away.
    let enough = agent.config.enough_disk.map_or(u64::MAX, |bytes| bytes.saturating_mul(2));
    if percent(free) < agent.config.image_gc_high || free >= enough {
        return false;
    }
    let goal = (total / 100 * u64::from(100 - agent.config.image_gc_low)).min(enough);
    let (removed, missing) = remove_images(agent, goal.saturating_sub(free)).await;
    if missing > 0 {
        agent.events.node(
            true,
            "FreeDiskSpaceFailed",
            &format!("Failed to garbage collect required amount of images. {missing} bytes are still missing"),
        );
    }
    removed
}

/// All that nobody uses, for the disk is full. True when any went.
pub(crate) async fn remove_unused_images(agent: &Agent) -> bool {
    remove_images(agent, u64::MAX).await.0
}

/// The longest unused first, until so many bytes are free. Whether any went, and how many bytes are missing.
async fn remove_images(agent: &Agent, mut wanted: u64) -> (bool, u64) {
    let in_use = images_in_use(agent).await;
    let now = agent.clock.now();
    let mut images = agent.images.service.list_images(None).await.unwrap_or_default();
    images.retain(|i| !i.pinned && !in_use.contains(&i.id));
    images.sort_by_key(|i| agent.images.last_used(&i.id));
    let mut removed = false;
    for image in images {
        let young = agent.images.last_used(&image.id).is_some_and(|t| now.duration_since(t) < SignedDuration::from_mins(2));
        if wanted == 0 || young {
            continue;
        }
        let spec = cri::ImageSpec { image: image.id.clone(), ..Default::default() };
        match agent.images.service.remove_image(&spec).await {
            Ok(()) => {
                removed = true;
                wanted = wanted.saturating_sub(image.size);
            }
            Err(error) => tracing::warn!(%error, id = image.id, "cannot remove an image"),
        }
    }
    (removed, wanted)
}

async fn images_in_use(agent: &Agent) -> HashSet<String> {
    let containers = agent.runtime.list_containers(&cri::ContainerFilter::default()).await.unwrap_or_default();
    containers.into_iter().flat_map(|c| [c.image_id, c.image_ref, c.image.image]).collect()
}
