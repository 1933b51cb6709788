//! Counters that `/metrics` shows.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) started_pods: AtomicU64,
    pub(crate) started_pod_errors: AtomicU64,
    pub(crate) started_containers: AtomicU64,
    pub(crate) started_container_errors: AtomicU64,
    pub(crate) probe_success: AtomicU64,
    pub(crate) probe_failure: AtomicU64,
    pub(crate) evictions: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
