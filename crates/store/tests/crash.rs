//! What a crash or a bad disk leaves behind, and what the store makes of it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::*;
use tiphys_store::*;

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    paths
}

/// Writes `count` keys one after the other; the log's size after each.
async fn fill(dir: &Path, count: usize) -> Vec<u64> {
    let engine = Embedded::open(Options::new(dir)).expect("opens");
    let mut sizes = Vec::new();
    for at in 0..count {
        engine.txn(always(vec![put(&format!("key-{at:03}"), "some value")])).await.expect("writes");
        sizes.push(engine.size());
    }
    sizes
}

fn copy(from: &Path, change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a folder");
    let segment = segments(from).remove(0);
    let mut bytes = fs::read(&segment).expect("a log");
    change(&mut bytes);
    fs::write(to.path().join(segment.file_name().expect("a name")), bytes).expect("a copy");
    to
}

/// A power cut in the middle of a write, at every byte of the last three records.
#[tokio::test]
async fn a_torn_end_costs_only_what_was_not_acknowledged() {
    let dir = tempfile::tempdir().expect("a folder");
    let sizes = fill(dir.path(), 8).await;
    for cut in sizes[4]..=sizes[7] {
        let torn = copy(dir.path(), |bytes| bytes.truncate(cut as usize));
        let acknowledged = sizes.iter().filter(|size| **size <= cut).count();
        let engine = Embedded::open(Options::new(torn.path())).expect("opens");
        assert_eq!(content(&*engine).await.len(), acknowledged, "cut at {cut}");
        assert_eq!(engine.revision(), 1 + acknowledged as i64);
        engine.txn(always(vec![put("after", "1")])).await.expect("writes go on");
        drop(engine);
        let engine = Embedded::open(Options::new(torn.path())).expect("opens again");
        assert_eq!(content(&*engine).await.len(), acknowledged + 1, "cut at {cut}, second start");
    }
}

/// Any changed byte is noticed: in the last record it passes for an unfinished write, before that it is refused with its place.
#[tokio::test]
async fn damage_in_the_middle_is_refused_with_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let sizes = fill(dir.path(), 8).await;
    for at in sizes[4]..sizes[7] {
        let damaged = copy(dir.path(), |bytes| bytes[at as usize] ^= 0x40);
        match Embedded::open(Options::new(damaged.path())) {
            Ok(engine) => {
                assert!(at >= sizes[6], "damage at {at} went unnoticed");
                assert_eq!(content(&*engine).await.len(), 7);
            }
            Err(StoreError::Corrupt(text)) => {
                let frame = sizes.iter().rfind(|size| **size <= at).expect("a frame");
                assert!(at < sizes[6], "damage at {at}: {text}");
                assert!(text.contains(&format!("at offset {frame}")) && text.contains("wal-0000000000000001.log"), "{text}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_missing_segment_is_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || Embedded::open(Options { segment_bytes: 200, ..Options::new(dir.path()) });
    let engine = open().expect("opens");
    for at in 0..30 {
        engine.txn(always(vec![put(&format!("key-{at:03}"), "some value")])).await.expect("writes");
    }
    drop(engine);
    let paths = segments(dir.path());
    assert!(paths.len() > 4, "{paths:?}");
    let hidden = dir.path().join("hidden");
    for (missing, what) in [(0, "the log's beginning is missing"), (2, "a segment is missing")] {
        fs::rename(&paths[missing], &hidden).expect("a rename");
        let error = open().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(what), "{error}");
        fs::rename(&hidden, &paths[missing]).expect("a rename");
    }
    // A segment that was created but never begun is as good as none.
    fs::write(dir.path().join("wal-00000000000000ff.log"), b"TphsW").expect("a file");
    assert_eq!(content(&*open().expect("opens")).await.len(), 30);
}

#[tokio::test]
async fn a_snapshot_replaces_the_log_and_leases_survive() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || Embedded::open(Options { segment_bytes: 2000, snapshot_after: 1, ..Options::new(dir.path()) }).expect("opens");
    let engine = open();
    let lease = engine.grant_lease(0, 3600).await.expect("grants");
    engine.txn(always(vec![Op::Put { key: "leased".into(), value: "v".into(), lease }])).await.expect("writes");
    for at in 0..200 {
        engine.txn(always(vec![put(&format!("key-{:03}", at % 50), &at.to_string())])).await.expect("writes");
    }
    engine.compact(engine.revision()).await.expect("compacts");
    let (before, revision) = (content(&*engine).await, engine.revision());
    drop(engine);
    assert_eq!(segments(dir.path()).len(), 1, "only the active segment is left");
    let engine = open();
    assert_eq!((content(&*engine).await, engine.revision(), engine.compacted_revision()), (before, revision, revision));
    assert_eq!(engine.keep_lease_alive(lease).await.expect("renews"), 3600);
    engine.revoke_lease(lease).await.expect("revokes");
    assert_eq!(engine.range(RangeRequest::new(KeyRange::key("leased"))).await.expect("reads").count, 0);
    drop(engine);
    let snapshot = fs::read_dir(dir.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let snapshot = snapshot.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "snap")).expect("a snapshot");
    let mut bytes = fs::read(&snapshot).expect("a snapshot");
    bytes[100] ^= 1;
    fs::write(&snapshot, bytes).expect("written");
    let error = Embedded::open(Options::new(dir.path())).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(".snap: damaged frame at offset 0"), "{error}");
}

#[tokio::test]
async fn a_folder_has_one_owner() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = Embedded::open(Options::new(dir.path())).expect("opens");
    let error = Embedded::open(Options::new(dir.path())).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(&format!("in use by the process with pid {}", std::process::id())), "{error}");
    drop(engine);
    assert!(Embedded::open(Options::new(dir.path())).is_ok());
}
