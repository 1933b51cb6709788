//! How fast the store is on this disk: `cargo run --profile fast -p tiphys-store --example bench [folder]`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tiphys_store::*;

const OBJECTS: usize = 100_000;

fn put(key: String, size: usize) -> Txn {
    let op = Op::Put { key: key.into(), value: Bytes::from(vec![b'x'; size]), lease: 0 };
    Txn { success: vec![op], ..Txn::default() }
}

fn report(what: &str, mut times: Vec<Duration>, whole: Duration) {
    times.sort();
    let at = |share: usize| times[times.len() * share / 100];
    let per_second = times.len() as f64 / whole.as_secs_f64();
    println!("{what}: p50 {:?} p90 {:?} p99 {:?}, {per_second:.0}/s", at(50), at(90), at(99));
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

async fn lone(engine: &Embedded, rounds: usize) {
    let begin = Instant::now();
    let mut times = Vec::new();
    for at in 0..rounds {
        let begin = Instant::now();
        engine.txn(put(format!("/registry/leases/kube-node-lease/node-{}", at % 10), 1500)).await.expect("writes");
        times.push(begin.elapsed());
    }
    report("lone writer", times, begin.elapsed());
}

async fn crowd(engine: &std::sync::Arc<Embedded>, writers: usize, rounds: usize) {
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let engine = engine.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            for at in 0..rounds {
                let begin = Instant::now();
                engine.txn(put(format!("/registry/pods/default/pod-{writer}-{at}"), 1500)).await.expect("writes");
                times.push(begin.elapsed());
            }
            times
        });
    }
    let times = tasks.join_all().await.concat();
    report(&format!("{writers} writers"), times, begin.elapsed());
}

#[tokio::main]
async fn main() {
    let dir =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join(format!("store-bench-{}", std::process::id())), PathBuf::from);
    let engine = Embedded::open(Options::new(&dir)).expect("opens");
    lone(&engine, 3000).await;
    crowd(&engine, 32, 1000).await;
    let before = resident();
    crowd(&engine, 128, OBJECTS / 128).await;
    println!("memory: {} KiB more for {OBJECTS} objects of 1.5 KB ({} KiB in all)", resident() - before, resident());
    drop(engine);
    let begin = Instant::now();
    let engine = Embedded::open(Options::new(&dir)).expect("opens");
    println!("open from the log: {:?}, {} MiB", begin.elapsed(), engine.size() >> 20);
    let begin = Instant::now();
    let listed = engine.range(RangeRequest::new(KeyRange::prefix("/registry/"))).await.expect("reads");
    println!("list {} objects: {:?}", listed.count, begin.elapsed());
    drop(listed);
    engine.compact(engine.revision()).await.expect("compacts");
    drop(engine);
    let begin = Instant::now();
    let engine = Embedded::open(Options::new(&dir)).expect("opens");
    println!("open from a snapshot: {:?}, {} MiB", begin.elapsed(), engine.size() >> 20);
    drop(engine);
    std::fs::remove_dir_all(&dir).expect("cleaned up");
}
