//! The disk: keys, revisions, watch history. It has never heard of Pods.
//!
//! The model is etcd's (etcd v3 API, `mvccpb`): one revision counter for the whole store, raised by one for each
//! transaction that writes; each key has the revision that created it, the one that changed it last and a version
//! count; history is kept until compacted.

mod types;

pub use types::*;
