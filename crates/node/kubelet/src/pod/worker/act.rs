//! What a worker sets going: jobs that carry out plans, refresh volumes, stop containers, clean up; and the probes.

use super::inbox::Shown;
use super::{Ended, Stage, Worker};
use crate::pod::job::{self, Job};
use crate::pod::spec::{self, ProbeKind};
use crate::pod::{kill, plan, sandbox};
use crate::probe;
use jiff::SignedDuration;
use std::sync::Arc;
use tiphys_client::DeleteOptions;
use tiphys_types::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

/// The period of upstream's relist.
const REPLACEMENT_SHOWN_AFTER: SignedDuration = SignedDuration::from_secs(1);

impl Worker {
    pub(super) fn plan(&mut self) {
        if self.job.is_some() || self.hold.holds_plan(self.signature, self.now()) {
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
        // Upstream's kubelet looks at containers once a second, so the gap of a quick replacement is seldom seen, and clients that
        // read a status to write it back rely on a pod that stays ready.
        self.replacing = job.replaces().then(|| self.now().checked_add(REPLACEMENT_SHOWN_AFTER).ok()).flatten();
        self.hold.planned_for(self.signature);
        self.job = Some((tokio::spawn(async move { Ended::Synced(job.run().await) }), cancel));
    }

    pub(super) fn refresh(&mut self) {
        let due = self.progress.renew.lock().is_some_and(|at| at <= self.now());
        if !(self.touched || due) || self.refresh.is_some() || self.job.is_some() {
            return;
        }
        self.touched = false;
        let (agent, pod, view, progress) = (self.agent.clone(), self.pod.clone(), self.view.clone(), self.progress.clone());
        self.refresh = Some(tokio::spawn(async move { job::refresh_volumes(&agent, &pod, view.ips(), &progress).await }));
    }

    pub(super) fn terminate(&mut self) {
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
        if self.hold.holds_end(self.now()) {
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

    pub(super) fn clean(&mut self) {
        if self.job.is_some() || self.hold.holds_end(self.now()) {
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
    pub(super) fn share(&self) {
        self.handle.show(Shown {
            pod: self.pod.clone(),
            status: Arc::new(self.status.clone()),
            view: self.view.clone(),
            over: self.stage == Stage::Terminated || self.rejected,
        });
    }

    /// Starts probes of running containers, stops those of others.
    pub(super) fn keep_probes(&mut self) {
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

    /// The pod is in nobody's memory but ours: remove what the runtime and the log folder keep of it.
    pub(super) async fn farewell(self) {
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
        self.agent.workers.forget(spec::uid(&self.pod));
        if spec::is_static(&self.pod) {
            self.agent.statics.changed.notify_one();
        }
    }
}
