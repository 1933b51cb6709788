//! What is computed for each question: `metrics.k8s.io`, asked of a kubelet that is none, and component statuses.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tiphys_apiserver::UserInfo;
use tiphys_base::pki::Use;
use tiphys_base::{Clock, SystemClock, tls};
use tiphys_client::{Client, ListOptions};
use tiphys_meta::Gvr;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::cluster::{Cluster, LOOPBACK};

/// Everything started ten seconds ago, and has used two seconds of CPU time since.
fn summary() -> Value {
    let now = SystemClock.now();
    let stats = |name: &str| {
        json!({"name": name, "startTime": (now - Duration::from_secs(10)).to_string(), "memory": {"workingSetBytes": 1 << 20},
            "cpu": {"time": now.to_string(), "usageCoreNanoSeconds": 2_000_000_000u64}})
    };
    let pod = json!({"podRef": {"name": "p", "namespace": "default", "uid": "u"}, "containers": [stats("a"), stats("b")]});
    json!({"node": stats(""), "pods": [pod]})
}

/// Its port; it counts the questions.
async fn kubelet(cluster: &Cluster, asked: Arc<AtomicUsize>) -> u16 {
    let acceptor = TlsAcceptor::from(Arc::new(tls::server(&cluster.issue("kubelet", &[], Use::Server), None, &[]).expect("TLS")));
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, asked) = (acceptor.clone(), asked.clone());
            tokio::spawn(async move {
                let answer = service_fn(|request: Request<Incoming>| {
                    assert_eq!(request.uri().path(), "/stats/summary");
                    asked.fetch_add(1, Ordering::Relaxed);
                    async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(summary().to_string()))) }
                });
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    port
}

fn core(resource: &'static str) -> Gvr {
    Gvr::new("", "v1", resource)
}

fn of(resource: &'static str) -> Gvr {
    Gvr::new("metrics.k8s.io", "v1beta1", resource)
}

async fn fill(admin: &Client, port: u16) {
    let status =
        json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
    let node = json!({"metadata": {"name": "n1", "labels": {"zone": "x"}}, "status": status});
    let mut made = admin.create_value(&core("nodes"), "", &node).await.expect("node");
    made["status"] = node["status"].clone();
    admin.update_value(&core("nodes"), &made, "status").await.expect("status");
    admin.create_value(&core("nodes"), "", &json!({"metadata": {"name": "silent"}})).await.expect("node");
    admin.create_value(&core("serviceaccounts"), "default", &json!({"metadata": {"name": "default"}})).await.expect("account");
    for name in ["p", "elsewhere"] {
        let spec = json!({"nodeName": "n1", "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]});
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        admin.create_value(&core("pods"), "default", &pod).await.expect("pod");
    }
}

async fn names(client: &Client, gvr: &Gvr, options: &ListOptions) -> Vec<String> {
    let list = client.list_value(gvr, "", options).await.expect("a list");
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or("").to_owned()).collect()
}

#[tokio::test]
async fn what_kubelets_say_is_served_as_metrics() {
    let cluster = Cluster::start().await;
    let admin = cluster.running.loopback_client();
    let asked: Arc<AtomicUsize> = Arc::default();
    fill(&admin, kubelet(&cluster, asked.clone()).await).await;

    let node = admin.get_value(&of("nodes"), "", "n1").await.expect("metrics");
    assert_eq!((&node["kind"], &node["usage"]), (&json!("NodeMetrics"), &json!({"cpu": "200m", "memory": "1Mi"})));
    assert_eq!((&node["window"], &node["metadata"]["labels"]), (&json!("10s"), &json!({"zone": "x"})));
    let pod = admin.get_value(&of("pods"), "default", "p").await.expect("metrics");
    assert_eq!(pod["containers"][1], json!({"name": "b", "usage": {"cpu": "200m", "memory": "1Mi"}}));

    assert_eq!(names(&admin, &of("nodes"), &ListOptions::default()).await, ["n1"], "a node that does not answer is missing");
    assert_eq!(names(&admin, &of("pods"), &ListOptions::default()).await, ["p"], "so is a pod that does not run");
    let labels = |text: &str| ListOptions { label_selector: text.into(), ..ListOptions::default() };
    assert_eq!(names(&admin, &of("pods"), &labels("app=p")).await, ["p"]);
    assert!(names(&admin, &of("pods"), &labels("app!=p")).await.is_empty());
    let fields = ListOptions { field_selector: "metadata.name=silent".into(), ..ListOptions::default() };
    assert!(names(&admin, &of("nodes"), &fields).await.is_empty());
    assert_eq!(asked.load(Ordering::Relaxed), 1, "an answer is kept");

    let missing = admin.get_value(&of("nodes"), "", "silent").await.expect_err("nothing is known");
    assert!(missing.to_string().contains("nodemetrics.metrics.k8s.io \"silent\" not found"), "{missing}");
    let stranger = cluster.running.client(UserInfo::new("ann", &[]));
    assert!(stranger.get_value(&of("nodes"), "", "n1").await.expect_err("refused").to_string().contains("forbidden"));
    let groups: Value = serde_json::from_slice(&admin.text("/apis").await.expect("discovery")).expect("JSON");
    assert!(groups["groups"].as_array().expect("groups").iter().any(|g| g["name"] == "metrics.k8s.io"));
    let document: Value =
        serde_json::from_slice(&admin.text("/openapi/v3/apis/metrics.k8s.io/v1beta1").await.expect("document")).expect("JSON");
    assert!(document["paths"]["/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/{name}"]["get"].is_object());
    assert!(cluster.running.stop().await);
}

#[tokio::test]
async fn components_are_as_well_as_they_say() {
    let cluster = Cluster::start_with(|config| config.components_within = true).await;
    let admin = cluster.running.loopback_client();
    assert_eq!(names(&admin, &core("componentstatuses"), &ListOptions::default()).await, ["scheduler", "controller-manager", "etcd-0"]);
    let fields = ListOptions { field_selector: "metadata.name=etcd-0".into(), ..ListOptions::default() };
    assert_eq!(names(&admin, &core("componentstatuses"), &fields).await, ["etcd-0"]);
    let one = admin.get_value(&core("componentstatuses"), "", "scheduler").await.expect("read");
    let condition = json!({"type": "Healthy", "status": "True", "message": "ok"});
    assert_eq!((&one["kind"], &one["conditions"][0]), (&json!("ComponentStatus"), &condition));
    let none = admin.get_value(&core("componentstatuses"), "", "nothing").await.expect_err("not there");
    assert!(none.to_string().contains("componentstatus \"nothing\" not found"), "{none}");
    assert!(cluster.running.stop().await);
}
