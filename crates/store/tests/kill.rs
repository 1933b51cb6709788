//! `kill -9` of a writing process. Alone in its program: between fork and exec a child holds whatever locks the other tests of its program hold.

mod common;

use std::process::{Command, Stdio};

use common::*;
use tiphys_store::*;

/// The child's part of the next test: writes and says what was acknowledged, until it is killed.
#[tokio::test]
async fn child_that_writes_until_killed() {
    let Some(dir) = std::env::var_os("TIPHYS_STORE_CHILD") else { return };
    let options = Options { segment_bytes: 20_000, snapshot_after: 1, ..Options::new(dir) };
    let engine = Embedded::open(options).expect("opens");
    let first = engine.range(RangeRequest::new(everything())).await.expect("reads").count;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let engine = engine.clone();
        writers.spawn(async move {
            for at in 0.. {
                let key = format!("{first}-{writer}-{at}");
                let revision = engine.txn(always(vec![put(&key, "some value")])).await.expect("writes").revision;
                println!("ACK {key} {revision}");
                if at % 50 == 49 {
                    // Another writer may have compacted further already.
                    let _ = engine.compact(revision).await;
                }
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_to_kill_9() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().expect("a folder");
    let mut acknowledged = std::collections::BTreeMap::new();
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child_that_writes_until_killed", "--nocapture"])
            .env("TIPHYS_STORE_CHILD", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let mut acks = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut count = 0;
        while let Some(Ok(line)) = acks.next() {
            if let Some(ack) = line.split("ACK ").nth(1) {
                let (key, revision) = ack.split_once(' ').expect("key and revision");
                acknowledged.insert(key.to_owned(), revision.parse::<i64>().expect("a revision"));
                count += 1;
            }
            if count == 300 * round {
                child.kill().expect("killed");
            }
        }
        child.wait().expect("reaped");
        let engine = Embedded::open(Options::new(dir.path())).expect("opens after kill -9");
        let found = engine.range(RangeRequest::new(everything())).await.expect("reads").kvs;
        let found: std::collections::BTreeMap<_, _> = found.iter().map(|kv| (text(&kv.key), kv.mod_revision)).collect();
        assert!(count >= 300 * round, "the child wrote {count} only");
        for (key, revision) in &acknowledged {
            assert_eq!(found.get(key), Some(revision), "{key} of round {round} or before");
        }
    }
}
