//! Carrying out a plan, in upstream's order: kill, volumes, sandbox, ephemeral, init, containers.

use super::container::{self, Prepared};
use super::kill;
use super::plan::Actions;
use super::sandbox;
use super::spec::{self, KillReason};
use super::status::StartFailure;
use super::view::{Run, State, View};
use crate::agent::Agent;
use crate::backoff::Backoff;
use crate::env::{self, Sources};
use crate::images::Present;
use crate::metrics::count;
use crate::volumes::{self, Known, MountError, Mounted, Need};
use crate::{hooks, hosts, resources};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use tiphys_cri as cri;
use tiphys_types::api::core::v1::{Container, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the worker and its jobs share.
pub(crate) struct Progress {
    /// Why containers do not start, by name.
    pub(crate) failures: Mutex<HashMap<String, StartFailure>>,
    pub(crate) backoff: Mutex<Backoff>,
    /// When the volumes' tokens must be renewed.
    pub(crate) renew: Mutex<Option<Timestamp>>,
    pub(crate) changed: Box<dyn Fn() + Send + Sync>,
}

/// How a job ended.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What went wrong with the pod as a whole; it is tried again later.
    pub(crate) error: Option<String>,
    /// When a container that waits may be tried again.
    pub(crate) again: Option<Timestamp>,
    /// Something failed that has no time of its own.
    pub(crate) failed: bool,
}

pub(crate) struct Job {
    pub(crate) agent: Arc<Agent>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) view: View,
    pub(crate) actions: Actions,
    pub(crate) progress: Arc<Progress>,
    pub(crate) cancel: CancellationToken,
}

struct Started {
    sandbox_id: String,
    config: cri::PodSandboxConfig,
    pod_ips: Vec<String>,
    volumes: BTreeMap<String, Mounted>,
    sources: Sources,
    pull_secrets: Vec<Arc<Secret>>,
}

impl Job {
    /// Containers are stopped so that others of the same name can start.
    pub(crate) fn replaces(&self) -> bool {
        !self.actions.kill.is_empty() && !self.actions.containers.is_empty()
    }

    pub(crate) async fn run(self) -> Report {
        let mut report = Report::default();
        if let Err(error) = self.all(&mut report).await {
            report.error = Some(error);
        }
        report
    }

    async fn all(&self, report: &mut Report) -> Result<(), String> {
        let actions = &self.actions;
        let (_keep, grace) = watch::channel(None);
        if actions.kill_pod {
            if actions.create_sandbox && actions.sandbox_id.is_some() {
                self.agent.events.normal(&self.pod, None, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
            }
            kill::pod(&self.agent, &self.pod, &self.view, grace).await?;
            if !actions.create_sandbox {
                return Ok(());
            }
            self.purge_init().await;
        } else {
            for one in &actions.kill {
                let Some(run) = self.view.by_id(&one.id) else { continue };
                kill::container(&self.agent, &self.pod, run, &one.message, one.reason, grace.clone(), None).await?;
            }
            self.resize().await?;
        }
        if actions.init.is_empty() && actions.containers.is_empty() && actions.ephemeral.is_empty() && !actions.create_sandbox {
            return Ok(());
        }
        let started = self.prepare().await?;
        self.start_all(&started, report).await;
        Ok(())
    }

    /// With a new sandbox init containers run again from the first, so what they left must not be mistaken for done.
    async fn purge_init(&self) {
        for container in spec::init_containers(&self.pod) {
            for run in self.view.runs.iter().filter(|r| r.name == container.name) {
                if let Err(error) = self.agent.runtime.remove_container(&run.id).await {
                    tracing::warn!(%error, id = run.id, "cannot remove an init container");
                }
            }
        }
    }

    async fn resize(&self) -> Result<(), String> {
        if self.actions.resize.is_empty() {
            return Ok(());
        }
        let memory = self.agent.machine.memory;
        // Limits of the pod rise before those of its containers and fall after them; the kernel refuses the other order.
        let early = self.agent.groups.apply(&self.pod);
        if let Some(sandbox) = self.view.ready_sandbox() {
            let overhead = resources::overhead(&self.pod).unwrap_or_default();
            let whole = resources::of_pod(&self.pod);
            self.agent.runtime.update_pod_sandbox_resources(&sandbox.id, &overhead, &whole).await.map_err(|e| e.to_string())?;
        }
        for one in &self.actions.resize {
            let Some(container) = spec::container(&self.pod, &one.name) else { continue };
            let mut wanted = resources::of_container(&self.pod, &container, memory);
            // Zero means "as it is" to the runtime; a limit that is gone is told as unlimited.
            wanted.cpu_quota = if wanted.cpu_quota == 0 { -1 } else { wanted.cpu_quota };
            wanted.memory_limit_in_bytes = if wanted.memory_limit_in_bytes == 0 { -1 } else { wanted.memory_limit_in_bytes };
            wanted.memory_swap_limit_in_bytes = wanted.memory_limit_in_bytes;
            self.agent.runtime.update_container_resources(&one.id, &wanted).await.map_err(|e| e.to_string())?;
        }
        if early.is_err() { self.agent.groups.apply(&self.pod) } else { Ok(()) }
    }

    fn layout(&self) -> &volumes::Layout {
        self.agent.volumes.layout()
    }

    /// Folders, volumes, sandbox.
    async fn prepare(&self) -> Result<Started, String> {
        let (agent, pod) = (&self.agent, &self.pod);
        let failed = |e: std::io::Error| format!("error making pod data directories: {e}");
        std::fs::create_dir_all(self.layout().pod(spec::uid(pod))).map_err(failed)?;
        std::fs::create_dir_all(sandbox::log_directory(&agent.config.pod_logs_dir, pod)).map_err(failed)?;
        agent.groups.ensure(pod)?;
        agent.groups.share_cpu(agent);
        let sources = read_sources(agent, pod).await;
        let volumes = set_up_volumes(agent, pod, &sources, self.view.ips(), &self.progress).await.map_err(|error| {
            let message = format!("MountVolume.SetUp failed for volume {:?} : {}", error.volume, error.message);
            agent.events.warning(pod, None, "FailedMount", &message);
            message
        })?;
        let mut config = sandbox::config(pod, self.actions.attempt, &agent.sandbox_node())?;
        config.linux.security_context.namespace_options.userns_options = agent.users.of(pod)?;
        let (sandbox_id, mut pod_ips) = match (&self.actions.sandbox_id, self.actions.create_sandbox) {
            (Some(id), false) => (id.clone(), self.view.ips().to_vec()),
            _ => self.create_sandbox(&config).await?,
        };
        if spec::host_network(pod) {
            pod_ips = agent.host_ips();
        }
        let pull_secrets = pull_secrets(pod, &sources);
        Ok(Started { sandbox_id, config, pod_ips, volumes, sources, pull_secrets })
    }

    async fn create_sandbox(&self, config: &cri::PodSandboxConfig) -> Result<(String, Vec<String>), String> {
        let (agent, pod) = (&self.agent, &self.pod);
        count(&agent.metrics.started_pods);
        let handler = runtime_handler(agent, pod).await?;
        let id = agent.runtime.run_pod_sandbox(config.clone(), &handler).await.map_err(|error| {
            count(&agent.metrics.started_pod_errors);
            agent.events.warning(pod, None, "FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {error}"));
            format!("Failed to create pod sandbox: {error}")
        })?;
        let status = agent.runtime.pod_sandbox_status(&id).await.map_err(|error| {
            agent.events.warning(pod, None, "FailedPodSandBoxStatus", &format!("Unable to get pod sandbox status: {error}"));
            error.to_string()
        })?;
        // The addresses may be shown now, before images are pulled (KEP-3085).
        (self.progress.changed)();
        Ok((id, status.ips))
    }

    async fn start_all(&self, started: &Started, report: &mut Report) {
        let ephemeral = spec::ephemeral_containers(&self.pod);
        for index in &self.actions.ephemeral {
            let target = spec::spec(&self.pod).ephemeral_containers.as_ref().and_then(|l| l.get(*index)?.target_container_name.clone());
            if let Some(container) = ephemeral.get(*index) {
                self.start(started, container, target.as_deref(), report).await;
            }
        }
        for index in &self.actions.init {
            let Some(container) = spec::init_containers(&self.pod).get(*index) else { continue };
            let ok = self.start(started, container, None, report).await;
            if !ok && !spec::is_sidecar(container) {
                return;
            }
        }
        for index in &self.actions.containers {
            if let Some(container) = spec::containers(&self.pod).get(*index) {
                self.start(started, container, None, report).await;
            }
        }
    }

    /// True when the container has been started.
    async fn start(&self, started: &Started, container: &Container, target: Option<&str>, report: &mut Report) -> bool {
        if self.cancel.is_cancelled() {
            return false;
        }
        let result = match self.in_backoff(container) {
            Some(waiting) => Err(waiting),
            None => {
                count(&self.agent.metrics.started_containers);
                let result = self.start_now(started, container, target).await;
                if result.is_err() {
                    count(&self.agent.metrics.started_container_errors);
                }
                result
            }
        };
        match result {
            Ok(()) => {
                self.progress.failures.lock().remove(&container.name);
                self.prune(container).await;
                true
            }
            Err((failure, again)) => {
                match again {
                    Some(again) => report.again = Some(report.again.map_or(again, |t| t.min(again))),
                    None => report.failed = true,
                }
                self.progress.failures.lock().insert(container.name.clone(), failure);
                (self.progress.changed)();
                false
            }
        }
    }

    fn in_backoff(&self, container: &Container) -> Option<Failed> {
        let ended = self.view.runs.iter().find(|r| r.name == container.name && r.state == State::Exited)?;
        let now = self.agent.clock.now();
        let key = format!("{}:{}", container.name, resources::container_hash(container));
        let mut backoff = self.progress.backoff.lock();
        let place = spec::format(&self.pod);
        if let Some(until) = backoff.until(&key, ended.finished_at, now) {
            let words = format!("Back-off restarting failed container {} in pod {place}", container.name);
            self.agent.events.warning(&self.pod, Some(&container.name), "BackOff", &words);
            let wait = tiphys_meta::duration::go_string(backoff.wait(&key).as_nanos() as i64);
            let message = format!("back-off {wait} restarting failed container={} pod={place}", container.name);
            return Some((StartFailure { reason: "CrashLoopBackOff".into(), message }, Some(until)));
        }
        backoff.next(&key, ended.finished_at, now);
        None
    }

    async fn start_now(&self, started: &Started, container: &Container, target: Option<&str>) -> Result<(), Failed> {
        let (agent, pod, name) = (&self.agent, &self.pod, Some(container.name.as_str()));
        let fail = |reason: &str, message: String| {
            agent.events.warning(pod, name, "Failed", &format!("Error: {message}"));
            (StartFailure { reason: reason.into(), message }, None)
        };
        let pulling = agent.images.ensure(pod, container, &started.pull_secrets, &started.config, &agent.events);
        let image = tokio::select! {
            image = pulling => image.inspect_err(|(failure, _)| {
                agent.events.warning(pod, name, "Failed", &format!("Error: {}", failure.reason));
            })?,
            () = self.cancel.cancelled() => return Err(fail("ContainerCreating", "the pod is being terminated".into())),
        };
        for volume in image_volumes(pod, container) {
            agent.images.ensure(pod, &volume, &started.pull_secrets, &started.config, &agent.events).await?;
        }
        let target_id = target.and_then(|t| self.view.run(t)).map(|r| r.id.clone());
        let config = self.container_config(started, container, image, target_id).map_err(|e| fail("CreateContainerConfigError", e))?;
        let created = agent.runtime.create_container(&started.sandbox_id, config, &started.config).await;
        let id = created.map_err(|e| fail("CreateContainerError", e.to_string()))?;
        agent.events.normal(pod, name, "Created", "Container created");
        agent.runtime.start_container(&id).await.map_err(|e| fail("RunContainerError", e.to_string()))?;
        agent.events.normal(pod, name, "Started", "Container started");
        (self.progress.changed)();
        self.post_start(container, &id).await
    }

    async fn post_start(&self, container: &Container, id: &str) -> Result<(), Failed> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(()) };
        let (agent, pod) = (&self.agent, &self.pod);
        let Ok(status) = agent.runtime.container_status(id).await else { return Ok(()) };
        let run = Run::from_status(status);
        let result = tokio::select! {
            result = hooks::run(agent, pod, container, &run, hook) => result,
            () = self.cancel.cancelled() => return Ok(()),
        };
        let Err(message) = result else { return Ok(()) };
        agent.events.warning(pod, Some(&container.name), "FailedPostStartHook", "PostStartHook failed");
        let (_keep, grace) = watch::channel(None);
        if let Err(error) = kill::container(agent, pod, &run, "FailedPostStartHook", KillReason::PostStart, grace, None).await {
            tracing::warn!(error, id, "cannot kill a container after its PostStart hook failed");
        }
        Err((StartFailure { reason: "PostStartHookError".into(), message }, None))
    }

    fn container_config(
        &self,
        started: &Started,
        container: &Container,
        image: Present,
        target_id: Option<String>,
    ) -> Result<cri::ContainerConfig, String> {
        let (agent, pod) = (&self.agent, &self.pod);
        if !agent.services.is_synced() && !spec::is_static(pod) {
            return Err("services have not yet been read at least once, cannot construct envvars".into());
        }
        let restart_count = self.next_restart_count(container);
        let known = agent.field_known(&started.pod_ips);
        let environment = env::environment(pod, container, &agent.services.list(), &started.sources, &known)?;
        let mut mounts = volumes::mounts_of(self.layout(), spec::uid(pod), container, &started.volumes, &environment)?;
        mounts.extend(self.hosts_mount(container, &started.pod_ips)?);
        mounts.extend(self.message_mount(container)?);
        let logs = sandbox::log_directory(&agent.config.pod_logs_dir, pod).join(&container.name);
        std::fs::create_dir_all(&logs)
            .map_err(|e| format!("create container log directory for container {} failed: {e}", container.name))?;
        let mut config = container::config(
            pod,
            container,
            Prepared {
                environment,
                mounts,
                devices: Vec::new(),
                image_ref: image.reference,
                image_user: image.user,
                restart_count,
                memory_capacity: agent.machine.memory,
                seccomp_folder: agent.config.seccomp_root.to_string_lossy().into_owned(),
                target_id,
            },
        )?;
        let options = &started.config.linux.security_context.namespace_options;
        config.linux.security_context.namespace_options.userns_options.clone_from(&options.userns_options);
        Ok(config)
    }

    /// One more than the last run's; after a loss of the runtime's state, one more than the last log's.
    fn next_restart_count(&self, container: &Container) -> i32 {
        if let Some(run) = self.view.run(&container.name) {
            return run.restart_count + 1;
        }
        let folder = sandbox::log_directory(&self.agent.config.pod_logs_dir, &self.pod).join(&container.name);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let numbers = entries.filter_map(|e| e.file_name().to_string_lossy().split('.').next()?.parse::<i32>().ok());
        numbers.max().map_or(0, |last| last + 1)
    }

    fn hosts_mount(&self, container: &Container, pod_ips: &[String]) -> Result<Option<cri::Mount>, String> {
        let pod = &self.pod;
        let own = container.volume_mounts.iter().flatten().any(|m| m.mount_path == "/etc/hosts");
        if own || (pod_ips.is_empty() && !spec::host_network(pod)) {
            return Ok(None);
        }
        let aliases = spec::spec(pod).host_aliases.as_deref().unwrap_or_default();
        let text = if spec::host_network(pod) {
            hosts::of_node(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), aliases)
        } else {
            hosts::managed(pod_ips, &hosts::names(pod, &self.agent.config.cluster_domain), aliases)
        };
        let path = self.layout().etc_hosts(spec::uid(pod));
        write_mode(&path, text.as_bytes(), 0o644).map_err(|e| format!("writing {}: {e}", path.display()))?;
        Ok(Some(mount(path, "/etc/hosts")))
    }

    fn message_mount(&self, container: &Container) -> Result<Option<cri::Mount>, String> {
        let Some(inside) = container.termination_message_path.as_deref().filter(|p| !p.is_empty()) else { return Ok(None) };
        let folder = self.layout().container(spec::uid(&self.pod), &container.name);
        let failed = |e: std::io::Error| format!("error on creating termination-log file {}: {e}", folder.display());
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let unique = format!("{:08x}", tiphys_sys::time::realtime_nanos() as u32 ^ self.next_restart_count(container) as u32);
        let path = folder.join(unique);
        // Any user of the container may write its last words.
        write_mode(&path, b"", 0o666).map_err(failed)?;
        Ok(Some(mount(path, inside)))
    }

    /// Keeps one ended run of a container for its last state and `logs --previous`; older ones go with their logs.
    async fn prune(&self, container: &Container) {
        let mut ended = self.view.runs.iter().filter(|r| r.name == container.name && r.state != State::Running);
        ended.next();
        for run in ended {
            if let Err(error) = self.agent.runtime.remove_container(&run.id).await {
                tracing::warn!(%error, id = run.id, "cannot remove an old container");
                continue;
            }
            let folder = sandbox::log_directory(&self.agent.config.pod_logs_dir, &self.pod).join(&container.name);
            crate::logs::remove(&folder, run.restart_count);
        }
    }
}

type Failed = (StartFailure, Option<Timestamp>);

/// The images that a container mounts (KEP-4639), each as a container that wants it.
fn image_volumes(pod: &Pod, container: &Container) -> Vec<Container> {
    let mounted = |name: &str| container.volume_mounts.iter().flatten().any(|m| m.name == name);
    let volumes = spec::spec(pod).volumes.iter().flatten().filter(|v| mounted(&v.name));
    let images = volumes.filter_map(|v| v.image.as_ref());
    images
        .map(|i| Container {
            name: container.name.clone(),
            image: i.reference.clone(),
            image_pull_policy: i.pull_policy.clone(),
            ..Container::default()
        })
        .collect()
}

fn mount(path: PathBuf, inside: &str) -> cri::Mount {
    cri::Mount { container_path: inside.into(), host_path: path.to_string_lossy().into_owned(), ..cri::Mount::default() }
}

fn write_mode(path: &std::path::Path, data: &[u8], mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, data)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

async fn runtime_handler(agent: &Agent, pod: &Pod) -> Result<String, String> {
    use tiphys_types::api::node::v1::RuntimeClass;
    let Some(name) = spec::spec(pod).runtime_class_name.as_deref().filter(|n| !n.is_empty()) else { return Ok(String::new()) };
    let class = agent.client.get::<RuntimeClass>("", name).await.map_err(|e| format!("failed to get sandbox runtime: {e}"))?;
    Ok(class.handler)
}

fn pull_secrets(pod: &Pod, sources: &Sources) -> Vec<Arc<Secret>> {
    let names = spec::spec(pod).image_pull_secrets.iter().flatten();
    // One that is not there may not be needed: the pull will tell.
    names.filter_map(|r| sources.secret(&r.name).ok()).collect()
}

/// Registers what the pod refers to, and reads it.
pub(crate) async fn read_sources(agent: &Agent, pod: &Pod) -> Sources {
    let need = Need::of(pod);
    let namespace = spec::namespace(pod);
    let keys = |names: &HashSet<String>| names.iter().map(|n| (namespace.to_owned(), n.clone())).collect();
    agent.config_maps.register(spec::uid(pod), keys(&need.config_maps));
    agent.secrets.register(spec::uid(pod), keys(&need.secrets));
    let mut sources = Sources::default();
    for name in need.config_maps {
        let found = agent.config_maps.get(namespace, &name).await;
        sources.config_maps.insert(name, found);
    }
    for name in need.secrets {
        let found = agent.secrets.get(namespace, &name).await;
        sources.secrets.insert(name, found);
    }
    sources
}

async fn known(agent: &Agent, pod: &Pod, ips: &[String], progress: &Progress) -> Known {
    let mut known = Known { fields: agent.field_known(ips), ..Known::default() };
    let mut renew: Option<Timestamp> = None;
    for (audience, seconds) in Need::of(pod).tokens {
        let key = crate::tokens::TokenKey {
            namespace: spec::namespace(pod).into(),
            service_account: spec::spec(pod).service_account_name.clone().unwrap_or_default(),
            pod: spec::name(pod).into(),
            uid: spec::uid(pod).into(),
            audience: audience.clone(),
            seconds,
        };
        let token = agent.tokens.get(&key).await;
        if let Ok(token) = &token {
            renew = Some(renew.map_or(token.renew, |r| r.min(token.renew)));
        }
        known.tokens.insert((audience, seconds), token.map(|t| t.text));
    }
    *progress.renew.lock() = renew;
    known
}

type Claims = BTreeMap<String, Result<(PersistentVolumeClaim, PersistentVolume), String>>;

async fn claims(agent: &Agent, pod: &Pod) -> Claims {
    let mut claims = Claims::new();
    for (volume, claim) in Need::of(pod).claims {
        claims.insert(volume, bound_claim(agent, pod, &claim).await);
    }
    claims
}

async fn bound_claim(agent: &Agent, pod: &Pod, name: &str) -> Result<(PersistentVolumeClaim, PersistentVolume), String> {
    let namespace = spec::namespace(pod);
    let claim: PersistentVolumeClaim = agent
        .client
        .get(namespace, name)
        .await
        .map_err(|e| format!("error processing PVC {namespace}/{name}: failed to fetch PVC from API server: {e}"))?;
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|v| bound && !v.is_empty());
    let volume = volume.ok_or_else(|| format!("error processing PVC {namespace}/{name}: PVC is not bound"))?;
    let volume: PersistentVolume =
        agent.client.get("", &volume).await.map_err(|e| format!("error processing PVC {namespace}/{name}: {e}"))?;
    let ours = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).is_none_or(|r| r.uid == claim.metadata.uid);
    if !ours {
        return Err(format!("error processing PVC {namespace}/{name}: the volume is bound to another claim"));
    }
    Ok((claim, volume))
}

async fn set_up_volumes(
    agent: &Agent,
    pod: &Pod,
    sources: &Sources,
    ips: &[String],
    progress: &Progress,
) -> Result<BTreeMap<String, Mounted>, MountError> {
    let known = known(agent, pod, ips, progress).await;
    let claims = claims(agent, pod).await;
    agent.volumes.set_up(&volumes::Request { pod, sources, known: &known, claims: &claims, node_memory: agent.machine.memory })
}

/// Brings mounted volumes up to date after a change of the pod, of an object, or when a token is due.
pub(crate) async fn refresh_volumes(agent: &Agent, pod: &Pod, ips: &[String], progress: &Progress) {
    if !agent.volumes.is_set_up(spec::uid(pod)) {
        return;
    }
    let sources = read_sources(agent, pod).await;
    let known = known(agent, pod, ips, progress).await;
    let claims = Claims::new();
    let request = volumes::Request { pod, sources: &sources, known: &known, claims: &claims, node_memory: agent.machine.memory };
    if let Err(error) = agent.volumes.refresh(&request) {
        let message = format!("MountVolume.SetUp failed for volume {:?} : {}", error.volume, error.message);
        agent.events.warning(pod, None, "FailedMount", &message);
    }
}
