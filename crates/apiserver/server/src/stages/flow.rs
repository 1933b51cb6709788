//! Stage 5: how many requests are under way at once. Reads and writes have separate limits; watches and streams count for none.
//! A request over the limit waits a while before it is turned away.
//!
//! Absent: priority levels and fair queues (API Priority and Fairness); its objects are served, and do not yet steer this.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::authorize::MASTERS;
use crate::chain::{Call, Door};
use crate::errors::DoorError;

pub(crate) const NAME: &str = "flow control";

/// How long a request waits for its turn: a quarter of upstream's request timeout, as its queues do.
const PATIENCE: Duration = Duration::from_secs(15);

pub struct Limits {
    reads: std::sync::Arc<Semaphore>,
    writes: std::sync::Arc<Semaphore>,
}

impl Limits {
    pub fn new(reads: usize, writes: usize) -> Self {
        let limit = |n: usize| std::sync::Arc::new(Semaphore::new(if n == 0 { Semaphore::MAX_PERMITS } else { n }));
        Limits { reads: limit(reads), writes: limit(writes) }
    }
}

pub(crate) fn run(door: &Door, call: &Call) -> impl Future<Output = Result<Option<OwnedSemaphorePermit>, DoorError>> + Send + use<> {
    let unlimited = call.info.is_long_running() || call.user.in_group(MASTERS) || !call.info.is_resource;
    let reads = matches!(call.info.verb.as_str(), "get" | "list");
    let limit = if reads { &door.limits.reads } else { &door.limits.writes };
    let limit = (!unlimited).then(|| limit.clone());
    async move {
        let Some(limit) = limit else { return Ok(None) };
        match tokio::time::timeout(PATIENCE, limit.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => Err(DoorError::TooMany),
        }
    }
}
