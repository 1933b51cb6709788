//! One task per pod. It looks at what is wanted and what is there, decides by the pure functions, and lets jobs act, so that
//! it never waits for a pull, a hook or a grace period itself: statuses, probes and deletions go on meanwhile.
//!
//! Stages go one way: Running → Terminating (containers are being stopped) → Terminated (nothing runs, folders are gone).

use super::job::{self, Job, Progress, Report};
use super::observe::{self, Messages};
use super::plan;
use super::sandbox;
use super::spec::{self, ProbeKind};
use super::status::{self, Facts, Verdict};
use super::view::{State, View};
use super::{kill, patch, phase};
use crate::admission;
use crate::agent::Agent;
use crate::backoff::Backoff;
use crate::probe::{self, Board};
use crate::resources::{self, fnv};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tiphys_client::{ClientError, DeleteOptions, Patch};
use tiphys_types::api::core::v1::{Pod, PodCondition, PodStatus};
use tiphys_types::metav1::Time;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

/// An order to end a pod for the node's sake.
#[derive(Debug, Clone)]
pub(crate) struct Eviction {
    pub(crate) verdict: Verdict,
    /// None leaves the pod its own grace period.
    pub(crate) grace: Option<i64>,
    pub(crate) condition: Option<PodCondition>,
}

/// What the rest of the kubelet tells a worker. Only the latest counts.
#[derive(Default)]
struct Input {
    pod: Option<Arc<Pod>>,
    /// The API's copy of a static pod.
    mirror: Option<Option<Arc<Pod>>>,
    /// The API (or the file) has it no more.
    gone: bool,
    /// Something that volumes show has changed.
    touched: bool,
    eviction: Option<Eviction>,
}

/// The door to a worker.
#[derive(Clone)]
pub(crate) struct Handle {
    inbox: Arc<Inbox>,
}

struct Inbox {
    input: Mutex<Input>,
    wake: Notify,
    /// The pod, its newest status, and what the runtime had then: for the server and for admission.
    shown: Mutex<Shown>,
}

#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) pod: Arc<Pod>,
    pub(crate) status: Arc<PodStatus>,
    pub(crate) view: Arc<View>,
    /// Holds no resources any more.
    pub(crate) over: bool,
}

impl Handle {
    pub(crate) fn wake(&self) {
        self.inbox.wake.notify_one();
    }

    fn tell(&self, change: impl FnOnce(&mut Input)) {
        change(&mut self.inbox.input.lock());
        self.wake();
    }

    pub(crate) fn shown(&self) -> Shown {
        self.inbox.shown.lock().clone()
    }
}

/// All workers, by pod uid.
#[derive(Default)]
pub(crate) struct Workers {
    all: Mutex<HashMap<String, Handle>>,
}

impl Workers {
    fn get(&self, uid: &str) -> Option<Handle> {
        self.all.lock().get(uid).cloned()
    }

    pub(crate) fn update(&self, agent: &Arc<Agent>, pod: Arc<Pod>) {
        if let Some(handle) = self.get(spec::uid(&pod)) {
            return handle.tell(|input| input.pod = Some(pod));
        }
        let uid = spec::uid(&pod).to_owned();
        let verdict = admission::admit(agent, &pod).err();
        let status = Arc::new(pod.status.clone().unwrap_or_default());
        let shown = Shown { pod: pod.clone(), status, view: Arc::default(), over: verdict.is_some() };
        let handle = Handle { inbox: Arc::new(Inbox { input: Mutex::default(), wake: Notify::new(), shown: Mutex::new(shown) }) };
        self.all.lock().insert(uid, handle.clone());
        let worker = Worker::new(agent.clone(), handle, pod, verdict);
        agent.tasks.spawn("pod", worker.run());
    }

    /// The last state of a pod that the API has no more.
    pub(crate) fn remove(&self, pod: Arc<Pod>) {
        if let Some(handle) = self.get(spec::uid(&pod)) {
            handle.tell(|input| {
                if spec::is_deleted(&pod) {
                    input.pod = Some(pod);
                }
                input.gone = true;
            });
        }
    }

    pub(crate) fn mirror(&self, uid: &str, mirror: Option<Arc<Pod>>) {
        if let Some(handle) = self.get(uid) {
            handle.tell(|input| input.mirror = Some(mirror));
        }
    }

    pub(crate) fn wake(&self, uid: &str) {
        if let Some(handle) = self.get(uid) {
            handle.wake();
        }
    }

    pub(crate) fn touch(&self, uid: &str) {
        if let Some(handle) = self.get(uid) {
            handle.tell(|input| input.touched = true);
        }
    }

    pub(crate) fn evict(&self, uid: &str, eviction: Eviction) {
        if let Some(handle) = self.get(uid) {
            handle.tell(|input| input.eviction = Some(eviction));
        }
    }

    pub(crate) fn wake_all(&self) {
        self.all.lock().values().for_each(Handle::wake);
    }

    pub(crate) fn list(&self) -> Vec<Shown> {
        self.all.lock().values().map(Handle::shown).collect()
    }

    pub(crate) fn by_uid(&self, uid: &str) -> Option<Shown> {
        self.get(uid).map(|h| h.shown())
    }

    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Shown> {
        let mut found: Vec<Shown> =
            self.list().into_iter().filter(|s| spec::namespace(&s.pod) == namespace && spec::name(&s.pod) == name).collect();
        // A successor of the same name may be here while the former is being stopped.
        found.sort_by_key(|s| s.pod.metadata.creation_timestamp.clone());
        found.pop()
    }

    pub(crate) fn uids(&self) -> std::collections::HashSet<String> {
        self.all.lock().keys().cloned().collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Terminating,
    Terminated,
}

enum Ended {
    Synced(Report),
    Killed(Result<(), String>),
    Cleaned(Result<(), String>),
    Deleted(Result<(), ClientError>),
}

struct Worker {
    agent: Arc<Agent>,
    handle: Handle,
    pod: Arc<Pod>,
    mirror: Option<Arc<Pod>>,
    /// Asked for, but not given yet: a resize that the node has no room for, and why.
    wanted: Option<Arc<Pod>>,
    pending: Option<PodCondition>,
    gone: bool,
    eviction: Option<Eviction>,
    verdict: Option<Verdict>,
    /// Refused before anything was started.
    rejected: bool,
    stage: Stage,
    progress: Arc<Progress>,
    board: Arc<Board>,
    probes: HashMap<(ProbeKind, String), AbortHandle>,
    view: Arc<View>,
    messages: Messages,
    status: PodStatus,
    /// What the API has, as far as we know, and the resourceVersion of our last write.
    api: PodStatus,
    written: u64,
    job: Option<(JoinHandle<Ended>, CancellationToken)>,
    write: Option<JoinHandle<Result<Pod, ClientError>>>,
    refresh: Option<JoinHandle<()>>,
    touched: bool,
    grace: watch::Sender<Option<i64>>,
    /// Not to plan again before this time unless something has changed from this signature.
    blocked: Option<(u64, Timestamp)>,
    signature: u64,
    /// What the running job, or the last one, was planned for.
    planned: u64,
    error_wait: Duration,
    write_after: Option<Timestamp>,
    cleaned: bool,
    deleted: bool,
}

const FIRST_WAIT: Duration = Duration::from_millis(500);
const MAX_WAIT: Duration = Duration::from_secs(30);
const START_RETRY: SignedDuration = SignedDuration::from_secs(10);

impl Worker {
    fn new(agent: Arc<Agent>, handle: Handle, pod: Arc<Pod>, verdict: Option<Verdict>) -> Self {
        let waker = || {
            let handle = handle.clone();
            Box::new(move || handle.wake()) as Box<dyn Fn() + Send + Sync>
        };
        let progress =
            Progress { failures: Mutex::default(), backoff: Mutex::new(Backoff::restarts()), renew: Mutex::default(), changed: waker() };
        let board = Board { results: Mutex::default(), changed: waker() };
        let api = pod.status.clone().unwrap_or_default();
        Worker {
            rejected: verdict.is_some(),
            verdict,
            agent,
            handle,
            mirror: None,
            wanted: None,
            pending: None,
            gone: false,
            eviction: None,
            stage: Stage::Running,
            progress: Arc::new(progress),
            board: Arc::new(board),
            probes: HashMap::new(),
            view: Arc::default(),
            messages: Messages::new(),
            status: api.clone(),
            api,
            written: 0,
            job: None,
            write: None,
            refresh: None,
            touched: false,
            grace: watch::Sender::new(None),
            blocked: None,
            signature: 0,
            planned: 0,
            error_wait: FIRST_WAIT,
            write_after: None,
            cleaned: false,
            deleted: false,
            pod,
        }
    }

    async fn run(mut self) {
        if !self.rejected && !spec::is_static(&self.pod) {
            let given = Arc::new(resources::as_allocated(&self.pod));
            let wanted = std::mem::replace(&mut self.pod, given);
            self.allocate(wanted);
        }
        if let (true, Some(verdict)) = (self.rejected, &self.verdict) {
            self.agent.events.warning(&self.pod, None, &verdict.reason, &verdict.message);
        }
        loop {
            self.absorb();
            if let Err(error) = self.observe().await {
                tracing::warn!(pod = spec::format(&self.pod), %error, "the runtime does not answer");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            self.decide();
            self.publish();
            self.keep_probes();
            if self.stage == Stage::Terminated && self.gone && self.cleaned && self.job.is_none() {
                return self.farewell().await;
            }
            self.wait().await;
        }
    }

    fn now(&self) -> Timestamp {
        self.agent.clock.now()
    }

    fn absorb(&mut self) {
        let input = std::mem::take(&mut *self.handle.inbox.input.lock());
        if let Some(pod) = input.pod {
            let version = version_of(&pod);
            if version >= self.written {
                self.api = pod.status.clone().unwrap_or_default();
            }
            let meta = |p: &Pod| (p.metadata.labels.clone(), p.metadata.annotations.clone(), p.metadata.generation);
            self.touched |= meta(&pod) != meta(&self.pod);
            self.allocate(pod);
        }
        if let Some(mirror) = input.mirror {
            self.api = mirror.as_ref().and_then(|m| m.status.clone()).unwrap_or_default();
            self.mirror = mirror;
        }
        if input.eviction.is_some() && self.eviction.is_none() && self.verdict.is_none() {
            self.eviction = input.eviction;
            self.verdict = self.eviction.as_ref().map(|e| e.verdict.clone());
        }
        self.gone |= input.gone;
        self.touched |= input.touched;
        if self.touched {
            self.blocked = None;
        }
    }

    /// Takes a new version of the pod; other resources only if the node has them to give.
    fn allocate(&mut self, wanted: Arc<Pod>) {
        let before = self.pending.take();
        self.wanted = None;
        let kept = if self.stage == Stage::Running && !spec::is_deleted(&wanted) {
            resources::with_resources_of(&wanted, &self.pod)
        } else {
            None
        };
        let Some(kept) = kept else {
            self.pod = wanted;
            return;
        };
        let generation = spec::generation(&wanted);
        match admission::resize(&self.agent, &wanted) {
            Ok(()) => {
                self.agent.events.normal(&wanted, None, "ResizeStarted", &resize_message("Pod resize started", &wanted));
                self.pod = wanted;
            }
            Err(refusal) => {
                let condition = PodCondition {
                    type_: "PodResizePending".into(),
                    status: "True".into(),
                    reason: Some(refusal.reason.clone()),
                    message: Some(refusal.message),
                    observed_generation: generation,
                    ..PodCondition::default()
                };
                if before.and_then(|b| b.reason).as_deref() != Some(&refusal.reason) {
                    let (reason, words) = (format!("Resize{}", refusal.reason), format!("Pod resize {}", refusal.reason));
                    self.agent.events.warning(&wanted, None, &reason, &resize_message(&words, &wanted));
                }
                self.pending = Some(condition);
                self.pod = Arc::new(kept);
                self.wanted = Some(wanted);
            }
        }
    }

    async fn observe(&mut self) -> tiphys_cri::Result<()> {
        if self.rejected {
            return Ok(());
        }
        let logs = sandbox::log_directory(&self.agent.config.pod_logs_dir, &self.pod);
        let view = observe::view(&*self.agent.runtime, spec::uid(&self.pod), &mut self.messages, &logs).await?;
        self.view = Arc::new(view);
        self.signature = self.sign();
        Ok(())
    }

    /// What planning depends on, as a number.
    fn sign(&self) -> u64 {
        let mut text = format!("{:?}", self.pod.metadata.generation);
        for run in &self.view.runs {
            text.push_str(&format!("{}{:?}{:?}", run.id, run.state, run.resources));
        }
        for sandbox in &self.view.sandboxes {
            text.push_str(&format!("{}{:?}{:?}", sandbox.id, sandbox.state, sandbox.ips));
        }
        let probes = self.board.get();
        for run in &self.view.runs {
            text.push_str(&format!("{:?}{:?}", probes.liveness.get(&run.id), probes.startup.get(&run.id)));
        }
        fnv(text.as_bytes())
    }

    fn decide(&mut self) {
        if let Some(wanted) = self.wanted.clone().filter(|_| self.stage == Stage::Running) {
            self.allocate(wanted);
        }
        self.check_deadline();
        self.compute();
        if self.stage == Stage::Running {
            let terminal = self.status.phase.as_deref().is_some_and(phase::is_terminal);
            if spec::is_deleted(&self.pod) || self.gone || self.verdict.is_some() || terminal {
                self.stage = Stage::Terminating;
                self.blocked = None;
                if let Some((_, cancel)) = &self.job {
                    cancel.cancel();
                }
            } else {
                self.plan();
                self.refresh();
            }
        }
        if self.stage == Stage::Terminating {
            self.terminate();
        }
        if self.stage == Stage::Terminated {
            self.clean();
        }
        self.share();
    }

    fn check_deadline(&mut self) {
        if self.verdict.is_none() && self.stage == Stage::Running && self.deadline().is_some_and(|at| at <= self.now()) {
            let message = "Pod was active on the node longer than the specified deadline";
            self.agent.events.normal(&self.pod, None, "DeadlineExceeded", message);
            self.verdict = Some(Verdict { reason: "DeadlineExceeded".into(), message: message.into() });
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = spec::spec(&self.pod).active_deadline_seconds?;
        let start = self.status.start_time.as_ref().or(self.api.start_time.as_ref())?;
        start.0.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    fn compute(&mut self) {
        let probes = self.board.get();
        let failures = self.progress.failures.lock().clone();
        let host_ips = self.agent.host_ips();
        let terminal = self.stage == Stage::Terminated;
        let facts = Facts {
            pod: &self.pod,
            old: &self.status,
            view: &self.view,
            probes: &probes,
            failures: &failures,
            terminal,
            host_ips: &host_ips,
            resize: &self.resize_conditions(),
            now: self.now(),
        };
        let mut status = if self.rejected { self.rejection() } else { status::status(&facts, self.verdict.as_ref()) };
        if let Some(condition) = self.eviction.as_ref().and_then(|e| e.condition.clone()) {
            let conditions = status.conditions.get_or_insert_default();
            if !conditions.iter().any(|c| c.type_ == condition.type_) {
                conditions.push(condition);
            }
        }
        if terminal && !self.rejected {
            status::finalize(&self.pod, &mut status);
        }
        self.status = status;
    }

    fn rejection(&self) -> PodStatus {
        let verdict = self.verdict.clone().unwrap_or(Verdict { reason: String::new(), message: String::new() });
        let mut status = self.pod.status.clone().unwrap_or_default();
        status.phase = Some("Failed".into());
        status.reason = Some(verdict.reason);
        status.message = Some(format!("Pod was rejected: {}", verdict.message));
        status.observed_generation = spec::generation(&self.pod);
        status.start_time = self.status.start_time.clone().or(Some(Time(self.now())));
        status
    }

    /// A resize that is being carried out.
    fn resize_conditions(&self) -> Vec<PodCondition> {
        if self.stage != Stage::Running {
            return Vec::new();
        }
        let pending = spec::containers(&self.pod).iter().chain(spec::init_containers(&self.pod)).any(|c| {
            let run = self.view.run(&c.name).filter(|r| r.state == State::Running);
            run.is_some_and(|r| resources::resize_needed(&self.pod, c, r) != resources::ResizeNeed::None)
        });
        let mut conditions: Vec<PodCondition> = self.pending.iter().cloned().collect();
        if !pending {
            return conditions;
        }
        conditions.push(PodCondition {
            type_: "PodResizeInProgress".into(),
            status: "True".into(),
            observed_generation: spec::generation(&self.pod),
            ..PodCondition::default()
        });
        conditions
    }

    fn plan(&mut self) {
        let waits = self.blocked.is_some_and(|(signature, until)| signature == self.signature && self.now() < until);
        if self.job.is_some() || waits {
            return;
        }
        let actions = plan::plan(&self.pod, &self.view, &self.board.get());
        if actions.is_empty() {
            return;
        }
        tracing::debug!(pod = spec::format(&self.pod), ?actions, "planned");
        let cancel = CancellationToken::new();
        let job = Job {
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            view: (*self.view).clone(),
            actions,
            progress: self.progress.clone(),
            cancel: cancel.clone(),
        };
        self.planned = self.signature;
        self.job = Some((tokio::spawn(async move { Ended::Synced(job.run().await) }), cancel));
    }

    fn refresh(&mut self) {
        let due = self.progress.renew.lock().is_some_and(|at| at <= self.now());
        let busy = self.refresh.as_ref().is_some_and(|r| !r.is_finished()) || self.job.is_some();
        if !(self.touched || due) || busy {
            return;
        }
        self.touched = false;
        let (agent, pod, view, progress) = (self.agent.clone(), self.pod.clone(), self.view.clone(), self.progress.clone());
        self.refresh = Some(tokio::spawn(async move {
            job::refresh_volumes(&agent, &pod, view.ips(), &progress).await;
            (progress.changed)();
        }));
    }

    fn terminate(&mut self) {
        let asked = self.eviction.as_ref().and_then(|e| e.grace).or(self.pod.metadata.deletion_grace_period_seconds);
        self.grace.send_if_modified(|grace| {
            let changed = asked.is_some() && *grace != asked;
            if changed {
                *grace = asked;
            }
            changed
        });
        if self.job.is_some() {
            return;
        }
        if !self.view.anything_up() {
            self.stage = Stage::Terminated;
            return self.compute();
        }
        if self.blocked.is_some_and(|(_, until)| self.now() < until) {
            return;
        }
        for ((kind, _), probe) in &self.probes {
            // Readiness goes on to be told while the pod is being stopped.
            if *kind != ProbeKind::Readiness {
                probe.abort();
            }
        }
        let (agent, pod, view, grace) = (self.agent.clone(), self.pod.clone(), self.view.clone(), self.grace.subscribe());
        let killing = tokio::spawn(async move { Ended::Killed(kill::pod(&agent, &pod, &view, grace).await) });
        self.job = Some((killing, CancellationToken::new()));
    }

    fn clean(&mut self) {
        if self.job.is_some() || self.blocked.is_some_and(|(_, until)| self.now() < until) {
            return;
        }
        if !self.cleaned {
            let (agent, pod) = (self.agent.clone(), self.pod.clone());
            let cleaning = tokio::task::spawn_blocking(move || {
                let volumes = agent.volumes.tear_down(spec::uid(&pod)).map_err(|e| e.to_string());
                Ended::Cleaned(volumes.and_then(|()| agent.groups.remove(&pod)))
            });
            self.job = Some((cleaning, CancellationToken::new()));
            return;
        }
        let told = self.write.is_none() && self.pending_patch().is_none();
        if spec::is_deleted(&self.pod) && !spec::is_static(&self.pod) && !self.gone && !self.deleted && told {
            self.deleted = true;
            let (client, pod) = (self.agent.client.clone(), self.pod.clone());
            let deleting = tokio::spawn(async move {
                let options = DeleteOptions::grace(0).only_uid(spec::uid(&pod));
                Ended::Deleted(client.delete::<Pod>(spec::namespace(&pod), spec::name(&pod), &options).await.map(drop))
            });
            self.job = Some((deleting, CancellationToken::new()));
        }
    }

    /// What the server and admission see.
    fn share(&self) {
        *self.handle.inbox.shown.lock() = Shown {
            pod: self.pod.clone(),
            status: Arc::new(self.status.clone()),
            view: self.view.clone(),
            over: self.stage == Stage::Terminated || self.rejected,
        };
    }

    fn pending_patch(&self) -> Option<serde_json::Value> {
        let target = if spec::is_static(&self.pod) { self.mirror.as_ref()? } else { &self.pod };
        patch::patch(spec::uid(target), &self.api, &self.status)
    }

    fn publish(&mut self) {
        let early = self.write_after.is_some_and(|at| self.now() < at);
        if self.write.is_some() || self.gone || self.deleted || early {
            return;
        }
        let Some(body) = self.pending_patch() else { return };
        let target = self.mirror.clone().filter(|_| spec::is_static(&self.pod)).unwrap_or_else(|| self.pod.clone());
        let client = self.agent.client.clone();
        let writing =
            async move { client.patch::<Pod>(spec::namespace(&target), spec::name(&target), "status", &Patch::Strategic(body)).await };
        self.write = Some(tokio::spawn(writing));
    }

    fn was_written(&mut self, result: Result<Pod, ClientError>) {
        self.write_after = None;
        match result {
            Ok(pod) => {
                let unchanged = self.written == version_of(&pod);
                self.written = version_of(&pod);
                self.api = pod.status.unwrap_or_default();
                if unchanged && self.pending_patch().is_some() {
                    // The server takes what we say for what it has: saying it again would not help.
                    tracing::warn!(pod = spec::format(&self.pod), patch = ?self.pending_patch(), "a status patch changes nothing");
                    self.api = self.status.clone();
                }
            }
            // It is gone or another: nothing of ours to say any more.
            Err(error) if error.is_not_found() || error.is_conflict() => {
                tracing::debug!(pod = spec::format(&self.pod), %error, "status not written");
                self.api = self.status.clone();
            }
            Err(error) => {
                tracing::warn!(pod = spec::format(&self.pod), %error, "status not written, trying again");
                self.write_after = self.now().checked_add(SignedDuration::from_secs(1)).ok();
            }
        }
    }

    fn block(&mut self, wait: SignedDuration) {
        self.block_until(self.now().checked_add(wait).unwrap_or(Timestamp::MAX));
    }

    fn block_until(&mut self, until: Timestamp) {
        self.blocked = Some((self.signature, until));
    }

    fn block_after_error(&mut self) {
        let wait = self.error_wait;
        self.error_wait = (wait * 2).min(MAX_WAIT);
        self.block(SignedDuration::try_from(wait).unwrap_or(START_RETRY));
    }

    async fn job_ended(&mut self, ended: Ended) {
        self.job = None;
        // The decision to wait holds for what there is now, not for what there was before the job.
        if let Err(error) = self.observe().await {
            tracing::warn!(%error, "the runtime does not answer");
        }
        match ended {
            Ended::Synced(report) => self.synced(report),
            Ended::Killed(Ok(())) => self.blocked = None,
            Ended::Cleaned(Ok(())) => {
                self.cleaned = true;
                let uid = spec::uid(&self.pod);
                self.agent.config_maps.unregister(uid);
                self.agent.secrets.unregister(uid);
                self.agent.tokens.forget(uid);
                self.agent.images.forget(uid);
            }
            Ended::Deleted(Ok(())) => {}
            Ended::Deleted(Err(error)) if error.is_not_found() || error.is_conflict() => {}
            Ended::Deleted(Err(error)) => {
                tracing::warn!(pod = spec::format(&self.pod), %error, "cannot delete the pod from the API");
                self.deleted = false;
                self.block_after_error();
            }
            Ended::Killed(Err(error)) | Ended::Cleaned(Err(error)) => {
                tracing::warn!(pod = spec::format(&self.pod), error, "cannot end the pod yet");
                if self.stage == Stage::Terminating {
                    self.agent.events.warning(&self.pod, None, "FailedKillPod", &format!("error killing pod: {error}"));
                }
                self.block_after_error();
            }
        }
    }

    fn synced(&mut self, report: Report) {
        if let Some(error) = report.error {
            tracing::info!(pod = spec::format(&self.pod), error, "pod not synced yet");
            return self.block_after_error();
        }
        self.error_wait = FIRST_WAIT;
        match (report.again, report.failed) {
            (Some(again), false) => self.block_until(again),
            (Some(again), true) => {
                let retry = self.now().checked_add(START_RETRY).unwrap_or(again);
                self.block_until(again.min(retry));
            }
            (None, true) => self.block(START_RETRY),
            // Nothing came of it: do not turn in circles.
            (None, false) if self.planned == self.signature => self.block(SignedDuration::from_secs(1)),
            (None, false) => self.blocked = None,
        }
    }

    /// Starts probes of running containers, stops those of others.
    fn keep_probes(&mut self) {
        let running: Vec<_> = self.view.running().cloned().collect();
        let probes = &mut self.probes;
        let board = &self.board;
        probes.retain(|(_, id), task| {
            let alive = running.iter().any(|r| r.id == *id);
            if !alive {
                task.abort();
                board.forget(id);
            }
            alive
        });
        if self.stage != Stage::Running {
            return;
        }
        let ip = self.status.pod_ip.clone().unwrap_or_default();
        for run in running {
            let Some(container) = spec::container(&self.pod, &run.name) else { continue };
            for kind in ProbeKind::ALL {
                let key = (kind, run.id.clone());
                if kind.of(&container).is_none() || self.probes.contains_key(&key) {
                    continue;
                }
                let target = probe::Target {
                    agent: self.agent.clone(),
                    pod: self.pod.clone(),
                    container: container.clone(),
                    run: run.clone(),
                    ip: ip.clone(),
                    kind,
                    board: self.board.clone(),
                };
                self.probes.insert(key, tokio::spawn(probe::run(target)).abort_handle());
            }
        }
    }

    fn next_time(&self) -> Option<Timestamp> {
        let blocked = self.blocked.map(|(_, until)| until).filter(|_| self.job.is_none());
        let renew = *self.progress.renew.lock();
        let deadline = self.deadline().filter(|_| self.verdict.is_none() && self.stage == Stage::Running);
        let renew = renew.filter(|_| self.stage == Stage::Running && self.job.is_none());
        [blocked, renew, deadline, self.write_after].into_iter().flatten().filter(|at| *at > Timestamp::UNIX_EPOCH).min()
    }

    async fn wait(&mut self) {
        let now = self.now();
        let sleep = self.next_time().map(|at| {
            let wait = at.duration_since(now);
            Duration::try_from(wait).unwrap_or_default().max(Duration::from_millis(5))
        });
        let timer = async {
            match sleep {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        enum Woken {
            Job(Ended),
            Written(Box<Result<Pod, ClientError>>),
            Other,
        }
        let inbox = self.handle.inbox.clone();
        let (job, write) = (&mut self.job, &mut self.write);
        let woken = tokio::select! {
            () = inbox.wake.notified() => Woken::Other,
            () = timer => Woken::Other,
            ended = async { match job { Some((handle, _)) => handle.await, None => std::future::pending().await } } => {
                Woken::Job(ended.unwrap_or_else(|e| Ended::Synced(Report { error: Some(e.to_string()), ..Report::default() })))
            }
            result = async { match write { Some(handle) => handle.await, None => std::future::pending().await } } => {
                Woken::Written(Box::new(result.unwrap_or_else(|e| Err(ClientError::Transport(e.to_string())))))
            }
        };
        match woken {
            Woken::Job(ended) => self.job_ended(ended).await,
            Woken::Written(result) => {
                self.write = None;
                self.was_written(*result);
            }
            Woken::Other => {}
        }
    }

    /// The pod is in nobody's memory but ours: remove what the runtime and the log folder keep of it.
    async fn farewell(self) {
        for task in self.probes.values() {
            task.abort();
        }
        for sandbox in &self.view.sandboxes {
            if let Err(error) = self.agent.runtime.remove_pod_sandbox(&sandbox.id).await {
                tracing::warn!(%error, id = sandbox.id, "cannot remove a sandbox");
            }
        }
        let logs = sandbox::log_directory(&self.agent.config.pod_logs_dir, &self.pod);
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(logs)).await;
        self.agent.workers.all.lock().remove(spec::uid(&self.pod));
    }
}

/// Upstream's words for events of resizes: a summary as JSON.
fn resize_message(words: &str, pod: &Pod) -> String {
    let one = |c: &tiphys_types::api::core::v1::Container| serde_json::json!({"name": c.name, "resources": c.resources});
    let containers: Vec<_> = spec::containers(pod).iter().map(one).collect();
    let summary = serde_json::json!({"containers": containers, "generation": spec::generation(pod)});
    format!("{words}: {summary}")
}

fn version_of(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
