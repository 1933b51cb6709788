//! The one writer: takes all queued commands, applies them ahead of what readers see, makes them durable with one sync, then shows and
//! answers. A lone command is never kept waiting for company; while a sync runs, the next batch gathers by itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::engine::Shared;
use crate::frame::{Entry, FrameBuilder};
use crate::index::{Index, Scan, Scanned};
use crate::types::*;
use crate::wal::Wal;

/// A batch is closed when this much is to be written, so that the first in it does not wait for a long write.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_COMMANDS: usize = 1024;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(crate) enum Command {
    Txn(Txn, Reply<TxnResponse>),
    Compact(Revision, Reply<()>),
    Grant {
        id: LeaseId,
        ttl: i64,
        reply: Reply<LeaseId>,
    },
    Revoke(LeaseId, Reply<()>),
    /// The lease's time is up; checked again, for it may have been renewed.
    Expire(LeaseId),
    Stop,
}

/// What a caller gets once the batch is durable.
enum Answer {
    Txn(Result<TxnResponse, StoreError>, Reply<TxnResponse>),
    Unit(Result<(), StoreError>, Reply<()>),
    Lease(Result<LeaseId, StoreError>, Reply<LeaseId>),
}

impl Answer {
    /// Nobody listening is fine: the caller went away.
    fn deliver(self, outcome: Result<(), StoreError>) {
        match self {
            Answer::Txn(result, reply) => drop(reply.send(outcome.and(result))),
            Answer::Unit(result, reply) => drop(reply.send(outcome.and(result))),
            Answer::Lease(result, reply) => drop(reply.send(outcome.and(result))),
        }
    }
}

/// Why the engine takes no more writes.
struct Failure {
    kind: std::io::ErrorKind,
    text: String,
}

impl Failure {
    fn first(&self) -> StoreError {
        StoreError::Io { context: self.text.clone(), source: self.kind.into() }
    }

    fn later(&self) -> StoreError {
        StoreError::ReadOnly(format!(
            "an earlier write failed ({}); nothing acknowledged is lost, restart once the cause is gone",
            self.text
        ))
    }
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) wal: Option<Wal>,
    pub(crate) maintenance: Sender<Revision>,
    /// The newest revision applied, visible or not.
    revision: Revision,
    frame: FrameBuilder,
    events: Vec<Event>,
    answers: Vec<Answer>,
    compact_to: Revision,
    failure: Option<Failure>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, commands: Receiver<Command>, wal: Option<Wal>, maintenance: Sender<Revision>) -> Self {
        let revision = shared.hub.revision();
        let compact_to = shared.compacted();
        let frame = FrameBuilder::new();
        Writer { shared, commands, wal, maintenance, revision, frame, events: Vec::new(), answers: Vec::new(), compact_to, failure: None }
    }

    pub(crate) fn run(mut self) {
        while let Ok(first) = self.commands.recv() {
            let go_on = self.gather(first);
            self.commit();
            if !go_on {
                break;
            }
        }
        self.shared.hub.close();
    }

    /// Applies the first command and all that are queued behind it; false when it is time to stop.
    fn gather(&mut self, first: Command) -> bool {
        let shared = self.shared.clone();
        let mut index = shared.index.write();
        let mut next = Some(first);
        while let Some(command) = next {
            if matches!(command, Command::Stop) {
                return false;
            }
            self.apply(&mut index, command);
            if self.frame.len() >= BATCH_BYTES || self.answers.len() >= BATCH_COMMANDS {
                break;
            }
            next = self.commands.try_recv().ok();
        }
        true
    }

    fn apply(&mut self, index: &mut Index, command: Command) {
        let refused = self.failure.as_ref().map(Failure::later);
        let answer = match command {
            Command::Txn(txn, reply) => Answer::Txn(refused.map_or_else(|| self.txn(index, &txn), Err), reply),
            Command::Compact(revision, reply) => Answer::Unit(refused.map_or_else(|| self.compact(revision), Err), reply),
            Command::Grant { id, ttl, reply } => Answer::Lease(refused.map_or_else(|| self.grant(id, ttl), Err), reply),
            Command::Revoke(id, reply) => Answer::Unit(refused.map_or_else(|| self.revoke(index, id), Err), reply),
            Command::Expire(id) => {
                if refused.is_none() && self.shared.leases.expired(id) {
                    // A lease that is gone already has nothing left to expire.
                    let _ = self.revoke(index, id);
                }
                return;
            }
            Command::Stop => return,
        };
        self.answers.push(answer);
    }

    /// Makes the batch durable and visible and answers everyone.
    fn commit(&mut self) {
        if self.failure.is_none()
            && let Err(error) = self.write()
        {
            tracing::error!(%error, "the store could not write and is read-only from now on");
            let kind = if let StoreError::Io { source, .. } = &error { source.kind() } else { std::io::ErrorKind::Other };
            let failure = Failure { kind, text: error.to_string() };
            self.frame.clear();
            self.events.clear();
            self.answers.drain(..).for_each(|answer| answer.deliver(Err(failure.first())));
            // The first refusal is the one that is told.
            let _ = self.shared.refusal.set(failure.later().to_string());
            self.failure = Some(failure);
            return;
        }
        if self.failure.is_none() {
            self.show();
        }
        self.answers.drain(..).for_each(|answer| answer.deliver(Ok(())));
    }

    fn write(&mut self) -> Result<(), StoreError> {
        if self.frame.is_empty() {
            return Ok(());
        }
        if let Some(wal) = &mut self.wal {
            wal.append(&mut self.frame, self.shared.hub.revision())?;
        }
        self.frame.clear();
        Ok(())
    }

    fn show(&mut self) {
        if self.revision > self.shared.hub.revision() {
            self.shared.hub.publish(std::mem::take(&mut self.events), self.revision);
        }
        if self.compact_to > self.shared.compacted() {
            self.shared.set_compacted(self.compact_to);
            // Without the maintenance thread (it ends with the engine) only memory stays used.
            let _ = self.maintenance.send(self.compact_to);
        }
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        if revision <= self.compact_to {
            return Err(StoreError::Compacted { compacted: self.compact_to });
        }
        if revision > self.revision {
            return Err(StoreError::FutureRevision { current: self.revision });
        }
        self.frame.add(&Entry::Compact(revision));
        self.compact_to = revision;
        Ok(())
    }

    fn grant(&mut self, id: LeaseId, ttl: i64) -> Result<LeaseId, StoreError> {
        let id = self.shared.leases.admit(id, ttl)?;
        self.shared.leases.insert(id, ttl);
        self.frame.add(&Entry::Grant { id, ttl });
        Ok(id)
    }

    fn revoke(&mut self, index: &mut Index, id: LeaseId) -> Result<(), StoreError> {
        let keys = self.shared.leases.remove(id).ok_or(StoreError::LeaseNotFound)?;
        let mut change = Changes::begin(self);
        keys.iter().for_each(|key| drop(change.delete(index, key)));
        self.frame.add(&Entry::Revoke { id });
        Ok(())
    }

    fn txn(&mut self, index: &mut Index, txn: &Txn) -> Result<TxnResponse, StoreError> {
        let succeeded = txn.compare.iter().all(|compare| holds(index, compare, self.revision));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        self.check(ops)?;
        let mut changes = Changes::begin(self);
        let responses = ops.iter().map(|op| changes.op(index, op)).collect();
        Ok(TxnResponse { succeeded, responses, revision: self.revision })
    }

    /// Everything that can be wrong is found before anything is changed.
    fn check(&self, ops: &[Op]) -> Result<(), StoreError> {
        for op in ops {
            match op {
                Op::Put { lease, .. } if *lease != 0 && !self.shared.leases.exists(*lease) => return Err(StoreError::LeaseNotFound),
                Op::Put { key, .. } if key.is_empty() => return Err(StoreError::Invalid("etcdserver: key is not provided".into())),
                Op::Range(request) => check_revision(request.revision, self.compact_to, self.revision)?,
                _ => {}
            }
        }
        if touches_a_key_twice(ops) {
            return Err(StoreError::Invalid("etcdserver: duplicate key given in txn request".into()));
        }
        Ok(())
    }
}

pub(crate) fn check_revision(wanted: Revision, compacted: Revision, current: Revision) -> Result<(), StoreError> {
    if wanted > current {
        return Err(StoreError::FutureRevision { current });
    }
    if wanted != 0 && wanted < compacted {
        return Err(StoreError::Compacted { compacted });
    }
    Ok(())
}

/// etcd's rule (v3rpc/key.go, `checkIntervals`): one transaction puts a key once, and does not delete what it puts.
fn touches_a_key_twice(ops: &[Op]) -> bool {
    if ops.len() < 2 {
        return false;
    }
    let mut put = HashSet::new();
    let twice = ops.iter().any(|op| matches!(op, Op::Put { key, .. } if !put.insert(key)));
    twice || ops.iter().any(|op| matches!(op, Op::Delete(range) if put.iter().any(|key| range.contains(key))))
}

/// The changes of one transaction; it takes its revision with the first of them.
struct Changes<'a> {
    writer: &'a mut Writer,
    begun: bool,
}

impl<'a> Changes<'a> {
    fn begin(writer: &'a mut Writer) -> Self {
        Changes { writer, begun: false }
    }

    fn revision(&mut self) -> Revision {
        if !self.begun {
            self.begun = true;
            self.writer.revision += 1;
            self.writer.frame.add(&Entry::Revision(self.writer.revision));
        }
        self.writer.revision
    }

    fn op(&mut self, index: &mut Index, op: &Op) -> OpResponse {
        match op {
            Op::Put { key, value, lease } => OpResponse::Put(self.put(index, key, value, *lease)),
            Op::Delete(range) => {
                let keys = index.live_keys(range);
                OpResponse::Delete(keys.iter().filter_map(|key| self.delete(index, key)).collect())
            }
            Op::Range(request) => OpResponse::Range(range_at(index, request, self.writer.revision)),
        }
    }

    fn put(&mut self, index: &mut Index, key: &Bytes, value: &Bytes, lease: LeaseId) -> Option<KeyValue> {
        let revision = self.revision();
        self.writer.frame.add(&Entry::Put { key, value, lease });
        let change = index.put(revision, key.clone(), value.clone(), lease);
        let held = change.prev.as_ref().map_or(0, |prev| prev.lease);
        self.writer.shared.leases.attach(&change.kv.key, held, lease);
        self.writer.events.push(Event { kind: EventKind::Put, kv: change.kv, prev: change.prev.clone() });
        change.prev
    }

    fn delete(&mut self, index: &mut Index, key: &Bytes) -> Option<KeyValue> {
        index.at(key, Revision::MAX)?;
        let revision = self.revision();
        let prev = index.delete(revision, key)?;
        self.writer.frame.add(&Entry::Delete { key });
        self.writer.shared.leases.attach(key, prev.lease, 0);
        let kv = KeyValue { key: prev.key.clone(), value: Bytes::new(), create_revision: 0, mod_revision: revision, version: 0, lease: 0 };
        self.writer.events.push(Event { kind: EventKind::Delete, kv, prev: Some(prev.clone()) });
        Some(prev)
    }
}

/// Reads a range in one go; `now` is what revision 0 means.
fn range_at(index: &Index, request: &RangeRequest, now: Revision) -> RangeResponse {
    let mut found = Scanned::default();
    index.scan(&request.range, None, scan_of(request, now, usize::MAX), &mut found);
    answer(request, found, now)
}

pub(crate) fn scan_of(request: &RangeRequest, now: Revision, budget: usize) -> Scan {
    let limit = match request {
        RangeRequest { count_only: true, .. } => 0,
        RangeRequest { limit: 0, .. } => usize::MAX,
        RangeRequest { limit, .. } => *limit,
    };
    let revision = if request.revision == 0 { now } else { request.revision };
    Scan { revision, limit, keys_only: request.keys_only, budget }
}

pub(crate) fn answer(request: &RangeRequest, found: Scanned, now: Revision) -> RangeResponse {
    let more = !request.count_only && found.count > found.kvs.len() as u64;
    RangeResponse { kvs: found.kvs, more, count: found.count, revision: now }
}

/// A missing key compares as all zeros, except that its value equals and differs from nothing (etcd, txn.go, `applyCompare`).
pub(crate) fn holds(index: &Index, compare: &Compare, revision: Revision) -> bool {
    let number = |key: &Bytes, read: fn(&crate::index::Version) -> i64| index.at(key, revision).map_or(0, read);
    let (found, order, wanted) = match compare {
        Compare::ModRevision(key, order, wanted) => (number(key, |version| version.mod_revision), order, *wanted),
        Compare::CreateRevision(key, order, wanted) => (number(key, |version| version.create_revision), order, *wanted),
        Compare::Version(key, order, wanted) => (number(key, |version| version.version), order, *wanted),
        Compare::Lease(key, order, wanted) => (number(key, |version| version.lease), order, *wanted),
        Compare::Value(key, order, wanted) => {
            return index.at(key, revision).is_some_and(|version| ordered(version.value.cmp(wanted), *order));
        }
    };
    ordered(found.cmp(&wanted), *order)
}

fn ordered(found: std::cmp::Ordering, wanted: Ordering) -> bool {
    match wanted {
        Ordering::Equal => found.is_eq(),
        Ordering::NotEqual => found.is_ne(),
        Ordering::Greater => found.is_gt(),
        Ordering::Less => found.is_lt(),
    }
}
