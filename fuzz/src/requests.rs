//! Whole requests, as bytes: a line with method and path, headers, an empty line, a body. They pass the whole chain of a server in memory, which keeps
//! what they make: a case is the same again only after those before it.

use std::cell::OnceCell;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::BodyExt;
use serde_json::json;
use tiphys_apiserver::config::Pem;
use tiphys_apiserver::{Config, Running, Server, UserInfo};
use tiphys_base::pki::{Authority, Names, Subject, Use, generate_key_pem};
use tiphys_base::{Clock, SystemClock};
use tiphys_schema::Facts;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub(crate) const WORDS: &[&str] = &[
    "GET ",
    "POST ",
    "PUT ",
    "PATCH ",
    "DELETE ",
    "/api/v1/namespaces/default/configmaps",
    "/apis/apps/v1/deployments",
    "/status",
    "/scale",
    "/eviction",
    "?watch=true&timeoutSeconds=1",
    "?limit=1&continue=",
    "?labelSelector=a%20in%20(b,c)",
    "?fieldSelector=metadata.name=x",
    "?dryRun=All",
    "&fieldValidation=Strict",
    "&resourceVersion=0",
    "&resourceVersionMatch=Exact",
    "&sendInitialEvents=true&allowWatchBookmarks=true",
    "?fieldManager=m&force=true",
    "Content-Type: application/json\n",
    "Content-Type: application/yaml\n",
    "Content-Type: application/vnd.kubernetes.protobuf\n",
    "Content-Type: application/merge-patch+json\n",
    "Content-Type: application/apply-patch+yaml\n",
    "Accept: application/json;as=Table;v=v1;g=meta.k8s.io\n",
    "Accept: application/vnd.kubernetes.protobuf\n",
    "Accept-Encoding: gzip\n",
    "Impersonate-User: someone\n",
    "%00",
    "%2F",
    "%",
    "..",
    "//",
    "\n\n",
];

/// Each resource in each way, with an object that is little more than a name.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for resource in Facts::builtin().resources() {
        let gvr = &resource.gvr;
        let root = if gvr.group.is_empty() { format!("/api/{}", gvr.version) } else { format!("/apis/{}/{}", gvr.group, gvr.version) };
        let scope = if resource.namespaced { "/namespaces/default" } else { "" };
        let all = format!("{root}{scope}/{}", gvr.resource);
        let object = json!({"apiVersion": resource.kind.api_version(), "kind": resource.kind.kind, "metadata": {"name": "x"}, "spec": {}});
        let patch = json!({"metadata": {"labels": {"a": "b"}}});
        let mut add = |method: &str, path: &str, kind: &str, body: &str| {
            seeds.push(format!("{method} {path}\nContent-Type: {kind}\n\n{body}").into_bytes());
        };
        add("GET", &all, "", "");
        add("GET", &format!("{all}/x"), "", "");
        add("POST", &all, "application/json", &object.to_string());
        add("PUT", &format!("{all}/x"), "application/json", &object.to_string());
        add("PATCH", &format!("{all}/x"), "application/merge-patch+json", &patch.to_string());
        add("PATCH", &format!("{all}/x"), "application/strategic-merge-patch+json", &patch.to_string());
        add("PATCH", &format!("{all}/x?fieldManager=m&force=true"), "application/apply-patch+yaml", &object.to_string());
        let operations = json!([{"op": "add", "path": "/metadata/labels", "value": {"c": "d"}}]);
        add("PATCH", &format!("{all}/x"), "application/json-patch+json", &operations.to_string());
        add("DELETE", &format!("{all}/x"), "application/json", "{\"propagationPolicy\":\"Background\"}");
        add("DELETE", &all, "", "");
        for subresource in &resource.subresources {
            add("GET", &format!("{all}/x/{}", subresource.name), "", "");
            add("POST", &format!("{all}/x/{}", subresource.name), "application/json", &object.to_string());
        }
    }
    let documents = [
        "/",
        "/version",
        "/healthz?verbose",
        "/metrics",
        "/openapi/v3",
        "/openapi/v3/api/v1",
        "/apis",
        "/api",
        "/.well-known/openid-configuration",
    ];
    seeds.extend(documents.map(|path| format!("GET {path}\n\n").into_bytes()));
    seeds
}

/// A server with its runtime, on the thread of the driver.
struct Served {
    runtime: Runtime,
    running: Running,
}

thread_local! {
    static SERVED: OnceCell<Served> = const { OnceCell::new() };
}

/// Longer than a request takes, far below what a watch may.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn answered(bytes: &[u8]) -> bool {
    let Some(request) = request(bytes) else { return false };
    SERVED.with(|served| {
        let served = served.get_or_init(|| start().unwrap_or_else(|why| panic!("no server: {why}")));
        served.runtime.block_on(async {
            served.answer(account()).await;
            let answer = served.answer(request).await;
            // 500 alone is no finding: upstream answers so to what it does not expect, and we as it.
            let failed = answer.status().as_u16() == 500;
            assert!(!failed || !served.text(answer).await.contains("to panic"), "a panic was caught");
            true
        })
    })
}

/// Pods wait for their namespace's account, which earlier cases may have deleted.
fn account() -> Request<Bytes> {
    let body = Bytes::from_static(br#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#);
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/api/v1/namespaces/default/serviceaccounts");
    request
}

impl Served {
    async fn answer(&self, request: Request<Bytes>) -> http::Response<tiphys_apiserver::Body> {
        let user = UserInfo::new("fuzz", &["system:masters", "system:authenticated"]);
        let asked = tokio::time::timeout(PATIENCE, self.running.answer(request, user)).await;
        asked.unwrap_or_else(|_| panic!("no answer"))
    }

    async fn text(&self, answer: http::Response<tiphys_apiserver::Body>) -> String {
        let body = answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        String::from_utf8_lossy(&body).into_owned()
    }
}

/// What HTTP itself does not let through is nobody's finding.
fn request(bytes: &[u8]) -> Option<Request<Bytes>> {
    let end = bytes.windows(2).position(|w| w == b"\n\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split('\n');
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).ok()?).uri(path.parse::<Uri>().ok()?);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    request.body(Bytes::copy_from_slice(&bytes[end + 2..])).ok()
}

fn start() -> Result<Served, Box<dyn std::error::Error>> {
    const DAY: Duration = Duration::from_secs(86_400);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ca = Authority::generate("fuzz", SystemClock.now(), DAY)?;
    let subject = Subject { common_name: "fuzz".into(), organizations: vec![] };
    let names = Names { dns: vec!["localhost".into()], ips: vec![] };
    let serving = ca.issue(&subject, &names, Use::Server, SystemClock.now(), DAY)?;
    let config = Config::new(serving.into(), Pem::Text(generate_key_pem()?));
    let running = runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        Ok::<_, Box<dyn std::error::Error>>(Server::start_on(listener, config).await?)
    })?;
    Ok(Served { runtime, running })
}
