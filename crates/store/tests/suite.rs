//! What every engine must do, run on each of them.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::*;
use tiphys_store::*;

/// An engine with whatever must live as long as it.
struct Subject {
    engine: Arc<dyn Engine>,
    _dir: Option<tempfile::TempDir>,
}

fn embedded() -> Subject {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { watch_queue: 4, ..Options::new(dir.path()) };
    Subject { engine: Embedded::open(options).expect("opens"), _dir: Some(dir) }
}

fn memory() -> Subject {
    Subject { engine: Memory::with_watch_queue(4).expect("opens"), _dir: None }
}

macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod on_embedded {
            $(#[tokio::test] async fn $test() { super::$test(super::embedded().engine).await })*
        }
        mod on_memory {
            $(#[tokio::test] async fn $test() { super::$test(super::memory().engine).await })*
        }
    };
}

suite![
    revisions_count_writing_transactions,
    compares_decide,
    later_transactions_see_earlier_ones,
    ranges_limit_and_count,
    reading_the_past,
    transactions_are_all_or_nothing,
    compaction_has_etcds_errors,
    watch_replays_then_follows,
    watch_of_a_range_sees_only_that,
    watchers_share_one_batch,
    slow_watchers_resume,
    progress_on_request,
    leases_take_their_keys_along,
    leases_end_by_themselves,
];

type Tested = Arc<dyn Engine>;

async fn write(engine: &Tested, ops: Vec<Op>) -> TxnResponse {
    engine.txn(always(ops)).await.expect("writes")
}

async fn revisions_count_writing_transactions(engine: Tested) {
    assert_eq!(engine.revision(), 1);
    assert_eq!(write(&engine, vec![put("a", "1")]).await.revision, 2);
    assert_eq!(write(&engine, vec![delete("nothing")]).await.revision, 2);
    assert_eq!(write(&engine, vec![put("a", "2"), put("b", "1")]).await.revision, 3);
    assert_eq!(write(&engine, vec![delete("a")]).await.revision, 4);
    assert_eq!(content(&*engine).await, ["b=1@3"]);
    assert_eq!(engine.revision(), 4);
    let again = write(&engine, vec![put("a", "3")]).await;
    let OpResponse::Put(prev) = &again.responses[0] else { panic!("{again:?}") };
    assert_eq!(prev, &None, "a deleted key has no previous pair");
    let pair = engine.range(RangeRequest::new(KeyRange::key("a"))).await.expect("reads").kvs.remove(0);
    assert_eq!((pair.create_revision, pair.version), (5, 1));
}

async fn compares_decide(engine: Tested) {
    write(&engine, vec![put("k", "5")]).await;
    write(&engine, vec![put("k", "5")]).await;
    let key = || Bytes::from("k");
    let gone = || Bytes::from("gone");
    let cases = [
        (Compare::ModRevision(key(), Ordering::Equal, 3), true),
        (Compare::ModRevision(key(), Ordering::Greater, 3), false),
        (Compare::CreateRevision(key(), Ordering::Less, 3), true),
        (Compare::Version(key(), Ordering::NotEqual, 2), false),
        (Compare::Value(key(), Ordering::Equal, "5".into()), true),
        (Compare::Lease(key(), Ordering::Equal, 0), true),
        (Compare::ModRevision(gone(), Ordering::Equal, 0), true),
        (Compare::Value(gone(), Ordering::NotEqual, "5".into()), false),
    ];
    for (compare, expected) in cases {
        let read = || Op::Range(RangeRequest::new(KeyRange::key("k")));
        let txn = Txn { compare: vec![compare.clone()], success: vec![read()], failure: vec![] };
        let answer = engine.txn(txn).await.expect("reads");
        assert_eq!((answer.succeeded, answer.responses.len()), (expected, usize::from(expected)), "{compare:?}");
        let txn = Txn { compare: vec![compare.clone()], success: vec![put("seen", "yes")], failure: vec![put("seen", "no")] };
        assert_eq!(engine.txn(txn).await.expect("writes").succeeded, expected, "{compare:?} when writing");
    }
}

/// Sixteen writers create the same keys and raise the same counters at once: each create is won once, no raise is lost.
async fn later_transactions_see_earlier_ones(engine: Tested) {
    let raise = |engine: Tested| async move {
        let mut created = 0;
        for round in 0..20 {
            let key = Bytes::from(format!("create-{round}"));
            let compare = vec![Compare::ModRevision(key.clone(), Ordering::Equal, 0)];
            let success = vec![Op::Put { key, value: Bytes::new(), lease: 0 }];
            created += usize::from(engine.txn(Txn { compare, success, failure: vec![] }).await.expect("writes").succeeded);
            loop {
                let counter = engine.range(RangeRequest::new(KeyRange::key("counter"))).await.expect("reads").kvs.pop();
                let (value, revision) = counter.map_or((0, 0), |kv| (text(&kv.value).parse().unwrap_or(0), kv.mod_revision));
                let compare = vec![Compare::ModRevision("counter".into(), Ordering::Equal, revision)];
                let txn = Txn { compare, success: vec![put("counter", &format!("{}", value + 1))], failure: vec![] };
                if engine.txn(txn).await.expect("writes").succeeded {
                    break;
                }
            }
        }
        created
    };
    let writers: Vec<_> = (0..16).map(|_| tokio::spawn(raise(engine.clone()))).collect();
    let mut created = 0;
    for writer in writers {
        created += writer.await.expect("runs");
    }
    assert_eq!(created, 20);
    let counter = engine.range(RangeRequest::new(KeyRange::key("counter"))).await.expect("reads").kvs.remove(0);
    assert_eq!((text(&counter.value).as_str(), counter.version), ("320", 320));
}

async fn ranges_limit_and_count(engine: Tested) {
    // More keys than are read under one lock.
    for chunk in 0..30 {
        write(&engine, (0..100).map(|at| put(&format!("k/{:04}", chunk * 100 + at), "v")).collect()).await;
    }
    write(&engine, vec![put("l", "v")]).await;
    let range = || RangeRequest::new(KeyRange::prefix("k/"));
    let all = engine.range(range()).await.expect("reads");
    assert_eq!((all.kvs.len(), all.count, all.more, all.revision), (3000, 3000, false, 32));
    let some = engine.range(range().limit(7)).await.expect("reads");
    assert_eq!((some.kvs.len(), some.count, some.more), (7, 3000, true));
    let count = engine.range(RangeRequest { count_only: true, ..range() }).await.expect("reads");
    assert_eq!((count.kvs.len(), count.count, count.more), (0, 3000, false));
    let keys = engine.range(RangeRequest { keys_only: true, ..range().limit(1) }).await.expect("reads");
    assert_eq!(show(&keys.kvs), ["k/0000=@2"]);
    let rest = engine.range(RangeRequest::new(KeyRange { start: "k/2999".into(), end: vec![0].into() })).await.expect("reads");
    assert_eq!(show(&rest.kvs), ["k/2999=v@31", "l=v@32"]);
}

async fn reading_the_past(engine: Tested) {
    write(&engine, vec![put("a", "1")]).await;
    write(&engine, vec![put("a", "2"), put("b", "1")]).await;
    write(&engine, vec![Op::Delete(everything())]).await;
    let cases: [(Revision, &[&str]); 4] = [(0, &[]), (2, &["a=1@2"]), (3, &["a=2@3", "b=1@3"]), (4, &[])];
    for (revision, expected) in cases {
        let answer = engine.range(RangeRequest::new(everything()).at(revision)).await.expect("reads");
        assert_eq!((show(&answer.kvs), answer.revision), (expected.iter().map(|kv| kv.to_string()).collect(), 4), "at {revision}");
    }
    let future = engine.range(RangeRequest::new(everything()).at(5)).await;
    assert!(matches!(future, Err(StoreError::FutureRevision { current: 4 })), "{future:?}");
}

async fn transactions_are_all_or_nothing(engine: Tested) {
    let leased = Op::Put { key: "c".into(), value: "1".into(), lease: 99 };
    let refused = engine.txn(always(vec![put("a", "1"), leased])).await;
    assert!(matches!(refused, Err(StoreError::LeaseNotFound)), "{refused:?}");
    for ops in [vec![put("a", "1"), put("a", "2")], vec![put("a", "1"), Op::Delete(everything())]] {
        let refused = engine.txn(always(ops)).await;
        assert!(matches!(&refused, Err(StoreError::Invalid(why)) if why.contains("duplicate key")), "{refused:?}");
    }
    assert_eq!((content(&*engine).await.len(), engine.revision()), (0, 1));
    let mixed = write(&engine, vec![put("a", "1"), Op::Range(RangeRequest::new(everything())), delete("x")]).await;
    let OpResponse::Range(range) = &mixed.responses[1] else { panic!("{mixed:?}") };
    assert_eq!(show(&range.kvs), ["a=1@2"], "a range in a transaction sees the puts before it");
}

async fn compaction_has_etcds_errors(engine: Tested) {
    for value in ["1", "2", "3"] {
        write(&engine, vec![put("a", value)]).await;
    }
    engine.compact(3).await.expect("compacts");
    assert_eq!(engine.compacted_revision(), 3);
    assert!(matches!(engine.compact(3).await, Err(StoreError::Compacted { compacted: 3 })));
    assert!(matches!(engine.compact(9).await, Err(StoreError::FutureRevision { current: 4 })));
    let gone = engine.range(RangeRequest::new(everything()).at(2)).await;
    assert!(matches!(gone, Err(StoreError::Compacted { compacted: 3 })), "{gone:?}");
    assert_eq!(show(&engine.range(RangeRequest::new(everything()).at(3)).await.expect("reads").kvs), ["a=2@3"]);
    assert!(matches!(engine.watch(everything(), 3).await.map(|_| ()), Err(StoreError::Compacted { compacted: 3 })));
    let mut watch = engine.watch(everything(), 4).await.expect("watches");
    assert_eq!(events(&mut watch, 4).await, ["+a=3@4<2"], "the previous pair outlives compaction");
}

async fn watch_replays_then_follows(engine: Tested) {
    write(&engine, vec![put("a", "1")]).await;
    write(&engine, vec![put("a", "2"), put("b", "1")]).await;
    let mut past = engine.watch(everything(), 2).await.expect("watches");
    let mut now = engine.watch(everything(), 0).await.expect("watches");
    let mut future = engine.watch(everything(), 5).await.expect("watches");
    write(&engine, vec![delete("a")]).await;
    write(&engine, vec![put("a", "3")]).await;
    assert_eq!(events(&mut past, 5).await, ["+a=1@2", "+a=2@3<1", "+b=1@3", "-a@4<2", "+a=3@5"]);
    assert_eq!(events(&mut now, 5).await, ["-a@4<2", "+a=3@5"]);
    assert_eq!(events(&mut future, 5).await, ["+a=3@5"]);
}

async fn watch_of_a_range_sees_only_that(engine: Tested) {
    write(&engine, vec![put("p/1", "x"), put("q/1", "x")]).await;
    let mut replayed = engine.watch(KeyRange::prefix("p/"), 1).await.expect("watches");
    let mut live = engine.watch(KeyRange::key("q/2"), 0).await.expect("watches");
    write(&engine, vec![put("q/2", "x"), put("p/2", "x"), put("q/3", "x")]).await;
    assert_eq!(events(&mut replayed, 3).await, ["+p/1=x@2", "+p/2=x@3"]);
    assert_eq!(events(&mut live, 3).await, ["+q/2=x@3"]);
}

async fn watchers_share_one_batch(engine: Tested) {
    let mut first = engine.watch(KeyRange::prefix("a"), 0).await.expect("watches");
    let mut second = engine.watch(KeyRange::prefix("a"), 0).await.expect("watches");
    write(&engine, vec![put("a", "1"), put("b", "1")]).await;
    let (first, second) = (first.next().await.expect("a batch"), second.next().await.expect("a batch"));
    assert!(Arc::ptr_eq(&first.events, &second.events));
    assert_eq!(first.events.len(), 1);
}

async fn slow_watchers_resume(engine: Tested) {
    let mut slow = engine.watch(everything(), 0).await.expect("watches");
    for at in 0..10 {
        write(&engine, vec![put("k", &at.to_string())]).await;
    }
    let mut reached = 1;
    let error = loop {
        match slow.next().await {
            Ok(batch) => reached = batch.revision,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::SlowWatcher), "{error}");
    assert_eq!(reached, 5, "the queue holds four events here");
    let mut resumed = engine.watch(everything(), reached + 1).await.expect("watches");
    let seen = events(&mut resumed, 11).await;
    assert_eq!((seen.len(), seen[0].as_str()), (6, "+k=4@6<3"));
}

async fn progress_on_request(engine: Tested) {
    let range = KeyRange::prefix("quiet/");
    let mut watch = engine.watch(range.clone(), 0).await.expect("watches");
    write(&engine, vec![put("loud", "1")]).await;
    engine.request_progress(&range);
    engine.request_progress(&range);
    write(&engine, vec![put("quiet/1", "1")]).await;
    let note = watch.next().await.expect("a note");
    assert_eq!((note.events.len(), note.revision), (0, 2));
    let batch = watch.next().await.expect("a batch");
    assert_eq!((batch.events.len(), batch.revision), (1, 3), "the second request had nothing new to say");
}

fn leased(key: &str, lease: LeaseId) -> Op {
    Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: "v".into(), lease }
}

async fn leases_take_their_keys_along(engine: Tested) {
    let lease = engine.grant_lease(0, 3600).await.expect("grants");
    assert_ne!(lease, 0);
    assert_eq!(engine.grant_lease(7, 60).await.expect("grants"), 7);
    assert!(matches!(engine.grant_lease(7, 60).await, Err(StoreError::LeaseExists)));
    assert!(matches!(engine.grant_lease(0, 0).await, Err(StoreError::Invalid(_))));
    assert_eq!(engine.keep_lease_alive(7).await.expect("renews"), 60);
    write(&engine, vec![leased("a", lease), leased("b", lease), leased("c", lease), leased("d", 7)]).await;
    write(&engine, vec![put("b", "free")]).await;
    write(&engine, vec![leased("c", 7)]).await;
    let mut watch = engine.watch(everything(), 0).await.expect("watches");
    engine.revoke_lease(lease).await.expect("revokes");
    assert_eq!(content(&*engine).await, ["b=free@3", "c=v@4", "d=v@2"]);
    engine.revoke_lease(7).await.expect("revokes");
    assert_eq!(events(&mut watch, 6).await, ["-a@5<v", "-c@6<v", "-d@6<v"], "each lease ends in one revision");
    assert!(matches!(engine.revoke_lease(7).await, Err(StoreError::LeaseNotFound)));
    assert!(matches!(engine.keep_lease_alive(7).await, Err(StoreError::LeaseNotFound)));
}

async fn leases_end_by_themselves(engine: Tested) {
    let lease = engine.grant_lease(0, 1).await.expect("grants");
    let mut watch = engine.watch(everything(), 0).await.expect("watches");
    write(&engine, vec![leased("a", lease)]).await;
    assert_eq!(events(&mut watch, 3).await, ["+a=v@2", "-a@3<v"]);
    assert!(matches!(engine.keep_lease_alive(lease).await, Err(StoreError::LeaseNotFound)));
}
