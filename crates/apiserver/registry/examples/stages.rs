//! What the stages of a write cost, one by one: `cargo run --profile fast --example stages`.

use std::collections::BTreeMap;
use std::hint::black_box;

use serde_json::{Value, json};
use tiphys_kinds::{Ctx, User};
use tiphys_meta::{Gvk, Gvr};
use tiphys_schema::Facts;
use tiphys_schema::apply::{self, Options, Schema};
use tiphys_schema::codec::{self, Strictness};

/// What this thread has spent on the CPU, in microseconds: other work on the machine does not count.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0
}

fn measure<T>(name: &str, mut one: impl FnMut() -> T) {
    let count = 3000;
    for _ in 0..200 {
        black_box(one());
    }
    let begun = cpu();
    for _ in 0..count {
        black_box(one());
    }
    println!("{name:32} {:8.1} us", (cpu() - begun) / f64::from(count));
}

fn pod() -> Value {
    let container = |n: &str| {
        json!({"name": n, "image": "registry.example.com/team/app:1.2.3", "ports": [{"containerPort": 8080, "name": "http"}],
            "env": [{"name": "A", "value": "b"}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]})
    };
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default", "labels": {"app": "x", "pod-template-hash": "abc"}},
        "spec": {"containers": [container("a"), container("b")], "volumes": [{"name": "data", "emptyDir": {}}]}})
}

fn main() {
    let kind = Facts::builtin().kind_of("", "v1", "Pod").expect("pods");
    let strategy = tiphys_kinds::strategy(&Gvr::new("", "v1", "pods"));
    let body = pod().to_string();
    let gvk = Gvk::new("", "v1", "Pod");
    let (groups, extra) = (Vec::new(), BTreeMap::new());
    let now = "2026-11-21T10:00:00Z".parse().expect("a time");
    let ctx = Ctx { now, user: User { name: "a", uid: "", groups: &groups, extra: &extra } };
    measure("serde_json::from_slice", || serde_json::from_slice::<Value>(body.as_bytes()));
    measure("codec::json::decode", || codec::json::decode(kind, body.as_bytes(), Strictness::Warn));
    let decoded = codec::json::decode(kind, body.as_bytes(), Strictness::Warn).expect("decodes").object;
    measure("clone and drop", || decoded.clone());
    measure("canonicalize (with clone)", || codec::json::canonicalize(kind, decoded.clone(), Strictness::Warn));
    let mut full = decoded.clone();
    strategy.default(&mut full);
    measure("default (with clone)", || {
        let mut tree = decoded.clone();
        strategy.default(&mut tree);
        tree
    });
    let options = Options { manager: "bench", subresource: "", now: "2026-11-21T10:00:00Z", reset: &[&["status"]], force: false };
    measure("fields of a create (with clone)", || {
        let mut tree = full.clone();
        apply::update(&Schema::Kind(kind), None, &mut tree, &options);
        tree
    });
    apply::update(&Schema::Kind(kind), None, &mut full, &options);
    strategy.prepare_create(&mut full, &ctx);
    let mut old = full.clone();
    old["metadata"]["uid"] = json!("u");
    old["metadata"]["resourceVersion"] = json!("5");
    measure("fields of an update (with clone)", || {
        let mut tree = old.clone();
        tree["metadata"]["labels"]["x"] = json!("y");
        apply::update(&Schema::Kind(kind), Some(&old), &mut tree, &options);
        tree
    });
    measure("prepare_create (with clone)", || {
        let mut tree = full.clone();
        strategy.prepare_create(&mut tree, &ctx);
        tree
    });
    measure("validate_create", || strategy.validate_create(&old));
    measure("validate_update", || strategy.validate_update(&old, &old));
    measure("warnings", || strategy.warnings(&old, None));
    measure("proto::encode", || codec::proto::encode(&gvk, &old));
    let wire = codec::proto::encode(&gvk, &old).expect("encodes");
    measure("proto::decode", || codec::proto::decode(&wire));
    measure("serde_json::to_vec", || serde_json::to_vec(&old));
    println!("json {} bytes, protobuf {} bytes", serde_json::to_vec(&old).map_or(0, |v| v.len()), wire.len());
}
