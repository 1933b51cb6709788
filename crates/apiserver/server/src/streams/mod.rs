//! Requests that go on to a node or into a pod: logs, exec, attach, port-forward, and the proxies of pods, services and nodes.
//!
//! Services are resolved to an endpoint here, and pods are dialled directly: nothing depends on the host's packet rules, and a redirect
//! is handed to the client, never followed.

mod dial;
mod frames;
mod html;
mod kubelet;
mod proxy;
mod target;
pub(crate) mod tunnel;

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tiphys_base::tls::TlsError;
use tiphys_meta::{ApiError, Reason};
use tiphys_registry::Connect;

use crate::authorize::Attributes;
use crate::body::{self, Answered};
use crate::chain::{Call, Door};
use crate::errors::{BadField, DoorError, forbidden, invalid};
use crate::objects::{Objects, items, known, text};
use crate::request_info::Info;
pub(crate) use dial::{Dialer, boxed};
pub(crate) use kubelet::Kubelet;
pub(crate) use target::endpoint_of_service;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    Exec,
    Attach,
    PortForward,
    PodProxy,
    ServiceProxy,
    NodeProxy,
}

impl Kind {
    pub(crate) fn of(info: &Info) -> Option<Self> {
        if !info.group.is_empty() || info.version != "v1" {
            return None;
        }
        Some(match (info.resource.as_str(), info.subresource.as_str()) {
            ("pods", "log") => Kind::Log,
            ("pods", "exec") => Kind::Exec,
            ("pods", "attach") => Kind::Attach,
            ("pods", "portforward") => Kind::PortForward,
            ("pods", "proxy") => Kind::PodProxy,
            ("services", "proxy") => Kind::ServiceProxy,
            ("nodes", "proxy") => Kind::NodeProxy,
            _ => return None,
        })
    }
}

/// How nodes and pods are reached.
pub struct Streams {
    pub dialer: Arc<Dialer>,
    pub address_types: Vec<String>,
}

impl Streams {
    pub fn new(kubelet: &crate::config::KubeletClient, clock: &Arc<dyn tiphys_base::Clock>) -> Result<Self, StreamsError> {
        // Addresses before names, as kubeadm sets it: nothing here depends on a resolver that knows the nodes.
        const PREFERRED: [&str; 5] = ["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"];
        let given = &kubelet.preferred_address_types;
        let address_types = if given.is_empty() { PREFERRED.map(str::to_owned).to_vec() } else { given.clone() };
        Ok(Streams { dialer: Arc::new(Dialer::new(kubelet, clock)?), address_types })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    #[error("kubelet client certificate or CA")]
    Read(#[from] std::io::Error),
    #[error("kubelet client certificate")]
    Identity(#[from] crate::identity::ReloadingError),
    #[error("kubelet client TLS")]
    Tls(#[from] TlsError),
}

pub(crate) async fn serve(door: &Arc<Door>, call: &mut Call, kind: Kind) -> Result<Answered, DoorError> {
    match kind {
        Kind::Log => log(door, call).await,
        Kind::Exec => stream(door, call, "exec").await,
        Kind::Attach => stream(door, call, "attach").await,
        Kind::PortForward => port_forward(door, call).await,
        Kind::PodProxy | Kind::ServiceProxy | Kind::NodeProxy => {
            let options = match kind {
                Kind::PodProxy => "PodProxyOptions",
                Kind::ServiceProxy => "ServiceProxyOptions",
                _ => "NodeProxyOptions",
            };
            let asked = options_of(&call.info, options)?;
            let (admitted, warnings) = admit(door, call, options).await?;
            if admitted["path"] != asked["path"] {
                text(&admitted, &["path"]).clone_into(&mut call.info.rest);
            }
            let target = target::resolve(door, &call.info, kind)?;
            Ok(body::with_warnings(proxy::forward(door, call, target).await?, &warnings))
        }
    }
}

fn pod_of(objects: &dyn Objects, info: &Info) -> Result<Arc<Value>, ApiError> {
    objects.get(&known::PODS, &info.namespace, &info.name).ok_or_else(|| ApiError::not_found(&known::PODS, &info.name))
}

/// The container that is meant: the named one, which must be there, or the only one.
fn container_of(pod: &Value, wanted: Option<&str>) -> Result<String, ApiError> {
    let name = tiphys_meta::object::name(pod);
    // Upstream's order: init containers, then the others, then ephemeral ones.
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let all = lists.iter().flat_map(|list| items(pod, &["spec", list])).map(|c| text(c, &["name"]));
    match wanted.filter(|w| !w.is_empty()) {
        Some(wanted) if all.clone().any(|c| c == wanted) => Ok(wanted.to_owned()),
        Some(wanted) => Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        None => match items(pod, &["spec", "containers"]) {
            [one] => Ok(text(one, &["name"]).to_owned()),
            [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {name}"))),
            _ => {
                let names = all.collect::<Vec<_>>().join(" ");
                Err(ApiError::bad_request(format!("a container name must be specified for pod {name}, choose one of: [{names}]")))
            }
        },
    }
}

async fn log(door: &Arc<Door>, call: &mut Call) -> Result<Answered, DoorError> {
    if !matches!(call.parts.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed().into());
    }
    let query = log_query(&call.info)?;
    let pod = pod_of(door.objects.as_ref(), &call.info)?;
    let container = container_of(&pod, call.info.query.get("container"))?;
    let node = text(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        // Not scheduled yet: nothing has been said.
        return Ok(body::answer(200, "text/plain", body::empty()));
    }
    let kubelet = Kubelet::of(door, node)?;
    let path = format!("/containerLogs/{}/{}/{container}{query}", call.info.namespace, call.info.name);
    let unchecked = call.info.query.flag("insecureSkipTLSVerifyBackend");
    if tunnel::wants_upgrade(&call.parts.headers) {
        let trust = if unchecked { dial::Trust::KubeletUnchecked } else { dial::Trust::Kubelet };
        return tunnel::upgrade(door, call, &kubelet.host, kubelet.port, trust, &path).await;
    }
    let response = kubelet.get(&door.streams.dialer, &path, unchecked).await?;
    if response.status().is_success() {
        return Ok(body::answer(200, "text/plain", response.into_body()));
    }
    let code = response.status().as_u16();
    let said = body::collect(response.into_body()).await?;
    Err(refused_by_kubelet(code, &String::from_utf8_lossy(&said), &call.info.name).into())
}

fn refused_by_kubelet(code: u16, said: &str, name: &str) -> ApiError {
    let said = said.trim_end();
    match code {
        400 => ApiError::bad_request(said),
        500 => ApiError::internal(said),
        404 => {
            let gvr = tiphys_meta::Gvr::new("", "v1", "pods/log");
            let message = format!("the server could not find the requested resource ( pods/log {name})");
            let mut error = ApiError { message, ..ApiError::not_found(&gvr, name) };
            error.causes =
                vec![tiphys_meta::Cause { reason: "UnexpectedServerResponse".into(), message: said.into(), field: String::new() }];
            error
        }
        _ => {
            let mut error = ApiError::new(Reason::Unknown, said);
            error.code = code;
            error
        }
    }
}

/// The kubelet's query for `PodLogOptions`, checked as upstream checks them.
fn log_query(info: &Info) -> Result<String, ApiError> {
    let query = &info.query;
    let mut out = form_urlencoded(&[]);
    for flag in ["follow", "previous", "timestamps"] {
        if query.flag(flag) {
            add_pair(&mut out, flag, "true");
        }
    }
    let mut bad = Vec::new();
    let mut wrong = |field: &'static str, value: &str, why: &str| {
        bad.push(BadField { field, reason: "FieldValueInvalid", detail: format!("Invalid value: {value}: {why}") });
    };
    for (field, least, why) in [
        ("sinceSeconds", 1, "must be greater than 0"),
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
    ] {
        let Some(value) = query.get(field).filter(|v| !v.is_empty()) else { continue };
        let Ok(number) = value.parse::<i64>() else {
            return Err(ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax")));
        };
        if number < least {
            wrong(field, value, why);
        }
        add_pair(&mut out, field, value);
    }
    if let Some(since) = query.get("sinceTime").filter(|v| !v.is_empty()) {
        if query.get("sinceSeconds").is_some_and(|v| !v.is_empty()) {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned();
            bad.push(BadField { field: "", reason: "FieldValueForbidden", detail: format!("Forbidden: {detail}") });
        }
        add_pair(&mut out, "sinceTime", since);
    }
    let stream = query.get("stream").filter(|v| !v.is_empty()).unwrap_or("All");
    if !matches!(stream, "All" | "Stdout" | "Stderr") {
        let detail = format!("Unsupported value: {stream:?}: supported values: \"All\", \"Stderr\", \"Stdout\"");
        bad.push(BadField { field: "stream", reason: "FieldValueNotSupported", detail });
    } else if stream != "All" && query.get("tailLines").is_some_and(|v| !v.is_empty()) {
        let detail = "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now".to_owned();
        bad.push(BadField { field: "", reason: "FieldValueForbidden", detail });
    }
    add_pair(&mut out, "stream", stream);
    if bad.is_empty() { Ok(out) } else { Err(invalid(&tiphys_meta::Gvk::new("", "v1", "PodLogOptions"), &info.name, bad)) }
}

/// Exec and attach: a tunnel to the container's kubelet.
async fn stream(door: &Arc<Door>, call: &mut Call, what: &str) -> Result<Answered, DoorError> {
    may_create(door, call)?;
    let kind = if what == "exec" { "PodExecOptions" } else { "PodAttachOptions" };
    let (options, warnings) = admit(door, call, kind).await?;
    let pod = pod_of(door.objects.as_ref(), &call.info)?;
    let container = container_of(&pod, options.get("container").and_then(Value::as_str))?;
    let node = assigned_node(&pod, &call.info.name)?;
    let query = stream_query(&options, what == "exec");
    let path = format!("/{what}/{}/{}/{container}{query}", call.info.namespace, call.info.name);
    let kubelet = Kubelet::of(door, &node)?;
    Ok(body::with_warnings(tunnel::through(door, call, &kubelet, &path).await?, &warnings))
}

async fn port_forward(door: &Arc<Door>, call: &mut Call) -> Result<Answered, DoorError> {
    may_create(door, call)?;
    let (options, warnings) = admit(door, call, "PodPortForwardOptions").await?;
    let pod = pod_of(door.objects.as_ref(), &call.info)?;
    let node = assigned_node(&pod, &call.info.name)?;
    let ports: Vec<String> = items(&options, &["ports"]).iter().map(Value::to_string).collect();
    let query = if ports.is_empty() { String::new() } else { form_urlencoded(&[("port", &ports.join(","))]) };
    let path = format!("/portForward/{}/{}{query}", call.info.namespace, call.info.name);
    let kubelet = Kubelet::of(door, &node)?;
    Ok(body::with_warnings(tunnel::through(door, call, &kubelet, &path).await?, &warnings))
}

/// Admission of connections: there is no object, but the options that were asked for, which policies and webhooks may change.
async fn admit(door: &Arc<Door>, call: &mut Call, kind: &'static str) -> Result<(Value, Vec<String>), DoorError> {
    let mut options = options_of(&call.info, kind)?;
    let gvr = tiphys_meta::Gvr::new("", "v1", call.info.resource.clone());
    let notes = call.notes();
    let connect = Connect {
        gvr: &gvr,
        subresource: &call.info.subresource,
        namespace: &call.info.namespace,
        name: &call.info.name,
        user: &call.user,
        notes: &notes,
    };
    let warnings = door.registry.admit_connect(&connect, &mut options).await?;
    Ok((options, warnings))
}

/// A connection's options as they stand in the request's URL.
fn options_of(info: &Info, kind: &'static str) -> Result<Value, ApiError> {
    let query = &info.query;
    let mut options = json!({"apiVersion": "v1", "kind": kind});
    let all = |name: &str| query.pairs().iter().filter(|(k, _)| k == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
    match kind {
        "PodExecOptions" | "PodAttachOptions" => {
            for flag in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|flag| query.flag(flag)) {
                options[flag] = json!(true);
            }
            if let Some(container) = query.get("container").filter(|c| !c.is_empty()) {
                options["container"] = json!(container);
            }
            let command = all("command");
            if kind == "PodExecOptions" && !command.is_empty() {
                options["command"] = json!(command);
            }
        }
        "PodPortForwardOptions" => {
            let ports = all("ports");
            let number =
                |port: &str| port.trim().parse::<i32>().map_err(|_| ApiError::bad_request(format!("unable to parse {port:?} as a port")));
            let ports: Vec<i32> = ports.iter().flat_map(|p| p.split(',')).map(number).collect::<Result<_, _>>()?;
            if !ports.is_empty() {
                options["ports"] = json!(ports);
            }
        }
        _ => options["path"] = json!(if info.rest.is_empty() { "/" } else { &info.rest }),
    }
    Ok(options)
}

/// A WebSocket begins with a GET; whoever opens one must still be allowed to create (KEP-4006's follow-up, on by default since v1.35).
fn may_create(door: &Door, call: &Call) -> Result<(), ApiError> {
    if call.parts.method != Method::GET {
        return Ok(());
    }
    let question = Attributes { verb: "create", ..Attributes::of(&call.info) };
    let decision = door.authorization.decide(&call.user, &question);
    if decision.is_allowed() { Ok(()) } else { Err(forbidden(&call.user, &question, decision.reason())) }
}

fn assigned_node(pod: &Value, name: &str) -> Result<String, ApiError> {
    match text(pod, &["spec", "nodeName"]) {
        "" => Err(ApiError::bad_request(format!("pod {name} does not have a host assigned"))),
        node => Ok(node.to_owned()),
    }
}

/// The kubelet's names for the streams: input, output, error.
fn stream_query(options: &Value, with_command: bool) -> String {
    let mut out = form_urlencoded(&[]);
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if options.get(ours) == Some(&Value::Bool(true)) {
            add_pair(&mut out, theirs, "1");
        }
    }
    for word in items(options, &["command"]).iter().filter_map(Value::as_str).filter(|_| with_command) {
        add_pair(&mut out, "command", word);
    }
    out
}

fn form_urlencoded(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    pairs.iter().for_each(|(k, v)| add_pair(&mut out, k, v));
    out
}

fn add_pair(out: &mut String, key: &str, value: &str) {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    out.push(if out.is_empty() { '?' } else { '&' });
    out.push_str(key);
    out.push('=');
    out.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_info::Query;

    #[test]
    fn containers() {
        let pod =
            json!({"metadata": {"name": "p"}, "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container_of(&pod, Some("i")), Ok("i".into()));
        let error = |wanted| container_of(&pod, wanted).expect_err("refused").message;
        assert_eq!(error(None), "a container name must be specified for pod p, choose one of: [i a b]");
        assert_eq!(error(Some("x")), "container x is not valid for pod p");
        assert_eq!(container_of(&json!({"spec": {"containers": [{"name": "only"}]}}), Some("")), Ok("only".into()));
    }

    #[test]
    fn kubelet_queries() {
        let info = |query: &str| Info { query: Query::parse(query), ..Info::default() };
        assert_eq!(log_query(&info("follow=true&tailLines=5&container=x")), Ok("?follow=true&tailLines=5&stream=All".into()));
        assert_eq!(log_query(&info("tailLines=-1")).map_err(|e| e.code), Err(422));
        assert_eq!(log_query(&info("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z")).map_err(|e| e.code), Err(422));
        assert_eq!(log_query(&info("limitBytes=x")).map_err(|e| e.code), Err(400));
        let asked = info("command=sh&command=-c&command=echo+a%26b&stdin=true&stdout=1&stderr=false&container=c");
        let options = options_of(&asked, "PodExecOptions").expect("good");
        assert_eq!(stream_query(&options, true), "?input=1&output=1&command=sh&command=%2Dc&command=echo%20a%26b");
        assert_eq!(options_of(&info("ports=1,2&ports=3"), "PodPortForwardOptions").map(|o| o["ports"].clone()), Ok(json!([1, 2, 3])));
        assert!(options_of(&info("ports=x"), "PodPortForwardOptions").is_err());
    }
}
