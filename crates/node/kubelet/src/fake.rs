//! For tests: a container runtime in memory that does what a script says, an API server around tiphys-testing's fake, and a
//! clock that goes with tokio's, so that whole lives of pods pass in no time.

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tiphys_base::clock::Clock;
use tiphys_client::{Backend, Client, ClientError, Request, Response, WatchStream};
use tiphys_cri::{self as cri, *};
use tiphys_testing::FakeApi;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Time as tokio has it, from a fixed start.
pub(crate) struct TestClock(Instant);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(TestClock(Instant::now()))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let start = Timestamp::from_second(1_800_000_000).unwrap_or(Timestamp::UNIX_EPOCH);
        start.checked_add(self.0.elapsed()).unwrap_or(start)
    }
}

/// What a container does when it is started.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Run,
    /// Runs on after SIGTERM.
    Stubborn,
    Exit(Duration, i32),
}

struct Held {
    status: ContainerStatus,
    act: Act,
    ended: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    containers: BTreeMap<String, Held>,
    scripts: BTreeMap<String, VecDeque<Act>>,
    listeners: Vec<mpsc::Sender<ContainerEvent>>,
    exec: BTreeMap<String, VecDeque<i32>>,
    missing_images: Vec<String>,
}

pub(crate) struct FakeRuntime {
    state: Mutex<State>,
    clock: Arc<TestClock>,
    pub(crate) trace: Trace,
}

/// What happened, with the seconds since the start.
#[derive(Clone)]
pub(crate) struct Trace {
    lines: Arc<Mutex<Vec<String>>>,
    start: Instant,
}

impl Trace {
    fn new() -> Self {
        Trace { lines: Arc::default(), start: Instant::now() }
    }

    pub(crate) fn add(&self, what: impl std::fmt::Display) {
        self.lines.lock().push(format!("{:>4} {what}", self.start.elapsed().as_secs()));
    }

    pub(crate) fn text(&self) -> String {
        self.lines.lock().join("\n")
    }
}

impl FakeRuntime {
    pub(crate) fn new(clock: Arc<TestClock>) -> Arc<Self> {
        Arc::new(FakeRuntime { state: Mutex::default(), clock, trace: Trace::new() })
    }

    /// What the runs of a container do, one after another; after that they run.
    pub(crate) fn script(&self, name: &str, acts: impl IntoIterator<Item = Act>) {
        self.state.lock().scripts.insert(name.into(), acts.into_iter().collect());
    }

    /// Exit codes of commands run in a container by exec_sync; after that 0.
    pub(crate) fn exec_codes(&self, name: &str, codes: impl IntoIterator<Item = i32>) {
        self.state.lock().exec.insert(name.into(), codes.into_iter().collect());
    }

    pub(crate) fn image_is_missing(&self, image: &str) {
        self.state.lock().missing_images.push(image.into());
    }

    fn now(&self) -> i64 {
        self.clock.now().as_nanosecond() as i64
    }

    fn tell(&self, state: &mut State, id: &str, event_type: ContainerEventType) {
        let sandbox_id = state.containers.get(id).map_or(id, |c| &c.status.pod_sandbox_id).to_owned();
        let pod_sandbox_status = state.sandboxes.get(&sandbox_id).cloned();
        let event = ContainerEvent { container_id: id.into(), event_type, pod_sandbox_status, ..ContainerEvent::default() };
        state.listeners.retain(|l| l.try_send(event.clone()).is_ok());
    }

    fn end(&self, id: &str, code: i32) {
        let now = self.now();
        let mut state = self.state.lock();
        let Some(held) = state.containers.get_mut(id).filter(|c| c.status.state == ContainerState::Running) else { return };
        held.status.state = ContainerState::Exited;
        held.status.exit_code = code;
        held.status.finished_at = now;
        held.status.reason = if code == 0 { "Completed".into() } else { "Error".into() };
        held.ended.send_replace(true);
        self.trace.add(format_args!("{} ended with {code}", held.status.metadata.name));
        self.tell(&mut state, id, ContainerEventType::Stopped);
    }
}

/// The runtime by reference, for futures that outlive a call.
pub(crate) struct Shared(pub(crate) Arc<FakeRuntime>);

#[async_trait]
impl RuntimeService for Shared {
    async fn version(&self) -> cri::Result<VersionResponse> {
        Ok(VersionResponse { runtime_name: "fake".into(), runtime_version: "1".into(), ..VersionResponse::default() })
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig, _handler: &str) -> cri::Result<String> {
        let (this, now) = (&self.0, self.0.now());
        let mut state = this.state.lock();
        state.next += 1;
        let id = format!("s{}", state.next);
        this.trace.add(format_args!("sandbox of {} made, attempt {}", config.metadata.name, config.metadata.attempt));
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            created_at: now,
            ips: vec![format!("10.0.0.{}", state.next)],
            namespaces: config.linux.security_context.namespace_options,
            labels: config.labels,
            ..PodSandboxStatus::default()
        };
        state.sandboxes.insert(id.clone(), status);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> cri::Result<()> {
        let mut state = self.0.state.lock();
        if let Some(sandbox) = state.sandboxes.get_mut(id).filter(|s| s.state == PodSandboxState::Ready) {
            sandbox.state = PodSandboxState::NotReady;
            self.0.trace.add(format_args!("sandbox of {} stopped", sandbox.metadata.name));
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> cri::Result<()> {
        let mut state = self.0.state.lock();
        if let Some(sandbox) = state.sandboxes.remove(id) {
            self.0.trace.add(format_args!("sandbox of {} removed", sandbox.metadata.name));
        }
        state.containers.retain(|_, c| c.status.pod_sandbox_id != id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> cri::Result<PodSandboxStatus> {
        self.0.state.lock().sandboxes.get(id).cloned().ok_or_else(|| CriError::NotFound(id.into()))
    }

    async fn list_pod_sandboxes(&self, filter: &PodSandboxFilter) -> cri::Result<Vec<PodSandbox>> {
        let fits = |labels: &cri::Map| filter.label_selector.iter().all(|(k, v)| labels.get(k) == Some(v));
        let state = self.0.state.lock();
        let found = state.sandboxes.values().filter(|s| fits(&s.labels));
        Ok(found
            .map(|s| PodSandbox { id: s.id.clone(), metadata: s.metadata.clone(), labels: s.labels.clone(), ..PodSandbox::default() })
            .collect())
    }

    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig, _: &PodSandboxConfig) -> cri::Result<String> {
        let now = self.0.now();
        let mut state = self.0.state.lock();
        state.next += 1;
        let id = format!("c{}", state.next);
        let act = state.scripts.get_mut(&config.metadata.name).and_then(VecDeque::pop_front).unwrap_or(Act::Run);
        let status = ContainerStatus {
            id: id.clone(),
            pod_sandbox_id: sandbox_id.into(),
            metadata: config.metadata,
            created_at: now,
            image: config.image.clone(),
            image_ref: format!("{}@sha256:1", config.image.user_specified_image),
            labels: config.labels,
            annotations: config.annotations,
            mounts: config.mounts,
            resources: config.linux.resources,
            ..ContainerStatus::default()
        };
        state.containers.insert(id.clone(), Held { status, act, ended: watch::Sender::new(false) });
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> cri::Result<()> {
        let now = self.0.now();
        let mut state = self.0.state.lock();
        let held = state.containers.get_mut(id).ok_or_else(|| CriError::NotFound(id.into()))?;
        held.status.state = ContainerState::Running;
        held.status.started_at = now;
        self.0.trace.add(format_args!("{} started, run {}", held.status.metadata.name, held.status.metadata.attempt));
        if let Act::Exit(after, code) = held.act {
            let (runtime, id) = (self.0.clone(), id.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                runtime.end(&id, code);
            });
        }
        self.0.tell(&mut state, id, ContainerEventType::Started);
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> cri::Result<()> {
        let (act, mut ended) = {
            let state = self.0.state.lock();
            let Some(held) = state.containers.get(id).filter(|c| c.status.state == ContainerState::Running) else { return Ok(()) };
            self.0.trace.add(format_args!("{} told to stop within {} s", held.status.metadata.name, grace.as_secs()));
            (held.act, held.ended.subscribe())
        };
        match act {
            Act::Stubborn => {
                if tokio::time::timeout(grace, ended.wait_for(|e| *e)).await.is_err() {
                    self.0.end(id, 137);
                }
            }
            _ => self.0.end(id, 143),
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> cri::Result<()> {
        self.0.state.lock().containers.remove(id);
        Ok(())
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> cri::Result<Vec<Container>> {
        let fits = |labels: &cri::Map| filter.label_selector.iter().all(|(k, v)| labels.get(k) == Some(v));
        let state = self.0.state.lock();
        let found = state.containers.values().map(|c| &c.status).filter(|s| fits(&s.labels));
        Ok(found.map(|s| Container { id: s.id.clone(), labels: s.labels.clone(), ..Container::default() }).collect())
    }

    async fn container_status(&self, id: &str) -> cri::Result<ContainerStatus> {
        self.0.state.lock().containers.get(id).map(|c| c.status.clone()).ok_or_else(|| CriError::NotFound(id.into()))
    }

    async fn update_container_resources(&self, id: &str, resources: &LinuxContainerResources) -> cri::Result<()> {
        let mut state = self.0.state.lock();
        let held = state.containers.get_mut(id).ok_or_else(|| CriError::NotFound(id.into()))?;
        let name = &held.status.metadata.name;
        self.0.trace.add(format_args!("{name} resized to {} shares, {} bytes", resources.cpu_shares, resources.memory_limit_in_bytes));
        held.status.resources = Some(resources.clone());
        Ok(())
    }

    async fn update_pod_sandbox_resources(&self, _: &str, _: &LinuxContainerResources, _: &LinuxContainerResources) -> cri::Result<()> {
        Ok(())
    }

    async fn reopen_container_log(&self, _: &str) -> cri::Result<()> {
        Ok(())
    }

    async fn exec_sync(&self, id: &str, _: &[String], _: Duration) -> cri::Result<ExecSyncResponse> {
        let mut state = self.0.state.lock();
        let name = state.containers.get(id).map(|c| c.status.metadata.name.clone()).ok_or_else(|| CriError::NotFound(id.into()))?;
        let exit_code = state.exec.get_mut(&name).and_then(VecDeque::pop_front).unwrap_or(0);
        Ok(ExecSyncResponse { stdout: b"said".to_vec(), stderr: Vec::new(), exit_code })
    }

    async fn exec(&self, _: ExecRequest) -> cri::Result<Stream> {
        let stdout: BoxRead = Box::new(&b"hello"[..]);
        let exit = Box::pin(async { Ok(3) });
        Ok(Stream::Direct(Stdio { stdin: None, stdout: Some(stdout), stderr: None, resize: None, exit }))
    }

    async fn attach(&self, _: AttachRequest) -> cri::Result<Stream> {
        Err(CriError::Unimplemented("attach".into()))
    }

    async fn port_forward(&self, _: &str, _: u16) -> cri::Result<PortStream> {
        let (ours, theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(theirs);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        Ok(PortStream::Direct(Box::new(ours)))
    }

    async fn container_stats(&self, id: &str) -> cri::Result<ContainerStats> {
        Err(CriError::NotFound(id.into()))
    }

    async fn list_container_stats(&self, _: &ContainerStatsFilter) -> cri::Result<Vec<ContainerStats>> {
        Ok(Vec::new())
    }

    async fn pod_sandbox_stats(&self, id: &str) -> cri::Result<PodSandboxStats> {
        Err(CriError::NotFound(id.into()))
    }

    async fn list_pod_sandbox_stats(&self, _: &PodSandboxStatsFilter) -> cri::Result<Vec<PodSandboxStats>> {
        Ok(Vec::new())
    }

    async fn update_runtime_config(&self, _: &str) -> cri::Result<()> {
        Ok(())
    }

    async fn status(&self) -> cri::Result<RuntimeStatus> {
        Ok(RuntimeStatus::default())
    }

    async fn container_events(&self) -> cri::Result<mpsc::Receiver<ContainerEvent>> {
        let (sender, receiver) = mpsc::channel(1024);
        self.0.state.lock().listeners.push(sender);
        Ok(receiver)
    }
}

#[async_trait]
impl ImageService for Shared {
    async fn list_images(&self, _: Option<&ImageSpec>) -> cri::Result<Vec<Image>> {
        Ok(Vec::new())
    }

    async fn image_status(&self, image: &ImageSpec) -> cri::Result<Option<Image>> {
        let missing = self.0.state.lock().missing_images.contains(&image.user_specified_image);
        Ok((!missing).then(|| Image { id: "sha256:0".into(), ..Image::default() }))
    }

    async fn pull_image(&self, image: &ImageSpec, _: Option<&AuthConfig>, _: Option<&PodSandboxConfig>) -> cri::Result<String> {
        self.0.trace.add(format_args!("pull of {}", image.image));
        Err(CriError::NotFound("no such image".into()))
    }

    async fn remove_image(&self, _: &ImageSpec) -> cri::Result<()> {
        Ok(())
    }

    async fn image_fs_info(&self) -> cri::Result<ImageFsInfo> {
        Ok(ImageFsInfo::default())
    }
}

/// The fake API server with strategic merge of the lists that statuses have, and tokens.
pub(crate) struct Api(pub(crate) FakeApi);

impl Api {
    pub(crate) fn client(api: &FakeApi) -> Client {
        Client::new(Arc::new(Api(api.clone())))
    }
}

#[async_trait]
impl Backend for Api {
    async fn call(&self, mut request: Request) -> std::result::Result<Response, ClientError> {
        if request.path.ends_with("/token") {
            let body = json!({"status": {"token": "jwt", "expirationTimestamp": "2099-01-01T00:00:00Z"}});
            return Ok(Response { status: 201, body: body.to_string().into(), warnings: vec![] });
        }
        if request.content_type.contains("strategic") {
            let path = request.path.trim_end_matches("/status").to_owned();
            let shown = self.0.call(Request::get(path)).await?;
            let shown: Value = serde_json::from_slice(&shown.body).unwrap_or_default();
            let mut patch: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            for (key, merge_key) in [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip"), ("addresses", "type")] {
                if let Some(list) = patch["status"][key].as_array().cloned() {
                    let old = shown["status"][key].as_array().cloned().unwrap_or_default();
                    patch["status"][key] = merge(old, list, merge_key);
                }
            }
            request.body = patch.to_string().into();
        }
        self.0.call(request).await
    }

    async fn watch(&self, path: String) -> std::result::Result<WatchStream, ClientError> {
        self.0.watch(path).await
    }
}

fn merge(mut old: Vec<Value>, changes: Vec<Value>, key: &str) -> Value {
    for change in changes {
        match change["$patch"].as_str() {
            Some("replace") => old.clear(),
            Some(_) => old.retain(|o| o[key] != change[key]),
            None => {
                let bare: serde_json::Map<_, _> =
                    change.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
                match old.iter_mut().find(|o| o[key] == change[key]) {
                    Some(place) => *place = Value::Object(bare),
                    None => old.push(Value::Object(bare)),
                }
            }
        }
    }
    Value::Array(old)
}
