//! [`EmbeddedRuntime`]: the CRI over the supervisor, the image store and the pod network.
//!
//! It keeps what it knows in `state.json` files, one per sandbox and container; after a restart it reads them, asks the
//! supervisor what happened meanwhile, and goes on. Nothing is polled: exits come as events.
//! Deliberately absent: checkpoints, metric descriptors.

mod container;
mod exec;
mod plan;
mod recover;
mod sandbox;
mod state;
mod stats;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tiphys_base::Clock;
use tiphys_cgroups::{Cgroup, Hierarchy};
use tiphys_cri::*;
use tokio::sync::{mpsc, watch};

use crate::client::{CallError, Client, SupervisorCommand};
use crate::images::ContainerImages;
use crate::network::PodNetwork;
use crate::supervisor::protocol::{Reply, Request};
pub use state::supervisor_dir;
use state::{ContainerRecord, Folders, SandboxRecord};

/// What an embedded runtime needs to know.
pub struct RuntimeConfig {
    /// Sandboxes, containers and the supervisor's socket live here.
    pub root: PathBuf,
    /// The node's name, for the process list.
    pub name: String,
    /// None: a supervisor must be there already.
    pub supervisor: Option<SupervisorCommand>,
    pub network: Arc<dyn PodNetwork>,
    pub images: Arc<dyn ContainerImages>,
    pub clock: Arc<dyn Clock>,
}

/// The CRI, embedded. Clones are handles of the same runtime.
#[derive(Clone)]
pub struct EmbeddedRuntime(Arc<Runtime>);

impl EmbeddedRuntime {
    /// Starts the supervisor if it does not run, and takes up what an earlier process left.
    pub async fn open(config: RuntimeConfig) -> Result<Self> {
        Runtime::open(config).await.map(Self)
    }

    /// Ends the supervisor and every container with it: for `tiphys down`.
    pub async fn shut_down_supervisor(&self) -> Result<()> {
        self.0.closing.store(true, Ordering::Relaxed);
        match self.0.call(Request::Shutdown).await {
            Ok(_) | Err(CriError::Unavailable(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

struct Runtime {
    folders: Folders,
    name: String,
    command: Option<SupervisorCommand>,
    network: Arc<dyn PodNetwork>,
    images: Arc<dyn ContainerImages>,
    clock: Arc<dyn Clock>,
    hierarchy: Arc<Hierarchy>,
    client: Mutex<Option<Client>>,
    sandboxes: Mutex<HashMap<String, SandboxRecord>>,
    containers: Mutex<HashMap<String, ContainerEntry>>,
    /// Exit codes of commands that run in containers.
    execs: Mutex<HashMap<String, watch::Sender<Option<i32>>>>,
    listeners: Mutex<Vec<mpsc::Sender<ContainerEvent>>>,
    disk_usage: Mutex<HashMap<String, FilesystemUsage>>,
    /// The supervisor is being ended on purpose.
    closing: AtomicBool,
    /// What the supervisor speaks.
    protocol: AtomicU32,
}

struct ContainerEntry {
    record: ContainerRecord,
    /// Its start has been asked for and not answered: whoever asked tells of its end too, after its start.
    starting: bool,
    /// Becomes true when the container has ended.
    ended: watch::Sender<bool>,
}

impl ContainerEntry {
    fn new(record: ContainerRecord) -> Self {
        let ended = watch::Sender::new(record.ended.is_some());
        Self { record, starting: false, ended }
    }
}

/// A listener that lets so many events pile up is cut off, and has to list again.
const EVENT_QUEUE: usize = 4096;

fn call_error(error: CallError) -> CriError {
    match error {
        CallError::Refused(text) => CriError::Internal(text),
        CallError::Gone => CriError::Unavailable("the container supervisor is not reachable".into()),
    }
}

/// Runs file system and mount work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(CriError::internal)?
}

fn matches_labels(labels: &Map, selector: &Map) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn matches_id(id: &str, wanted: Option<&String>) -> bool {
    wanted.is_none_or(|wanted| id.starts_with(wanted.as_str()))
}

impl Runtime {
    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    async fn call(&self, request: Request) -> Result<Reply> {
        self.call_with(request, Vec::new()).await.map(|(reply, _)| reply)
    }

    async fn call_with(&self, request: Request, fds: Vec<std::os::fd::OwnedFd>) -> Result<(Reply, Vec<std::os::fd::OwnedFd>)> {
        let client = self.client.lock().clone().ok_or_else(|| call_error(CallError::Gone))?;
        client.call_with(request, fds).await.map_err(call_error)
    }

    fn sandbox(&self, id: &str) -> Result<SandboxRecord> {
        let sandboxes = self.sandboxes.lock();
        sandboxes
            .get(id)
            .cloned()
            .ok_or_else(|| CriError::NotFound(format!("an error occurred when try to find sandbox {id:?}: not found")))
    }

    fn container(&self, id: &str) -> Result<ContainerRecord> {
        let containers = self.containers.lock();
        let found = containers.get(id).map(|entry| entry.record.clone());
        found.ok_or_else(|| CriError::NotFound(format!("an error occurred when try to find container {id:?}: not found")))
    }

    fn running_container(&self, id: &str) -> Result<ContainerRecord> {
        let record = self.container(id)?;
        match record.state() {
            ContainerState::Running => Ok(record),
            state => Err(CriError::FailedPrecondition(format!("container {id} is in {} state", state_name(state)))),
        }
    }

    /// Changes a container's record in memory and on disk.
    fn update_container<T>(&self, id: &str, change: impl FnOnce(&mut ContainerRecord) -> T) -> Option<T> {
        self.update_entry(id, |entry| change(&mut entry.record))
    }

    fn update_entry<T>(&self, id: &str, change: impl FnOnce(&mut ContainerEntry) -> T) -> Option<T> {
        let mut containers = self.containers.lock();
        let entry = containers.get_mut(id)?;
        let result = change(entry);
        if let Err(error) = state::save(&self.folders.container(id), &entry.record) {
            tracing::warn!(container = id, %error, "cannot save the container's state");
        }
        entry.ended.send_replace(entry.record.ended.is_some());
        Some(result)
    }

    fn update_sandbox(&self, id: &str, change: impl FnOnce(&mut SandboxRecord)) {
        let mut sandboxes = self.sandboxes.lock();
        let Some(record) = sandboxes.get_mut(id) else { return };
        change(record);
        if let Err(error) = state::save(&self.folders.sandbox(id), record) {
            tracing::warn!(sandbox = id, %error, "cannot save the sandbox's state");
        }
    }

    fn containers_of(&self, sandbox_id: &str) -> Vec<String> {
        let containers = self.containers.lock();
        containers.values().filter(|entry| entry.record.sandbox_id == sandbox_id).map(|entry| entry.record.id.clone()).collect()
    }

    /// Tells listeners what happened, with the pod as it is now.
    fn announce(&self, id: &str, sandbox_id: &str, event_type: ContainerEventType) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| !listener.is_closed());
        if listeners.is_empty() {
            return;
        }
        let event = ContainerEvent {
            container_id: id.to_owned(),
            event_type,
            created_at: self.now(),
            pod_sandbox_status: self.sandboxes.lock().get(sandbox_id).map(SandboxRecord::status),
            containers_statuses: self
                .containers
                .lock()
                .values()
                .filter(|entry| entry.record.sandbox_id == sandbox_id)
                .map(|entry| entry.record.status())
                .collect(),
        };
        listeners.retain(|listener| listener.try_send(event.clone()).is_ok());
    }

    fn group(&self, path: &str) -> Cgroup {
        Cgroup::new(self.hierarchy.clone(), path)
    }
}

fn state_name(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "CONTAINER_CREATED",
        ContainerState::Running => "CONTAINER_RUNNING",
        ContainerState::Exited => "CONTAINER_EXITED",
        ContainerState::Unknown => "CONTAINER_UNKNOWN",
    }
}

#[async_trait]
impl RuntimeService for EmbeddedRuntime {
    async fn version(&self) -> Result<VersionResponse> {
        Ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "tiphys".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        self.0.run_sandbox(config, runtime_handler).await
    }

    async fn stop_pod_sandbox(&self, sandbox_id: &str) -> Result<()> {
        self.0.stop_sandbox(sandbox_id).await
    }

    async fn remove_pod_sandbox(&self, sandbox_id: &str) -> Result<()> {
        self.0.remove_sandbox(sandbox_id).await
    }

    async fn pod_sandbox_status(&self, sandbox_id: &str) -> Result<PodSandboxStatus> {
        Ok(self.0.sandbox(sandbox_id)?.status())
    }

    async fn list_pod_sandboxes(&self, filter: &PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let wanted = |record: &&SandboxRecord| {
            matches_id(&record.id, filter.id.as_ref())
                && filter.state.is_none_or(|state| state == record.state())
                && matches_labels(&record.config.labels, &filter.label_selector)
        };
        Ok(self.0.sandboxes.lock().values().filter(wanted).map(SandboxRecord::summary).collect())
    }

    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig, _: &PodSandboxConfig) -> Result<String> {
        self.0.create_container(sandbox_id, config).await
    }

    async fn start_container(&self, container_id: &str) -> Result<()> {
        self.0.start_container(container_id).await
    }

    async fn stop_container(&self, container_id: &str, grace: Duration) -> Result<()> {
        self.0.stop_container(container_id, grace).await
    }

    async fn remove_container(&self, container_id: &str) -> Result<()> {
        self.0.remove_container(container_id).await
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let wanted = |entry: &&ContainerEntry| {
            let record = &entry.record;
            matches_id(&record.id, filter.id.as_ref())
                && filter.state.is_none_or(|state| state == record.state())
                && matches_id(&record.sandbox_id, filter.pod_sandbox_id.as_ref())
                && matches_labels(&record.config.labels, &filter.label_selector)
        };
        Ok(self.0.containers.lock().values().filter(wanted).map(|entry| entry.record.summary()).collect())
    }

    async fn container_status(&self, container_id: &str) -> Result<ContainerStatus> {
        Ok(self.0.container(container_id)?.status())
    }

    async fn update_container_resources(&self, container_id: &str, resources: &LinuxContainerResources) -> Result<()> {
        let record = self.0.container(container_id)?;
        if record.ended.is_some() {
            return Err(CriError::FailedPrecondition(format!("container {container_id} has ended")));
        }
        let (group, limits) = (self.0.group(&record.launch.cgroup.path), plan::resource_limits(resources));
        blocking(move || group.apply(&limits).map_err(CriError::internal)).await?;
        self.0.update_container(container_id, |record| record.resources = plan::merge_resources(&record.resources, resources));
        Ok(())
    }

    async fn update_pod_sandbox_resources(
        &self,
        sandbox_id: &str,
        _overhead: &LinuxContainerResources,
        _resources: &LinuxContainerResources,
    ) -> Result<()> {
        // The pod's own cgroup is the kubelet's, which has changed it already; the call informs runtimes with a machine per pod.
        self.0.sandbox(sandbox_id).map(drop)
    }

    async fn reopen_container_log(&self, container_id: &str) -> Result<()> {
        self.0.running_container(container_id)?;
        self.0.call(Request::ReopenLog { id: container_id.into() }).await.map(drop)
    }

    async fn exec_sync(&self, container_id: &str, command: &[String], timeout: Duration) -> Result<ExecSyncResponse> {
        self.0.exec_sync(container_id, command, timeout).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<Stream> {
        self.0.exec_streams(request).await.map(Stream::Direct)
    }

    async fn attach(&self, request: AttachRequest) -> Result<Stream> {
        self.0.attach_streams(request).await.map(Stream::Direct)
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<PortStream> {
        self.0.connect_port(sandbox_id, port).await
    }

    async fn container_stats(&self, container_id: &str) -> Result<ContainerStats> {
        let record = self.0.container(container_id)?;
        let runtime = self.0.clone();
        blocking(move || Ok(runtime.stats_of(&record))).await
    }

    async fn list_container_stats(&self, filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>> {
        let runtime = self.0.clone();
        let filter = filter.clone();
        blocking(move || Ok(runtime.stats_of_all(&filter))).await
    }

    async fn pod_sandbox_stats(&self, sandbox_id: &str) -> Result<PodSandboxStats> {
        let record = self.0.sandbox(sandbox_id)?;
        let runtime = self.0.clone();
        blocking(move || Ok(runtime.pod_stats_of(&record))).await
    }

    async fn list_pod_sandbox_stats(&self, filter: &PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>> {
        let wanted = |record: &&SandboxRecord| {
            record.ready && matches_id(&record.id, filter.id.as_ref()) && matches_labels(&record.config.labels, &filter.label_selector)
        };
        let records: Vec<SandboxRecord> = self.0.sandboxes.lock().values().filter(wanted).cloned().collect();
        let runtime = self.0.clone();
        blocking(move || Ok(records.iter().map(|record| runtime.pod_stats_of(record)).collect())).await
    }

    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()> {
        self.0.network.configure(pod_cidr).await.map_err(CriError::Internal)
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let condition = |kind: &str, result: std::result::Result<(), String>, reason: &str| RuntimeCondition {
            r#type: kind.into(),
            status: result.is_ok(),
            reason: if result.is_ok() { String::new() } else { reason.into() },
            message: result.err().unwrap_or_default(),
        };
        let supervisor = self.0.client.lock().is_some().then_some(()).ok_or_else(|| "the container supervisor is not reachable".to_owned());
        Ok(RuntimeStatus {
            conditions: vec![
                condition("RuntimeReady", supervisor, "SupervisorNotReady"),
                condition("NetworkReady", self.0.network.ready(), "NetworkPluginNotReady"),
            ],
            handlers: vec![RuntimeHandler { name: String::new(), recursive_read_only_mounts: true, user_namespaces: true }],
            supplemental_groups_policy: true,
        })
    }

    async fn container_events(&self) -> Result<mpsc::Receiver<ContainerEvent>> {
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        self.0.listeners.lock().push(sender);
        Ok(receiver)
    }
}
