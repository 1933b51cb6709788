//! One task per pod. It looks at what is wanted and what is there, decides by the pure functions, and lets jobs act, so that
//! it never waits for a pull, a hook or a grace period itself: statuses, probes and deletions go on meanwhile.
//!
//! Stages go one way: Running → Terminating (containers are being stopped) → Terminated (nothing runs, folders are gone).

mod act;
mod decide;
mod hold;
mod inbox;
mod publish;
mod resize;

use super::job::{Progress, Report};
use super::observe::{self, Messages};
use super::sandbox;
use super::spec::{self, ProbeKind};
use super::status::{self, Facts, Verdict};
use super::view::View;
use crate::agent::Agent;
use crate::backoff::Backoff;
use crate::probe::Board;
use crate::resources;
use hold::Hold;
use inbox::Handle;
pub(crate) use inbox::{Eviction, Shown, Workers};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tiphys_client::ClientError;
use tiphys_types::api::core::v1::{Pod, PodCondition, PodStatus};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

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
    hold: Hold,
    signature: u64,
    write_after: Option<Timestamp>,
    /// While containers are replaced on purpose: until when their gap is not shown.
    replacing: Option<Timestamp>,
    cleaned: bool,
    deleted: bool,
}

impl Worker {
    fn new(agent: Arc<Agent>, handle: Handle, pod: Arc<Pod>, verdict: Option<Verdict>) -> Self {
        let waker = || {
            let handle = handle.clone();
            Box::new(move || handle.wake()) as Box<dyn Fn() + Send + Sync>
        };
        let progress =
            Progress { failures: Mutex::default(), backoff: Mutex::new(Backoff::restarts()), renew: Mutex::default(), changed: waker() };
        let board = Board::new(pod.status.as_ref(), waker());
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
            hold: Hold::new(),
            signature: 0,
            write_after: None,
            replacing: None,
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
        let input = self.handle.take();
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
            self.hold.release();
        }
    }

    async fn observe(&mut self) -> tiphys_cri::Result<()> {
        if self.rejected {
            return Ok(());
        }
        let logs = sandbox::log_directory(&self.agent.config.pod_logs_dir, &self.pod);
        let view = observe::view(&*self.agent.runtime, spec::uid(&self.pod), &mut self.messages, &logs).await?;
        self.view = Arc::new(view);
        self.signature = decide::signature(&self.pod, &self.view, &self.board.get());
        Ok(())
    }

    fn decide(&mut self) {
        if let Some(wanted) = self.wanted.clone().filter(|_| self.stage == Stage::Running) {
            self.allocate(wanted);
        }
        self.hold.expire(self.now());
        self.check_deadline();
        self.compute();
        if self.stage == Stage::Running {
            if decide::is_to_end(&self.pod, &self.status, self.gone, self.verdict.as_ref()) {
                self.stage = Stage::Terminating;
                self.hold.release();
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
            self.agent.events.normal(&self.pod, None, "DeadlineExceeded", decide::DEADLINE_EXCEEDED);
            self.verdict = Some(Verdict { reason: "DeadlineExceeded".into(), message: decide::DEADLINE_EXCEEDED.into() });
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        decide::deadline(&self.pod, &self.status, &self.api)
    }

    fn compute(&mut self) {
        let probes = self.board.get();
        let failures = self.progress.failures.lock().clone();
        let host_ips = self.agent.host_ips();
        let terminal = self.stage == Stage::Terminated;
        let resize = match self.stage {
            Stage::Running => decide::resize_conditions(&self.pod, &self.view, self.pending.as_ref()),
            _ => Vec::new(),
        };
        let facts = Facts {
            pod: &self.pod,
            old: &self.status,
            view: &self.view,
            probes: &probes,
            failures: &failures,
            terminal,
            host_ips: &host_ips,
            resize: &resize,
            now: self.now(),
        };
        let verdict = self.verdict.as_ref();
        let mut status = match self.rejected {
            true => decide::rejection(&self.pod, &self.status, verdict, self.now()),
            false => status::status(&facts, verdict),
        };
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

    async fn job_ended(&mut self, ended: Ended) {
        self.job = None;
        self.replacing = None;
        // The decision to wait holds for what there is now, not for what there was before the job.
        if let Err(error) = self.observe().await {
            tracing::warn!(%error, "the runtime does not answer");
        }
        match ended {
            Ended::Synced(report) => {
                if let Some(error) = &report.error {
                    tracing::info!(pod = spec::format(&self.pod), error, "pod not synced yet");
                }
                self.hold.after_sync(&report, self.signature, self.now());
            }
            Ended::Killed(Ok(())) => self.hold.release(),
            Ended::Cleaned(Ok(())) => {
                self.cleaned = true;
                let uid = spec::uid(&self.pod);
                self.agent.config_maps.unregister(uid);
                self.agent.secrets.unregister(uid);
                self.agent.tokens.forget(uid);
                self.agent.images.forget(uid);
                self.agent.users.release(uid);
            }
            Ended::Deleted(Ok(())) => {}
            Ended::Deleted(Err(error)) if error.is_not_found() || error.is_conflict() => {}
            Ended::Deleted(Err(error)) => {
                tracing::warn!(pod = spec::format(&self.pod), %error, "cannot delete the pod from the API");
                self.deleted = false;
                self.hold.after_error(self.signature, self.now());
            }
            Ended::Killed(Err(error)) | Ended::Cleaned(Err(error)) => {
                tracing::warn!(pod = spec::format(&self.pod), error, "cannot end the pod yet");
                if self.stage == Stage::Terminating {
                    self.agent.events.warning(&self.pod, None, "FailedKillPod", &format!("error killing pod: {error}"));
                }
                self.hold.after_error(self.signature, self.now());
            }
        }
    }

    fn next_time(&self) -> Option<Timestamp> {
        let blocked = self.hold.until().filter(|_| self.job.is_none());
        let renew = *self.progress.renew.lock();
        let deadline = self.deadline().filter(|_| self.verdict.is_none() && self.stage == Stage::Running);
        let renew = renew.filter(|_| self.stage == Stage::Running && self.job.is_none() && self.refresh.is_none());
        [blocked, renew, deadline, self.write_after, self.replacing].into_iter().flatten().filter(|at| *at > Timestamp::UNIX_EPOCH).min()
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
            Refreshed,
            Other,
        }
        let handle = self.handle.clone();
        let (job, write, refresh) = (&mut self.job, &mut self.write, &mut self.refresh);
        let woken = tokio::select! {
            () = handle.woken() => Woken::Other,
            () = timer => Woken::Other,
            ended = async { match job { Some((handle, _)) => handle.await, None => std::future::pending().await } } => {
                Woken::Job(ended.unwrap_or_else(|e| Ended::Synced(Report { error: Some(e.to_string()), ..Report::default() })))
            }
            result = async { match write { Some(handle) => handle.await, None => std::future::pending().await } } => {
                Woken::Written(Box::new(result.unwrap_or_else(|e| Err(ClientError::Transport(e.to_string())))))
            }
            // A refresh that panicked has said so already; what it left undone the next change does.
            _ = async { match refresh { Some(handle) => handle.await, None => std::future::pending().await } } => Woken::Refreshed,
        };
        match woken {
            Woken::Job(ended) => self.job_ended(ended).await,
            Woken::Written(result) => {
                self.write = None;
                self.was_written(*result);
            }
            Woken::Refreshed => self.refresh = None,
            Woken::Other => {}
        }
    }
}

fn version_of(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
