//! What one operation costs in the registry alone, without sockets and without a disk: `cargo run --profile fast --example bench`.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};
use tiphys_meta::Gvr;
use tiphys_registry::{Answer, Registry, RegistryConfig, RequestInfo, UserInfo, Verb};

struct Bench {
    registry: Arc<Registry>,
    user: Arc<UserInfo>,
}

fn core(resource: &'static str) -> Gvr {
    Gvr::new("", "v1", resource)
}

fn pod(name: &str) -> Value {
    let container = |n: &str| {
        json!({"name": n, "image": "registry.example.com/team/app:1.2.3", "ports": [{"containerPort": 8080, "name": "http"}],
            "env": [{"name": "A", "value": "b"}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]})
    };
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x", "pod-template-hash": "abc"}},
        "spec": {"containers": [container("a"), container("b")], "volumes": [{"name": "data", "emptyDir": {}}]}})
}

impl Bench {
    async fn ask(&self, verb: Verb, name: &str, more: impl FnOnce(&mut RequestInfo), body: Bytes) -> Answer {
        let mut info = RequestInfo::new(verb, core("pods"), "default", name, self.user.clone());
        info.user_agent = "bench/1".into();
        more(&mut info);
        self.registry.handle(&info, body).await.expect("answered")
    }
}

/// What all threads of this process have spent on a CPU so far, in microseconds.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let spent = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("schedstat")).ok());
    spent.filter_map(|s| s.split_whitespace().next()?.parse::<f64>().ok()).sum::<f64>() / 1000.0
}

async fn measure<F: Future<Output = ()>>(name: &str, count: usize, mut one: impl FnMut(usize) -> F) {
    let (begun, cpu_before) = (Instant::now(), cpu());
    for i in 0..count {
        one(i).await;
    }
    let (wall, cpu) = (begun.elapsed().as_secs_f64() * 1e6, cpu() - cpu_before);
    println!("{name:32} {:9.1} us/op wall {:9.1} us/op cpu", wall / count as f64, cpu / count as f64);
}

#[tokio::main]
async fn main() {
    let registry = Registry::open(None, RegistryConfig::default()).await.expect("starts");
    let bench = &Bench { registry, user: Arc::new(UserInfo::new("admin", &["system:masters"])) };
    for (gvr, namespace, name) in [(core("namespaces"), "", "default"), (core("serviceaccounts"), "default", "default")] {
        let info = RequestInfo::new(Verb::Create, gvr, namespace, "", bench.user.clone());
        let _ = bench.registry.handle(&info, json!({"metadata": {"name": name}}).to_string().into()).await;
    }
    let n = 5000;
    let bodies: Vec<Bytes> = (0..n).map(|i| pod(&format!("pod-{i:05}")).to_string().into()).collect();
    let bodies = &bodies;
    measure("create pod", n, |i| async move { drop(bench.ask(Verb::Create, "", |_| {}, bodies[i].clone()).await) }).await;
    let names: Vec<String> = (0..n).map(|i| format!("pod-{i:05}")).collect();
    let names = &names;
    measure("get pod", n * 10, |i| async move { drop(bench.ask(Verb::Get, &names[i % n], |_| {}, Bytes::new()).await) }).await;
    let protobuf = "application/vnd.kubernetes.protobuf";
    measure("get pod protobuf", n * 10, |i| async move {
        drop(bench.ask(Verb::Get, &names[i % n], |r| r.accept = protobuf.into(), Bytes::new()).await);
    })
    .await;
    measure("list 5000 pods", 50, |_| async move {
        if let Answer::Object(document) = bench.ask(Verb::List, "", |_| {}, Bytes::new()).await {
            std::hint::black_box(document.body.into_bytes().len());
        }
    })
    .await;
    measure("list by label, none match", 50, |_| async move {
        drop(bench.ask(Verb::List, "", |r| r.query = "labelSelector=app%3Dy".into(), Bytes::new()).await);
    })
    .await;
    let status = |i: usize| {
        Bytes::from(json!({"status": {"phase": "Running", "podIP": format!("10.0.0.{}", i % 250), "conditions": [{"type": "Ready", "status": "True"}]}}).to_string())
    };
    measure("patch status (merge)", n, |i| async move {
        let more = |r: &mut RequestInfo| {
            r.subresource = "status".into();
            r.content_type = "application/merge-patch+json".into();
        };
        drop(bench.ask(Verb::Patch, &names[i], more, status(i)).await);
    })
    .await;
    measure("patch label (strategic)", n, |i| async move {
        let body = json!({"metadata": {"labels": {"n": i.to_string()}}}).to_string();
        let more = |r: &mut RequestInfo| r.content_type = "application/strategic-merge-patch+json".into();
        drop(bench.ask(Verb::Patch, &names[i], more, body.into()).await);
    })
    .await;
    let mut watches = Vec::new();
    for _ in 0..100 {
        if let Answer::Watch(mut stream) = bench
            .ask(
                Verb::Watch,
                "",
                |r| r.query = "resourceVersion=0&sendInitialEvents=false&resourceVersionMatch=NotOlderThan".into(),
                Bytes::new(),
            )
            .await
        {
            watches.push(tokio::spawn(async move {
                let mut bytes = 0;
                while let Some(frame) = stream.next_frames().await {
                    bytes += frame.len();
                }
                bytes
            }));
        }
    }
    measure("delete pod, 100 watchers", n, |i| async move { drop(bench.ask(Verb::Delete, &names[i], |_| {}, Bytes::new()).await) }).await;
    watches.iter().for_each(|w| w.abort());
}
