//! What the engine costs: memory of the table, time of each codec on a golden Pod. `cargo run --release -p tiphys-schema --example cost -- TESTDATA_DIR`.

use std::hint::black_box;
use std::time::Instant;

use tiphys_meta::Gvk;
use tiphys_schema::apply::{self, Options, Schema};
use tiphys_schema::codec::{Strictness, json, proto};
use tiphys_schema::{Facts, Kind, openapi};

fn resident_kb() -> u64 {
    memory("VmRSS:")
}

fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(what)).unwrap_or("0");
    line.trim().split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn time(what: &str, rounds: u32, mut run: impl FnMut()) {
    run();
    let start = Instant::now();
    for _ in 0..rounds {
        run();
    }
    println!("{what}: {:.1} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
}

/// A status update of a small Pod that two managers share.
fn updates(kind: &'static Kind) {
    let schema = Schema::Kind(kind);
    let by = |manager| Options { manager, subresource: "", now: "2026-01-01T00:00:00Z", reset: &[], force: false };
    let spec = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"app": "x"}}, "spec": {
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {"limits": {"cpu": "1"}}}],
        "restartPolicy": "Always", "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Pending"}});
    let mut live = spec;
    apply::update(&schema, None, &mut live, &by("manager"));
    let mut next = live.clone();
    let condition = |t: &str| serde_json::json!({"type": t, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let conditions = ["Ready", "Initialized", "PodScheduled"].map(condition);
    next["status"] = serde_json::json!({"phase": "Running", "conditions": conditions, "podIP": "10.0.0.1"});
    apply::update(&schema, Some(&live), &mut next, &Options { subresource: "status", ..by("kubelet") });
    time("managed fields of an update", 2000, || {
        let mut new = next.clone();
        new["status"]["phase"] = "Succeeded".into();
        apply::update(&schema, Some(&next), &mut new, &Options { subresource: "status", ..by("kubelet") });
        black_box(new);
    });
}

fn main() {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "/root/go/pkg/mod/k8s.io/api@v0.36.3/testdata/HEAD".into());
    let (Ok(text), Ok(bytes)) = (std::fs::read(format!("{dir}/core.v1.Pod.json")), std::fs::read(format!("{dir}/core.v1.Pod.pb"))) else {
        return println!("no golden Pod in {dir}");
    };
    let before = resident_kb();
    let start = Instant::now();
    let Some(kind) = Facts::builtin().kind(&Gvk::new("", "v1", "Pod")) else { return };
    println!("facts: {:.2} ms, {} KiB", start.elapsed().as_secs_f64() * 1e3, resident_kb() - before);
    let compact = serde_json::from_slice::<serde_json::Value>(&text).map(|v| v.to_string().into_bytes()).unwrap_or_default();
    println!("pod: {} bytes of JSON, {} of protobuf", compact.len(), bytes.len());
    let Ok(decoded) = json::decode(kind, &compact, Strictness::Strict) else { return };
    time("JSON as untyped tree", 2000, || drop(black_box(serde_json::from_slice::<serde_json::Value>(black_box(&compact)))));
    time("JSON decode", 2000, || drop(black_box(json::decode(kind, black_box(&compact), Strictness::Strict))));
    time("JSON encode", 2000, || drop(black_box(json::encode(black_box(&decoded.object)))));
    time("protobuf decode", 2000, || drop(black_box(proto::decode(black_box(&bytes)))));
    time("protobuf encode", 2000, || drop(black_box(proto::encode(&kind.gvk, black_box(&decoded.object)))));
    updates(kind);
    time("OpenAPI v3 of api/v1", 5, || drop(black_box(openapi::v3("api/v1", &[]))));
    time("OpenAPI v2 as JSON", 3, || drop(black_box(openapi::v2_json(&[]))));
    time("OpenAPI v2 as protobuf", 3, || drop(black_box(openapi::v2_proto(&[]))));
    println!("memory: {} KiB now, {} KiB at most", resident_kb(), memory("VmHWM:"));
    println!("v2: {} bytes of JSON, {} of protobuf", openapi::v2_json(&[]).len(), openapi::v2_proto(&[]).len());
}
