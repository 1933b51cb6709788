//! What the runtime holds of one pod, in the kubelet's terms: plain data that planning and status are functions of.

use crate::names;
use jiff::Timestamp;
use std::collections::HashMap;
use tiphys_cri as cri;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

/// One run of a container.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) sandbox_id: String,
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) image: String,
    pub(crate) image_ref: String,
    pub(crate) restart_count: i32,
    /// Of the container's definition when it was created.
    pub(crate) hash: String,
    pub(crate) resources: Option<cri::LinuxContainerResources>,
    pub(crate) user: Option<cri::LinuxContainerUser>,
    pub(crate) stop_signal: String,
    pub(crate) mounts: Vec<cri::Mount>,
    pub(crate) annotations: cri::Map,
}

impl Run {
    pub(crate) fn from_status(status: cri::ContainerStatus) -> Self {
        let note = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
        let name = status.labels.get(names::CONTAINER_NAME).cloned().unwrap_or_else(|| status.metadata.name.clone());
        // A runtime may answer with the id that it resolved; people want to read the name that the pod said.
        let image = [&status.image.user_specified_image, &status.image.image].into_iter().find(|i| !i.is_empty()).cloned();
        Run {
            name,
            state: match status.state {
                cri::ContainerState::Created => State::Created,
                cri::ContainerState::Running => State::Running,
                cri::ContainerState::Exited => State::Exited,
                cri::ContainerState::Unknown => State::Unknown,
            },
            created_at: time(status.created_at),
            started_at: time(status.started_at),
            finished_at: time(status.finished_at),
            exit_code: status.exit_code,
            image: image.unwrap_or_default(),
            restart_count: note(names::RESTART_COUNT).parse().unwrap_or(status.metadata.attempt as i32),
            hash: note(names::CONTAINER_HASH),
            id: status.id,
            sandbox_id: status.pod_sandbox_id,
            reason: status.reason,
            message: status.message,
            image_ref: status.image_ref,
            resources: status.resources,
            user: status.user,
            stop_signal: status.stop_signal,
            mounts: status.mounts,
            annotations: status.annotations,
        }
    }
}

/// The CRI's nanoseconds since the epoch.
pub(crate) fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A pod as the runtime has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Newest first.
    pub(crate) sandboxes: Vec<cri::PodSandboxStatus>,
    /// Newest first.
    pub(crate) runs: Vec<Run>,
}

impl View {
    pub(crate) fn new(mut sandboxes: Vec<cri::PodSandboxStatus>, mut runs: Vec<Run>) -> Self {
        sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.metadata.attempt)));
        runs.sort_by_key(|r| std::cmp::Reverse((r.restart_count, r.created_at)));
        View { sandboxes, runs }
    }

    /// The newest run of a container.
    pub(crate) fn run(&self, name: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.name == name)
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.id == id)
    }

    /// The sandbox that is up.
    pub(crate) fn ready_sandbox(&self) -> Option<&cri::PodSandboxStatus> {
        self.sandboxes.iter().find(|s| s.state == cri::PodSandboxState::Ready)
    }

    /// The pod's addresses: those of the newest sandbox while it is up.
    pub(crate) fn ips(&self) -> &[String] {
        self.sandboxes.first().filter(|s| s.state == cri::PodSandboxState::Ready).map_or(&[], |s| &s.ips)
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.state == State::Running)
    }

    pub(crate) fn anything_up(&self) -> bool {
        self.running().next().is_some() || self.ready_sandbox().is_some()
    }

    /// Is the run one of the newest sandbox?
    pub(crate) fn is_current(&self, run: &Run) -> bool {
        self.sandboxes.first().is_some_and(|s| s.id == run.sandbox_id)
    }
}

/// What probes have found out, by container id. No entry: not probed yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProbeResults {
    pub(crate) readiness: HashMap<String, bool>,
    pub(crate) liveness: HashMap<String, bool>,
    pub(crate) startup: HashMap<String, bool>,
}
