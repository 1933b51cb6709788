//! `kubectl get pods`: READY, STATUS and RESTARTS are read off the container statuses.

use serde_json::Value;
use tiphys_meta::object;
use tiphys_types::jiff::Timestamp;

use crate::strategy::Column;
use crate::table::{AGE, NAME, age, column, since, wide};
use crate::tree::{array, at, int, is_true, text};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Ready"),
    column("Status"),
    column("Restarts"),
    AGE,
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

/// What the walk over the statuses finds.
struct Summary {
    reason: String,
    ready: usize,
    restarts: i64,
    last_restart: Option<String>,
}

pub(super) fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(o);
    let total = array(o, "spec.containers").len() + array(o, "spec.initContainers").iter().filter(|c| is_sidecar(c)).count();
    let restarts = match &summary.last_restart {
        Some(time) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, since(Some(&Value::from(time.as_str())), now))
        }
        _ => summary.restarts.to_string(),
    };
    let or_none = |value: &str| if value.is_empty() { "<none>".to_owned() } else { value.to_owned() };
    let ip = array(o, "status.podIPs").first().map_or("", |ip| text(ip, "ip"));
    vec![
        object::name(o).into(),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        age(o, now),
        or_none(ip).into(),
        or_none(text(o, "spec.nodeName")).into(),
        or_none(text(o, "status.nominatedNodeName")).into(),
        readiness_gates(o).into(),
    ]
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

fn summarize(o: &Value) -> Summary {
    let phase = text(o, "status.phase");
    let mut reason = match text(o, "status.reason") {
        "" => phase,
        reason => reason,
    }
    .to_owned();
    if array(o, "status.conditions").iter().any(|c| text(c, "type") == "PodScheduled" && text(c, "reason") == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let mut summary = Summary { reason, ready: 0, restarts: 0, last_restart: None };
    let (initializing, sidecars) = init_containers(o, &mut summary);
    let initialized = array(o, "status.conditions").iter().any(|c| text(c, "type") == "Initialized" && text(c, "status") == "True");
    if !initializing || initialized {
        (summary.restarts, summary.last_restart) = sidecars;
        main_containers(o, &mut summary);
    }
    if object::deletion_timestamp(o).is_some() {
        if text(o, "status.reason") == "NodeLost" {
            summary.reason = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".into();
        }
    }
    summary
}

/// Whether one is still at work or has failed; and the restarts of sidecars, which alone count once the pod is initialized.
fn init_containers(o: &Value, summary: &mut Summary) -> (bool, (i64, Option<String>)) {
    let specs = array(o, "spec.initContainers");
    let mut sidecars: (i64, Option<String>) = (0, None);
    for (i, status) in array(o, "status.initContainerStatuses").iter().enumerate() {
        count_restarts(status, &mut summary.restarts, &mut summary.last_restart);
        let sidecar = specs.iter().any(|c| text(c, "name") == text(status, "name") && is_sidecar(c));
        if sidecar {
            count_restarts(status, &mut sidecars.0, &mut sidecars.1);
        }
        let terminated = at(status, "state.terminated");
        if terminated.is_some_and(|t| int(t, "exitCode") == 0) {
            continue;
        }
        if sidecar && is_true(status, "started") {
            summary.ready += usize::from(is_true(status, "ready"));
            continue;
        }
        let waiting = text(status, "state.waiting.reason");
        summary.reason = match terminated {
            Some(t) => format!("Init:{}", ended(t)),
            None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
            None => format!("Init:{i}/{}", specs.len()),
        };
        return (true, sidecars);
    }
    (false, sidecars)
}

fn main_containers(o: &Value, summary: &mut Summary) {
    let (mut running, mut error) = (false, String::new());
    for status in array(o, "status.containerStatuses").iter().rev() {
        count_restarts(status, &mut summary.restarts, &mut summary.last_restart);
        let waiting = text(status, "state.waiting.reason");
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if let Some(terminated) = at(status, "state.terminated") {
            summary.reason = ended(terminated);
            if int(terminated, "exitCode") != 0 {
                error = summary.reason.clone();
            }
        } else if is_true(status, "ready") && at(status, "state.running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" {
        let pod_ready = array(o, "status.conditions").iter().any(|c| text(c, "type") == "Ready" && text(c, "status") == "True");
        if running && pod_ready {
            summary.reason = "Running".into();
        } else if !error.is_empty() {
            summary.reason = error;
        } else if running {
            summary.reason = "NotReady".into();
        }
    }
}

fn ended(terminated: &Value) -> String {
    match (text(terminated, "reason"), int(terminated, "signal")) {
        ("", 0) => format!("ExitCode:{}", int(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn count_restarts(status: &Value, count: &mut i64, last: &mut Option<String>) {
    *count += int(status, "restartCount");
    let finished = text(status, "lastState.terminated.finishedAt");
    // Times in one form compare as texts.
    if !finished.is_empty() && last.as_deref().is_none_or(|l| l < finished) {
        *last = Some(finished.to_owned());
    }
}

fn readiness_gates(o: &Value) -> String {
    let gates = array(o, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let holds = |gate: &&Value| {
        let condition = array(o, "status.conditions").iter().find(|c| text(c, "type") == text(gate, "conditionType"));
        condition.is_some_and(|c| text(c, "status") == "True")
    };
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(status: Value, extra: Value) -> Vec<String> {
        let mut pod = json!({"metadata": {"name": "p", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1", "containers": [{"name": "a"}, {"name": "b"}],
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}, "status": status});
        if let (Value::Object(meta), Value::Object(extra)) = (&mut pod["metadata"], extra) {
            meta.extend(extra);
        }
        let now: Timestamp = "2024-01-01T00:10:00Z".parse().unwrap();
        cells(&pod, now).iter().map(|v| v.as_str().unwrap_or("?").to_owned()).collect()
    }

    #[test]
    fn rows() {
        let running = |name: &str| json!({"name": name, "ready": true, "restartCount": 0, "state": {"running": {}}});
        let done = json!({"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let sidecar = json!({"name": "s", "started": true, "ready": true, "restartCount": 0, "state": {"running": {}}});
        let all = row(
            json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.9"}], "containerStatuses": [running("a"), running("b")],
                "initContainerStatuses": [done, sidecar]}),
            json!({}),
        );
        assert_eq!(all, ["p", "3/3", "Running", "0", "10m", "10.0.0.9", "n1", "<none>", "<none>"]);
        let waiting = json!([{"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2024-01-01T00:09:00Z"}}}]);
        let init = row(json!({"phase": "Pending", "initContainerStatuses": waiting}), json!({}));
        assert_eq!(init[1..4], ["0/3", "Init:CrashLoopBackOff", "2 (60s ago)"]);
        let crashed = json!({"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}], "containerStatuses": [
            running("a"), {"name": "b", "restartCount": 1, "state": {"terminated": {"exitCode": 137, "signal": 9}}}]});
        assert_eq!(row(crashed, json!({}))[1..4], ["1/3", "Signal:9", "1"]);
        let gone = row(json!({"phase": "Running"}), json!({"deletionTimestamp": "2024-01-01T00:09:00Z"}));
        assert_eq!(gone[2], "Terminating");
    }
}
