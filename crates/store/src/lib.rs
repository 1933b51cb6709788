//! The disk: keys, revisions, watch history. It has never heard of Pods.
//!
//! The model is etcd's (etcd v3 API, `mvccpb`): one revision counter for the whole store, raised by one for each
//! transaction that writes; each key has the revision that created it, the one that changed it last and a version
//! count; history is kept until compacted.
//!
//! How a write travels: a caller queues its transaction (`engine`), the one writer thread (`writer`) takes all that are queued,
//! applies them to the index (`index`) at revisions that nobody can read yet, appends them as one frame to the log (`wal`),
//! syncs once, and only then raises the visible revision, hands the events to the watchers (`hub`) and answers. Readers look at
//! the index at the visible revision and so never wait for the disk.
//!
//! Deliberately absent: replication, users and roles, nested transactions, automatic compaction (the caller says when).

mod engine;
mod frame;
mod hub;
mod index;
mod lease;
mod maintenance;
mod snapshot;
mod types;
mod wal;
mod writer;

pub use engine::{Embedded, Memory, Options};
pub use types::*;
