//! The two services. Every call may be made again after a failure: stop and remove succeed on what is gone already.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{
    AuthConfig, Container, ContainerConfig, ContainerEvent, ContainerFilter, ContainerStats, ContainerStatsFilter, ContainerStatus,
    ExecSyncResponse, Image, ImageFsInfo, ImageSpec, LinuxContainerResources, PodSandbox, PodSandboxConfig, PodSandboxFilter,
    PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatus, PortStream, Result, RuntimeStatus, Stream, VersionResponse,
};

/// Pods and containers.
#[async_trait]
pub trait RuntimeService: Send + Sync {
    async fn version(&self) -> Result<VersionResponse>;

    /// Creates and starts a pod's shared parts: cgroup, namespaces, network. Returns the sandbox's id.
    async fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> Result<String>;
    /// Kills what still runs in it and gives back its network. Idempotent.
    async fn stop_pod_sandbox(&self, sandbox_id: &str) -> Result<()>;
    /// Removes it with all its containers, running or not. Idempotent.
    async fn remove_pod_sandbox(&self, sandbox_id: &str) -> Result<()>;
    async fn pod_sandbox_status(&self, sandbox_id: &str) -> Result<PodSandboxStatus>;
    async fn list_pod_sandboxes(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>>;

    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig, sandbox_config: &PodSandboxConfig) -> Result<String>;
    async fn start_container(&self, container_id: &str) -> Result<()>;
    /// Sends the stop signal, waits for `grace`, then kills everything in the container. Returns when it has ended. Idempotent.
    async fn stop_container(&self, container_id: &str, grace: Duration) -> Result<()>;
    /// Removes the container, killing it if it runs. Its log stays: that belongs to the kubelet. Idempotent.
    async fn remove_container(&self, container_id: &str) -> Result<()>;
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>>;
    async fn container_status(&self, container_id: &str) -> Result<ContainerStatus>;
    /// Changes the limits of a created or running container; fields that are zero or empty stay as they are.
    async fn update_container_resources(&self, container_id: &str, resources: &LinuxContainerResources) -> Result<()>;
    /// Changes the limits of the pod's own cgroup (in-place resize).
    async fn update_pod_sandbox_resources(
        &self,
        sandbox_id: &str,
        overhead: &LinuxContainerResources,
        resources: &LinuxContainerResources,
    ) -> Result<()>;
    /// To be called after the kubelet moved the log file away.
    async fn reopen_container_log(&self, container_id: &str) -> Result<()>;

    /// Runs a command and collects its output (at most 16 MiB each). A zero timeout is none; running into it kills the command.
    async fn exec_sync(&self, container_id: &str, command: &[String], timeout: Duration) -> Result<ExecSyncResponse>;
    async fn exec(&self, request: ExecRequest) -> Result<Stream>;
    async fn attach(&self, request: AttachRequest) -> Result<Stream>;
    /// Connects to `127.0.0.1` (or `::1`) on this port as seen inside the pod.
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<PortStream>;

    async fn container_stats(&self, container_id: &str) -> Result<ContainerStats>;
    async fn list_container_stats(&self, filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>>;
    async fn pod_sandbox_stats(&self, sandbox_id: &str) -> Result<PodSandboxStats>;
    async fn list_pod_sandbox_stats(&self, filter: &PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>>;

    /// Tells the runtime the node's pod range, once it is known.
    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()>;
    async fn status(&self) -> Result<RuntimeStatus>;
    /// Events from now on. A receiver that lags or ends means: list again, subscribe again.
    async fn container_events(&self) -> Result<mpsc::Receiver<ContainerEvent>>;
}

/// Images.
#[async_trait]
pub trait ImageService: Send + Sync {
    async fn list_images(&self, filter: Option<&ImageSpec>) -> Result<Vec<Image>>;
    /// None when the image is not here.
    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>>;
    /// Returns the reference by which containers name the image (its digest or id).
    async fn pull_image(&self, image: &ImageSpec, auth: Option<&AuthConfig>, sandbox_config: Option<&PodSandboxConfig>) -> Result<String>;
    /// Idempotent.
    async fn remove_image(&self, image: &ImageSpec) -> Result<()>;
    async fn image_fs_info(&self) -> Result<ImageFsInfo>;
}

/// A command to run in a container with its streams attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    pub container_id: String,
    pub cmd: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Which streams of a running container to join. Whether there is a terminal is the container's own choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachRequest {
    pub container_id: String,
    pub stdin: bool,
    pub tty: bool,
    pub stdout: bool,
    pub stderr: bool,
}
