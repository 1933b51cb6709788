use async_trait::async_trait;
use bytes::Bytes;

/// A position in the store's history. 0 means "nothing written yet"; the first write gets 2, as in etcd, whose empty store stands at 1.
pub type Revision = i64;

/// Identifies a lease; 0 means none.
pub type LeaseId = i64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub version: i64,
    pub lease: LeaseId,
}

/// The keys from `start` up to, not including, `end`. An empty `end` means the single key `start`; `end == [0]` means everything from `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    pub start: Bytes,
    pub end: Bytes,
}

#[derive(Debug, Clone)]
pub struct RangeRequest {
    pub range: KeyRange,
    /// 0: no limit.
    pub limit: usize,
    /// 0: the newest.
    pub revision: Revision,
    pub keys_only: bool,
    pub count_only: bool,
}

#[derive(Debug, Clone)]
pub struct RangeResponse {
    pub kvs: Vec<KeyValue>,
    pub more: bool,
    /// How many keys the range holds, whatever the limit.
    pub count: u64,
    /// The store's revision when this was read (not the one asked for).
    pub revision: Revision,
}

#[derive(Debug, Clone)]
pub enum Compare {
    /// 0: the key must not exist.
    ModRevision(Bytes, Ordering, Revision),
    CreateRevision(Bytes, Ordering, Revision),
    Version(Bytes, Ordering, i64),
    Value(Bytes, Ordering, Bytes),
    Lease(Bytes, Ordering, LeaseId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    Equal,
    NotEqual,
    Greater,
    Less,
}

#[derive(Debug, Clone)]
pub enum Op {
    Put { key: Bytes, value: Bytes, lease: LeaseId },
    Delete(KeyRange),
    Range(RangeRequest),
}

#[derive(Debug, Clone)]
pub enum OpResponse {
    /// The pair that was there before.
    Put(Option<KeyValue>),
    /// The pairs that were deleted.
    Delete(Vec<KeyValue>),
    Range(RangeResponse),
}

#[derive(Debug, Clone, Default)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

#[derive(Debug, Clone)]
pub struct TxnResponse {
    pub succeeded: bool,
    pub responses: Vec<OpResponse>,
    pub revision: Revision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

#[derive(Debug, Clone)]
pub struct Event {
    pub kind: EventKind,
    /// Of a delete: the key and the deletion's revision as `mod_revision`, with an empty value.
    pub kv: KeyValue,
    /// The pair before this event; always present for deletes and changes.
    pub prev: Option<KeyValue>,
}

/// All events of one or more whole revisions, in order; never part of a revision. Without events it is a progress note.
#[derive(Debug, Clone)]
pub struct WatchBatch {
    pub events: std::sync::Arc<[Event]>,
    /// Every event of this range up to this revision has been delivered.
    pub revision: Revision,
}

#[async_trait]
pub trait Watch: Send {
    /// The next batch; waits. After an error the watch is over.
    async fn next(&mut self) -> Result<WatchBatch, StoreError>;
}

/// An engine is durable: an acknowledged write is on disk.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// The newest revision that readers can see.
    fn revision(&self) -> Revision;
    fn compacted_revision(&self) -> Revision;
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError>;
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError>;
    /// Events of `range` from revision `from` on (0: from now).
    async fn watch(&self, range: KeyRange, from: Revision) -> Result<Box<dyn Watch>, StoreError>;
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;
    /// A lease of `ttl` seconds; its keys are deleted when it ends. `id` 0 lets the engine choose.
    async fn grant_lease(&self, id: LeaseId, ttl: i64) -> Result<LeaseId, StoreError>;
    async fn keep_lease_alive(&self, id: LeaseId) -> Result<i64, StoreError>;
    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError>;
    /// Bytes on disk.
    fn size(&self) -> u64;
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("mvcc: required revision has been compacted")]
    Compacted { compacted: Revision },
    #[error("mvcc: required revision is a future revision")]
    FutureRevision { current: Revision },
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("the watcher fell too far behind and was ended")]
    SlowWatcher,
    #[error("store is closed")]
    Closed,
    #[error("{context}")]
    Io {
        context: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Corrupt(String),
}
