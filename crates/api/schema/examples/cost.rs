//! What the engine costs: memory of the table, time of each codec on a golden Pod. `cargo run --release -p tiphys-schema --example cost -- TESTDATA_DIR`.

use std::hint::black_box;
use std::time::Instant;

use tiphys_meta::Gvk;
use tiphys_schema::codec::{Strictness, json, proto};
use tiphys_schema::{Facts, openapi};

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
    time("OpenAPI v3 of api/v1", 5, || drop(black_box(openapi::v3("api/v1", &[]))));
    time("OpenAPI v2 as JSON", 3, || drop(black_box(openapi::v2_json(&[]))));
    time("OpenAPI v2 as protobuf", 3, || drop(black_box(openapi::v2_proto(&[]))));
    println!("memory: {} KiB now, {} KiB at most", resident_kb(), memory("VmHWM:"));
    println!("v2: {} bytes of JSON, {} of protobuf", openapi::v2_json(&[]).len(), openapi::v2_proto(&[]).len());
}
