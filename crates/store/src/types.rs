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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    pub start: Bytes,
    pub end: Bytes,
}

impl KeyRange {
    /// The one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        KeyRange { start: key.into(), end: Bytes::new() }
    }

    /// All keys that begin with `prefix`; an empty prefix means every key.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let mut end = start.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0),
        }
        KeyRange { start, end: end.into() }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end[..] {
            [] => key == &self.start[..],
            [0] => key >= &self.start[..],
            end => key >= &self.start[..] && key < end,
        }
    }
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

impl RangeRequest {
    /// Everything in `range`, newest state.
    pub fn new(range: KeyRange) -> Self {
        RangeRequest { range, limit: 0, revision: 0, keys_only: false, count_only: false }
    }

    pub fn limit(self, limit: usize) -> Self {
        RangeRequest { limit, ..self }
    }

    pub fn at(self, revision: Revision) -> Self {
        RangeRequest { revision, ..self }
    }
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
    /// The engine keeps key and value as they are, shared with the caller; slices of larger buffers keep those alive.
    Put {
        key: Bytes,
        value: Bytes,
        lease: LeaseId,
    },
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

#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Asks for a progress note (a batch without events) to every watcher of exactly this range: once it has arrived, all events up to
    /// its revision have. This is how a cache learns that it has seen everything a reader may expect; nothing is sent unasked.
    fn request_progress(&self, range: &KeyRange);
    /// Forgets history before `revision`; reading at `revision` itself stays possible, watching goes on from the one after it.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;
    /// A lease of `ttl` seconds; its keys are deleted when it ends. `id` 0 lets the engine choose.
    async fn grant_lease(&self, id: LeaseId, ttl: i64) -> Result<LeaseId, StoreError>;
    async fn keep_lease_alive(&self, id: LeaseId) -> Result<i64, StoreError>;
    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError>;
    /// Bytes on disk.
    fn size(&self) -> u64;
    /// Why no writes are taken any more, if that is so.
    fn refusal(&self) -> Option<String> {
        None
    }
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
    /// After a failed write or sync the engine takes no more writes: what the disk holds is unknown until the log is read again.
    #[error("store is read-only: {0}")]
    ReadOnly(String),
    #[error("{0}")]
    Invalid(String),
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
