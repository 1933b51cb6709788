//! Paths to answers.

use super::auth::User;
use super::{Body, Response, Server, auth, stats, streams};
use crate::logs;
use crate::pod::sandbox;
use crate::pod::spec;
use crate::pod::worker::Shown;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tiphys_cri as cri;
use tiphys_streaming::logs::accept_logs;
use tiphys_streaming::query;
use tiphys_streaming::upgrade::wants_websocket;
use tiphys_types::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use tokio::sync::mpsc;

pub(crate) fn text(code: StatusCode, message: impl Into<String>) -> Response {
    with_type(code, "text/plain; charset=utf-8", message.into())
}

fn with_type(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()).boxed());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn document(value: &Value) -> Response {
    with_type(StatusCode::OK, "application/json", value.to_string())
}

pub(crate) type Refused = (StatusCode, String);

pub(crate) async fn answer(server: Arc<Server>, request: Request<Incoming>, peer: Option<Arc<User>>) -> Response {
    if let Err((code, message)) = auth::check(&server, &request, peer.as_deref()).await {
        return text(code, message);
    }
    match route(&server, request).await {
        Ok(response) => response,
        Err((code, message)) => text(code, message),
    }
}

async fn route(server: &Arc<Server>, request: Request<Incoming>) -> Result<Response, Refused> {
    let path = request.uri().path().to_owned();
    let pairs = query::pairs(request.uri().query().unwrap_or_default());
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match (request.method(), parts.as_slice()) {
        (_, ["healthz"] | ["healthz", "ping" | "log" | "syncloop"]) => Ok(text(StatusCode::OK, "ok")),
        (&Method::GET, ["pods"]) => Ok(pods(server)),
        (&Method::GET, ["runningpods"]) => Ok(running_pods(server)),
        (&Method::GET, ["configz"]) => Ok(document(&configz(server))),
        (&Method::GET, ["stats", "summary"]) => Ok(document(&stats::summary(&server.agent).await)),
        (&Method::GET, ["metrics"]) => Ok(metrics(stats::own(&server.agent))),
        (&Method::GET, ["metrics", "resource"]) => Ok(metrics(stats::resource(&server.agent).await)),
        (&Method::GET, ["metrics", "cadvisor"]) => Ok(metrics(stats::cadvisor(&server.agent).await)),
        (&Method::GET, ["metrics", "probes"]) => Ok(metrics(stats::probes(&server.agent))),
        (&Method::GET, ["containerLogs", namespace, pod, container]) => {
            container_logs(server, request, &About { namespace, pod, container, pairs: &pairs }).await
        }
        (&Method::GET, ["logs", rest @ ..]) => node_logs(rest),
        (&Method::POST, ["run", namespace, pod, container] | ["run", namespace, pod, _, container]) => {
            run(server, &About { namespace, pod, container, pairs: &pairs }).await
        }
        (_, ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container]) => {
            streams::exec(server, request, &About { namespace, pod, container, pairs: &pairs }).await
        }
        (_, ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container]) => {
            streams::attach(server, request, &About { namespace, pod, container, pairs: &pairs }).await
        }
        (_, ["portForward", namespace, pod] | ["portForward", namespace, pod, _]) => {
            streams::port_forward(server, request, &About { namespace, pod, container: "", pairs: &pairs }).await
        }
        _ => Err((StatusCode::NOT_FOUND, "404 page not found".into())),
    }
}

fn metrics(body: String) -> Response {
    with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

fn pods(server: &Server) -> Response {
    let one = |shown: &Shown| {
        let mut pod = (*shown.pod).clone();
        pod.status = Some((*shown.status).clone());
        serde_json::to_value(pod).unwrap_or_default()
    };
    let items: Vec<Value> = server.agent.workers.list().iter().map(one).collect();
    document(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn running_pods(server: &Server) -> Response {
    let items: Vec<Value> = server
        .agent
        .workers
        .list()
        .iter()
        .filter(|s| s.view.anything_up())
        .map(|s| {
            let containers: Vec<Value> = s.view.running().map(|r| json!({"name": r.name, "image": r.image})).collect();
            json!({"metadata": {"name": spec::name(&s.pod), "namespace": spec::namespace(&s.pod), "uid": spec::uid(&s.pod)},
                "spec": {"containers": containers}, "status": {}})
        })
        .collect();
    document(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn configz(server: &Server) -> Value {
    let config = &server.agent.config;
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": config.listen.ip().to_string(), "port": config.listen.port(),
        "staticPodPath": config.static_pod_path, "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns, "maxPods": config.max_pods, "resolvConf": config.resolv_conf,
        "containerLogMaxSize": config.container_log_max_size.to_string(), "containerLogMaxFiles": config.container_log_max_files,
        "imageGCHighThresholdPercent": config.image_gc_high, "imageGCLowThresholdPercent": config.image_gc_low,
        "nodeLeaseDurationSeconds": config.lease_seconds, "nodeStatusUpdateFrequency": "10s", "syncFrequency": "1m0s",
        "enableServer": true, "cgroupsPerQOS": true, "cgroupRoot": config.cgroup_root,
        "evictionHard": {"memory.available": config.eviction_memory_available.to_string(), "nodefs.available": format!("{}%", config.eviction_disk_percent)},
    }})
}

/// What a request is about.
pub(crate) struct About<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) pod: &'a str,
    /// Empty where a pod is meant.
    pub(crate) container: &'a str,
    pub(crate) pairs: &'a [(String, String)],
}

pub(crate) fn find(server: &Server, namespace: &str, pod: &str) -> Result<Shown, Refused> {
    server.agent.workers.find(namespace, pod).ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist")))
}

/// The running container of this name.
pub(crate) fn running(shown: &Shown, container: &str) -> Result<String, Refused> {
    let run = shown.view.running().find(|r| r.name == container);
    run.map(|r| r.id.clone()).ok_or_else(|| (StatusCode::NOT_FOUND, format!("container not found ({container:?})")))
}

async fn run(server: &Server, about: &About<'_>) -> Result<Response, Refused> {
    let shown = find(server, about.namespace, about.pod)?;
    let id = running(&shown, about.container)?;
    let command: Vec<String> = query::first(about.pairs, "cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
    let answer = server.agent.runtime.exec_sync(&id, &command, Duration::ZERO).await;
    let answer = answer.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok(text(StatusCode::OK, String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned()))
}

fn log_options(pairs: &[(String, String)], now: jiff::Timestamp) -> Result<logs::Options, Refused> {
    let invalid = |what: &str| (StatusCode::UNPROCESSABLE_ENTITY, format!("invalid value of {what}"));
    let number = |key: &str| match query::first(pairs, key) {
        None | Some("") | Some("all") => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| invalid(key)),
    };
    let since = match (query::first(pairs, "sinceTime"), number("sinceSeconds")?) {
        (Some(time), _) if !time.is_empty() => Some(time.parse().map_err(|_| invalid("sinceTime"))?),
        (_, Some(seconds)) => now.checked_sub(jiff::SignedDuration::from_secs(seconds as i64)).ok(),
        _ => None,
    };
    Ok(logs::Options {
        follow: query::truthy(pairs, "follow"),
        previous: query::truthy(pairs, "previous"),
        timestamps: query::truthy(pairs, "timestamps"),
        tail: number("tailLines")?,
        limit: number("limitBytes")?,
        since,
        stream: match query::first(pairs, "stream") {
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            _ => None,
        },
    })
}

async fn container_logs(server: &Arc<Server>, mut request: Request<Incoming>, about: &About<'_>) -> Result<Response, Refused> {
    let agent = &server.agent;
    let About { namespace, pod, container, pairs } = *about;
    let options = log_options(pairs, agent.clock.now())?;
    let shown = find(server, namespace, pod)?;
    if spec::container(&shown.pod, container).is_none() {
        return Err((StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {pod:?}")));
    }
    let bad = |message: String| (StatusCode::BAD_REQUEST, message);
    let id = log_source(&shown.pod, &shown.status, container, options.previous).map_err(bad)?;
    let status = agent
        .runtime
        .container_status(&id)
        .await
        .map_err(|e| bad(format!("failed to try resolving symlinks in path of container {id:?}: {e}")))?;
    let run = crate::pod::view::Run::from_status(status);
    let folder = sandbox::log_directory(&agent.config.pod_logs_dir, &shown.pod).join(container);
    let path = folder.join(format!("{}.log", run.restart_count));
    let changes = if options.follow { server.changes.of(&folder).ok() } else { None };
    std::fs::metadata(&path).map_err(|e| bad(format!("failed to open log file {:?}: {e}", path.display())))?;
    let (out, chunks) = mpsc::channel(16);
    let runtime = agent.runtime.clone();
    agent.tasks.spawn("logs", async move {
        let ended = || async { runtime.container_status(&id).await.map_or(true, |s| s.state != cri::ContainerState::Running) };
        if let Err(error) = logs::send(path, &options, out, changes, ended).await {
            tracing::debug!(%error, "log not read to its end");
        }
    });
    if wants_websocket(request.headers()) {
        return Ok(over_websocket(server, &mut request, chunks));
    }
    Ok(Response::new(tokio_stream(chunks)))
}

/// The API server hands such requests on as they are (`binary.k8s.io`, `base64.binary.k8s.io`).
fn over_websocket(server: &Server, request: &mut Request<Incoming>, mut chunks: mpsc::Receiver<Bytes>) -> Response {
    let upgrade = match accept_logs(request) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal.map(BodyExt::boxed),
    };
    server.agent.tasks.spawn("logs-websocket", async move {
        let Ok(mut sink) = upgrade.session.await else { return };
        while let Some(chunk) = chunks.recv().await {
            if sink.write(chunk).await.is_err() {
                return;
            }
        }
    });
    upgrade.response.map(BodyExt::boxed)
}

fn tokio_stream(mut chunks: mpsc::Receiver<Bytes>) -> Body {
    let stream = futures_util::stream::poll_fn(move |context| chunks.poll_recv(context));
    BodyExt::boxed(StreamBody::new(stream.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)))))
}

/// The id of the container whose log is meant, or why there is none yet (upstream's validateContainerLogStatus).
fn log_source(pod: &Pod, status: &PodStatus, container: &str, previous: bool) -> Result<String, String> {
    let name = spec::name(pod);
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let found: Option<&ContainerStatus> = lists.into_iter().flatten().flatten().find(|s| s.name == container);
    let found = found.ok_or_else(|| format!("container {container:?} in pod {name:?} is not available"))?;
    let ended = |state: &Option<ContainerState>| {
        let id = state.as_ref()?.terminated.as_ref()?.container_id.clone();
        id.filter(|id| !id.is_empty())
    };
    let bare = |id: String| id.split_once("://").map(|(_, id)| id.to_owned()).unwrap_or(id);
    let last = ended(&found.last_state);
    if previous {
        return last.map(bare).ok_or_else(|| format!("previous terminated container {container:?} in pod {name:?} not found"));
    }
    let state = found.state.clone().unwrap_or_default();
    if state.running.is_some() {
        return found.container_id.clone().map(bare).ok_or_else(|| format!("container {container:?} in pod {name:?} has no id"));
    }
    if state.terminated.is_some() {
        return ended(&found.state).or(last).map(bare).ok_or_else(|| format!("container {container:?} in pod {name:?} is terminated"));
    }
    if let Some(last) = last {
        return Ok(bare(last));
    }
    let reason = state.waiting.and_then(|w| w.reason).unwrap_or_default();
    Err(match reason.as_str() {
        "ErrImagePull" => format!("container {container:?} in pod {name:?} is waiting to start: image can't be pulled"),
        "ImagePullBackOff" => format!("container {container:?} in pod {name:?} is waiting to start: trying and failing to pull image"),
        "" => format!("container {container:?} in pod {name:?} is waiting to start - no logs yet"),
        reason => format!("container {container:?} in pod {name:?} is waiting to start: {reason}"),
    })
}

/// Files below /var/log, as far as they are there.
fn node_logs(parts: &[&str]) -> Result<Response, Refused> {
    let missing = || (StatusCode::NOT_FOUND, "404 page not found".to_owned());
    if parts.contains(&"..") {
        return Err(missing());
    }
    let root = std::path::Path::new("/var/log");
    let path = parts.iter().fold(root.to_path_buf(), |path, part| path.join(part));
    let real = path.canonicalize().ok().filter(|p| p.starts_with(root)).ok_or_else(missing)?;
    if real.is_dir() {
        let mut names: Vec<String> = std::fs::read_dir(&real)
            .map_err(|_| missing())?
            .flatten()
            .map(|e| format!("{}{}", e.file_name().to_string_lossy(), if e.path().is_dir() { "/" } else { "" }))
            .collect();
        names.sort();
        let list: String = names.iter().map(|n| format!("<a href=\"{n}\">{n}</a>\n")).collect();
        return Ok(with_type(StatusCode::OK, "text/html; charset=utf-8", format!("<!doctype html>\n<pre>\n{list}</pre>\n")));
    }
    let content = std::fs::read(real).map_err(|_| missing())?;
    Ok(with_type(StatusCode::OK, "text/plain; charset=utf-8", content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(status: Value, previous: bool) -> Result<String, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}})).expect("a pod");
        let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [status]})).expect("a status");
        log_source(&pod, &status, "c", previous)
    }

    #[test]
    fn whose_log() {
        let base = |state: Value, last: Value| json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "containerID": "tiphys://now", "state": state, "lastState": last});
        let ended = json!({"terminated": {"exitCode": 1, "containerID": "tiphys://old"}});
        assert_eq!(source(base(json!({"running": {}}), json!({})), false), Ok("now".into()));
        assert_eq!(source(base(json!({"running": {}}), ended.clone()), true), Ok("old".into()));
        assert_eq!(source(base(json!({"waiting": {"reason": "CrashLoopBackOff"}}), ended), false), Ok("old".into()));
        assert_eq!(
            source(base(json!({"waiting": {"reason": "ContainerCreating"}}), json!({})), false),
            Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating".into())
        );
        assert_eq!(
            source(base(json!({"running": {}}), json!({})), true),
            Err("previous terminated container \"c\" in pod \"p\" not found".into())
        );
    }
}
