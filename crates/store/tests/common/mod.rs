//! What the store's tests share.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use bytes::Bytes;
use tiphys_store::*;

pub(crate) fn put(key: &str, value: &str) -> Op {
    Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::copy_from_slice(value.as_bytes()), lease: 0 }
}

pub(crate) fn delete(key: &str) -> Op {
    Op::Delete(KeyRange::key(Bytes::copy_from_slice(key.as_bytes())))
}

pub(crate) fn always(ops: Vec<Op>) -> Txn {
    Txn { success: ops, ..Txn::default() }
}

pub(crate) fn everything() -> KeyRange {
    KeyRange::prefix("")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `key=value@mod` of each pair.
pub(crate) fn show(kvs: &[KeyValue]) -> Vec<String> {
    kvs.iter().map(|kv| format!("{}={}@{}", text(&kv.key), text(&kv.value), kv.mod_revision)).collect()
}

/// `+key=value@mod` or `-key@mod`, then `<previous value` if there was one.
pub(crate) fn show_event(event: &Event) -> String {
    let prev = event.prev.as_ref().map_or(String::new(), |prev| format!("<{}", text(&prev.value)));
    match event.kind {
        EventKind::Put => format!("+{}={}@{}{prev}", text(&event.kv.key), text(&event.kv.value), event.kv.mod_revision),
        EventKind::Delete => format!("-{}@{}{prev}", text(&event.kv.key), event.kv.mod_revision),
    }
}

pub(crate) async fn content(engine: &dyn Engine) -> Vec<String> {
    show(&engine.range(RangeRequest::new(everything())).await.expect("a plain range").kvs)
}

/// Reads events until one of revision `until` has come.
pub(crate) async fn events(watch: &mut Box<dyn Watch>, until: Revision) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let batch = watch.next().await.expect("the watch goes on");
        seen.extend(batch.events.iter().map(show_event));
        if batch.revision >= until {
            return seen;
        }
    }
}
