use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use jiff::Timestamp;
use tiphys_base::Clock;
use tiphys_base::tasks::Tasks;

use crate::ClientError;
use crate::executor::Executor;
use crate::plan::Plan;
use crate::queue::{QueueKey, WorkQueue};

/// Brings one key nearer to what it should be.
#[async_trait]
pub trait Reconcile: Send + Sync + 'static {
    type Key: QueueKey;

    /// Some: look again after this long, even if nothing changes.
    async fn reconcile(&self, key: &Self::Key) -> Result<Option<Duration>, ReconcileError>;
}

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Other(String),
}

/// A controller in the house's shape: it observes its caches and decides; it does not act.
pub trait Planner: Send + Sync + 'static {
    type Key: QueueKey;

    /// Reads informers and returns what is to be done: no IO, and no clock but `now`.
    fn plan(&self, key: &Self::Key, now: Timestamp) -> Plan;
}

/// Runs a [`Planner`]: waits until the caches show the last plan's writes, plans, executes.
pub struct Planned<P: Planner> {
    pub planner: P,
    pub executor: Executor<P::Key>,
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl<P: Planner> Reconcile for Planned<P> {
    type Key = P::Key;

    async fn reconcile(&self, key: &Self::Key) -> Result<Option<Duration>, ReconcileError> {
        self.executor.settle(key).await;
        let plan = self.planner.plan(key, self.clock.now());
        Ok(self.executor.execute(key, plan).await?)
    }
}

/// Starts `workers` tasks that take keys from `queue`. Two never work on the same key; a panic in one reconcile is logged and retried like an
/// error; a conflict only means that something was written meanwhile.
pub fn run_controller<R: Reconcile>(name: &'static str, workers: usize, queue: &WorkQueue<R::Key>, reconciler: Arc<R>, tasks: &Tasks) {
    for _ in 0..workers {
        tasks.spawn(name, work(name, queue.clone(), Arc::clone(&reconciler)));
    }
    let (queue, token) = (queue.clone(), tasks.token());
    tasks.spawn_draining(name, async move {
        token.cancelled().await;
        queue.close();
    });
}

async fn work<R: Reconcile>(name: &'static str, queue: WorkQueue<R::Key>, reconciler: Arc<R>) {
    while let Some(key) = queue.get().await {
        let outcome = AssertUnwindSafe(reconciler.reconcile(&key)).catch_unwind().await;
        match outcome {
            Ok(Ok(again)) => {
                queue.forget(&key);
                if let Some(delay) = again {
                    queue.add_after(key.clone(), delay);
                }
            }
            Ok(Err(error)) => {
                note(name, &key, &error);
                queue.add_rate_limited(key.clone());
            }
            Err(_) => {
                tracing::error!(controller = name, ?key, "reconcile panicked");
                queue.add_rate_limited(key.clone());
            }
        }
        queue.done(&key);
    }
}

fn note<K: QueueKey>(name: &'static str, key: &K, error: &ReconcileError) {
    match error {
        ReconcileError::Client(e) if e.is_conflict() || e.is_not_found() || e.is_namespace_terminating() => {
            tracing::debug!(controller = name, ?key, %error, "will try again");
        }
        _ => tracing::warn!(controller = name, ?key, %error, "reconcile failed"),
    }
}
