//! Leases: keys that go when nobody renews them.
//!
//! Deadlines are not written down: after a restart every lease has its whole time again, as in etcd without checkpoints. They are kept
//! on the monotonic clock, so that setting the machine's clock ends no lease.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::types::{LeaseId, StoreError};

/// etcd's longest (lessor.go, `maxLeaseTTL`), in seconds.
const LONGEST_TTL: i64 = 9_000_000_000;

#[derive(Debug)]
struct Lease {
    ttl: i64,
    deadline: Instant,
    /// The writer has been told; said once.
    expiring: bool,
    keys: HashSet<Bytes>,
}

impl Lease {
    fn new(ttl: i64) -> Self {
        Lease { ttl, deadline: deadline(ttl), expiring: false, keys: HashSet::new() }
    }
}

/// Far deadlines are clamped to a year: nothing sleeps longer than the process lives, and instants overflow.
fn deadline(ttl: i64) -> Instant {
    Instant::now() + Duration::from_secs(ttl.clamp(0, 365 * 24 * 3600) as u64)
}

#[derive(Debug, Default)]
pub(crate) struct Leases {
    table: Mutex<HashMap<LeaseId, Lease>>,
    /// The next deadline may have moved nearer.
    pub(crate) changed: Notify,
}

impl Leases {
    /// The id that a grant would get.
    pub(crate) fn admit(&self, id: LeaseId, ttl: i64) -> Result<LeaseId, StoreError> {
        if ttl > LONGEST_TTL {
            return Err(StoreError::Invalid("etcdserver: too large lease TTL".into()));
        }
        if ttl <= 0 {
            return Err(StoreError::Invalid(format!("lease TTL must be positive, not {ttl}")));
        }
        let table = self.table.lock();
        if id != 0 {
            return if table.contains_key(&id) { Err(StoreError::LeaseExists) } else { Ok(id) };
        }
        loop {
            let id = (RandomState::new().build_hasher().finish() >> 1) as i64;
            if id != 0 && !table.contains_key(&id) {
                return Ok(id);
            }
        }
    }

    pub(crate) fn insert(&self, id: LeaseId, ttl: i64) {
        self.table.lock().entry(id).or_insert_with(|| Lease::new(ttl));
        self.changed.notify_one();
    }

    pub(crate) fn exists(&self, id: LeaseId) -> bool {
        self.table.lock().contains_key(&id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.lock().is_empty()
    }

    pub(crate) fn keep_alive(&self, id: LeaseId) -> Result<i64, StoreError> {
        let mut table = self.table.lock();
        let lease = table.get_mut(&id).ok_or(StoreError::LeaseNotFound)?;
        lease.deadline = deadline(lease.ttl);
        if std::mem::take(&mut lease.expiring) {
            self.changed.notify_one();
        }
        Ok(lease.ttl)
    }

    /// Moves a key from one lease to another; 0 is no lease.
    pub(crate) fn attach(&self, key: &Bytes, from: LeaseId, to: LeaseId) {
        if from == to && from == 0 {
            return;
        }
        let mut table = self.table.lock();
        if from != to
            && let Some(lease) = table.get_mut(&from)
        {
            lease.keys.remove(key);
        }
        if let Some(lease) = table.get_mut(&to) {
            lease.keys.insert(key.clone());
        }
    }

    /// Takes the lease out; its keys in order.
    pub(crate) fn remove(&self, id: LeaseId) -> Option<Vec<Bytes>> {
        let lease = self.table.lock().remove(&id)?;
        let mut keys: Vec<Bytes> = lease.keys.into_iter().collect();
        keys.sort();
        Some(keys)
    }

    pub(crate) fn expired(&self, id: LeaseId) -> bool {
        self.table.lock().get(&id).is_some_and(|lease| lease.deadline <= Instant::now())
    }

    /// The leases whose time is up and that were not answered here before.
    pub(crate) fn take_expired(&self) -> Vec<LeaseId> {
        let now = Instant::now();
        let mut table = self.table.lock();
        let due = table.iter_mut().filter(|(_, lease)| !lease.expiring && lease.deadline <= now);
        due.map(|(id, lease)| {
            lease.expiring = true;
            *id
        })
        .collect()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.table.lock().values().filter(|lease| !lease.expiring).map(|lease| lease.deadline).min()
    }

    pub(crate) fn granted(&self) -> Vec<(LeaseId, i64)> {
        self.table.lock().iter().map(|(id, lease)| (*id, lease.ttl)).collect()
    }
}
