//! Probes: one task per probe of a running container. Results go to the pod's board and wake its worker.

mod grpc;
pub(crate) mod http;

use crate::agent::Agent;
use crate::metrics::count;
use crate::pod::spec::{self, ProbeKind};
use crate::pod::view::{ProbeResults, Run};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tiphys_cri::CriError;
use tiphys_types::api::core::v1::{Container, Pod, PodStatus, Probe};
use tiphys_types::pods;
use tokio::sync::Notify;

/// The probe results of one pod, and how to tell its worker.
pub(crate) struct Board {
    results: Mutex<ProbeResults>,
    changed: Box<dyn Fn() + Send + Sync>,
    /// Wakes the probes that wait for a startup probe to succeed.
    startup: Notify,
}

impl Board {
    /// What was found before a restart of the kubelet stays true until a probe says otherwise: containers that were started and
    /// ready go on being so (upstream since 1.35).
    pub(crate) fn new(before: Option<&PodStatus>, changed: Box<dyn Fn() + Send + Sync>) -> Self {
        let mut results = ProbeResults::default();
        let lists = before.map(|s| [&s.container_statuses, &s.init_container_statuses]);
        for status in lists.into_iter().flatten().flatten().flatten() {
            let running = status.state.as_ref().is_some_and(|s| s.running.is_some());
            let Some(id) = status.container_id.as_deref().filter(|_| running) else { continue };
            let id = id.split_once("://").map_or(id, |(_, id)| id);
            if status.started == Some(true) {
                results.startup.insert(id.to_owned(), true);
            }
            if status.ready {
                results.readiness.insert(id.to_owned(), true);
            }
        }
        Board { results: Mutex::new(results), changed, startup: Notify::new() }
    }

    pub(crate) fn get(&self) -> ProbeResults {
        self.results.lock().clone()
    }

    fn set(&self, kind: ProbeKind, id: &str, ok: bool) {
        let old = self.map(kind, |map| map.insert(id.to_owned(), ok));
        if old != Some(ok) {
            (self.changed)();
        }
        if kind == ProbeKind::Startup && ok {
            self.startup.notify_waiters();
        }
    }

    fn map<T>(&self, kind: ProbeKind, change: impl FnOnce(&mut std::collections::HashMap<String, bool>) -> T) -> T {
        let mut results = self.results.lock();
        change(match kind {
            ProbeKind::Liveness => &mut results.liveness,
            ProbeKind::Readiness => &mut results.readiness,
            ProbeKind::Startup => &mut results.startup,
        })
    }

    pub(crate) fn forget(&self, id: &str) {
        for kind in ProbeKind::ALL {
            self.map(kind, |map| map.remove(id));
        }
    }

    fn started(&self, id: &str) -> bool {
        self.results.lock().startup.get(id) == Some(&true)
    }

    async fn until_started(&self, id: &str) {
        loop {
            let told = self.startup.notified();
            tokio::pin!(told);
            // Registered before looking, so that no success falls between the two.
            told.as_mut().enable();
            if self.started(id) {
                return;
            }
            told.await;
        }
    }
}

/// What one probe needs to run.
pub(crate) struct Target {
    pub(crate) agent: Arc<Agent>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) run: Run,
    pub(crate) ip: String,
    pub(crate) kind: ProbeKind,
    pub(crate) board: Arc<Board>,
}

enum Finding {
    Success,
    /// Counts as a success, with a word about it.
    Warning(String),
    Failure(String),
}

/// Probes until dropped, or for good after a liveness or startup failure (the container is about to be replaced).
pub(crate) async fn run(target: Target) {
    let Some(probe) = target.kind.of(&target.container).cloned() else { return };
    let period = Duration::from_secs(probe.period_seconds.unwrap_or(10).max(1) as u64);
    let delay = i64::from(probe.initial_delay_seconds.unwrap_or(0)) * 1000;
    let age = target.agent.clock.now().duration_since(target.run.started_at).as_millis() as i64;
    tokio::time::sleep(Duration::from_millis((delay - age).max(0) as u64)).await;
    match target.kind {
        // It had started before a restart of the kubelet.
        ProbeKind::Startup if target.board.started(&target.run.id) => return,
        ProbeKind::Startup => {}
        _ if target.container.startup_probe.is_some() => target.board.until_started(&target.run.id).await,
        _ => {}
    }
    let (mut streak, mut last) = (0, None);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let ok = report(&target, once(&target, &probe).await);
        streak = if last == Some(ok) { streak + 1 } else { 1 };
        last = Some(ok);
        let threshold = if ok { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        if streak < threshold.max(1) {
            continue;
        }
        target.board.set(target.kind, &target.run.id, ok);
        let finished = match target.kind {
            ProbeKind::Readiness => false,
            ProbeKind::Liveness => !ok,
            ProbeKind::Startup => true,
        };
        if finished {
            return;
        }
    }
}

fn report(target: &Target, finding: Finding) -> bool {
    let (events, metrics, word) = (&target.agent.events, &target.agent.metrics, target.kind.word());
    match finding {
        Finding::Success => {
            count(&metrics.probe_success);
            true
        }
        Finding::Warning(text) => {
            count(&metrics.probe_success);
            events.warning(&target.pod, Some(&target.container.name), "ProbeWarning", &format!("{word} probe warning: {text}"));
            true
        }
        Finding::Failure(text) => {
            count(&metrics.probe_failure);
            events.warning(&target.pod, Some(&target.container.name), "Unhealthy", &format!("{word} probe failed: {text}"));
            false
        }
    }
}

async fn once(target: &Target, probe: &Probe) -> Finding {
    let timeout = Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1) as u64);
    if let Some(exec) = &probe.exec {
        return by_exec(target, exec.command.as_deref().unwrap_or_default(), timeout).await;
    }
    let port_of = |port| pods::container_port(&target.container, port).ok_or_else(|| format!("invalid port number: {port:?}"));
    if let Some(get) = &probe.http_get {
        let host = get.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| target.ip.clone());
        return match port_of(&get.port) {
            Ok(port) => by_http(http::Target::of_action(get, host, port, "kube-probe/1.36"), timeout).await,
            Err(error) => Finding::Failure(error),
        };
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| target.ip.clone());
        return match port_of(&tcp.port) {
            Ok(port) => by_tcp(&join(&host, port), timeout).await,
            Err(error) => Finding::Failure(error),
        };
    }
    if let Some(action) = &probe.grpc {
        let checked = grpc::check(&join(&target.ip, action.port), action.service.as_deref().unwrap_or_default(), timeout).await;
        return checked.map_or_else(Finding::Failure, |()| Finding::Success);
    }
    Finding::Failure(format!("missing probe handler for {}:{}", spec::format(&target.pod), target.container.name))
}

fn join(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn by_exec(target: &Target, command: &[String], timeout: Duration) -> Finding {
    match target.agent.runtime.exec_sync(&target.run.id, command, timeout).await {
        Ok(answer) => {
            let output = String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).chars().take(10 * 1024).collect::<String>();
            if answer.exit_code == 0 { Finding::Success } else { Finding::Failure(output) }
        }
        Err(CriError::DeadlineExceeded(_)) => {
            Finding::Failure(format!("command timed out: {:?} timed out after {}s", command.join(" "), timeout.as_secs()))
        }
        Err(error) => Finding::Failure(error.to_string()),
    }
}

/// Redirects are followed on the same host; one to elsewhere is a success with a warning, as it has nothing to do with the pod.
async fn by_http(mut target: http::Target, timeout: Duration) -> Finding {
    const MAX_REDIRECTS: usize = 10;
    for _ in 0..=MAX_REDIRECTS {
        let answer = match http::get(&target, timeout).await {
            Ok(answer) => answer,
            Err(error) => return Finding::Failure(error),
        };
        let redirect = answer.location.filter(|_| matches!(answer.code, 301 | 302 | 303 | 307 | 308));
        match redirect {
            Some(location) => match follow(&target, &location) {
                Some(next) => target = next,
                None => {
                    return Finding::Warning(format!("Probe terminated redirects, Response body: {}", answer.body));
                }
            },
            None if (200..400).contains(&answer.code) => return Finding::Success,
            None => return Finding::Failure(format!("HTTP probe failed with statuscode: {}", answer.code)),
        }
    }
    Finding::Failure(format!("Get {:?}: stopped after {MAX_REDIRECTS} redirects", target.url()))
}

/// None: another host.
fn follow(from: &http::Target, location: &str) -> Option<http::Target> {
    if !location.contains("://") {
        let path = if location.starts_with('/') { location.to_owned() } else { format!("/{location}") };
        return Some(http::Target { path, ..from.clone() });
    }
    let uri: ::http::Uri = location.parse().ok()?;
    let https = uri.scheme_str() == Some("https");
    if uri.host()?.trim_matches(['[', ']']) != from.host {
        return None;
    }
    let port = uri.port_u16().map_or(if https { 443 } else { 80 }, i32::from);
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    Some(http::Target { https, port, path, ..from.clone() })
}

async fn by_tcp(address: &str, timeout: Duration) -> Finding {
    match tokio::time::timeout(timeout, http::connect(address)).await {
        Ok(Ok(_)) => Finding::Success,
        Ok(Err(error)) => Finding::Failure(error),
        Err(_) => Finding::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_before_a_restart_stays_true() {
        let status = serde_json::json!({"containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "restartCount": 0, "containerID": "tiphys://1", "ready": true, "started": true, "state": {"running": {}}},
            {"name": "b", "image": "", "imageID": "", "restartCount": 0, "containerID": "tiphys://2", "ready": false, "started": true, "state": {"running": {}}},
            {"name": "c", "image": "", "imageID": "", "restartCount": 0, "containerID": "tiphys://3", "ready": true, "started": true, "state": {"terminated": {"exitCode": 0}}},
        ]});
        let status: PodStatus = serde_json::from_value(status).expect("a status");
        let found = Board::new(Some(&status), Box::new(|| ())).get();
        assert_eq!((found.startup.get("1"), found.startup.get("2"), found.startup.get("3")), (Some(&true), Some(&true), None));
        assert_eq!((found.readiness.get("1"), found.readiness.get("2")), (Some(&true), None));
        assert!(Board::new(None, Box::new(|| ())).get().startup.is_empty());
    }

    #[test]
    fn redirects() {
        let from = http::Target { https: false, host: "10.0.0.1".into(), port: 8080, path: "/a".into(), headers: vec![] };
        let to = |location: &str| follow(&from, location).map(|t| t.url());
        assert_eq!(to("/b?c"), Some("http://10.0.0.1:8080/b?c".into()));
        assert_eq!(to("https://10.0.0.1/x"), Some("https://10.0.0.1:443/x".into()));
        assert_eq!(to("http://0.0.0.0/"), None);
    }
}
