//! Supervised tasks: a component spawns through a [`Tasks`], is told to stop by its token, and is waited for.
//! A panic in one task is logged and counted; it never takes the process.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    panics: Arc<AtomicU64>,
}

impl Tasks {
    pub fn new() -> Self {
        Tasks::default()
    }

    /// Tasks that also stop when the parent's do; waited for on their own.
    pub fn child(&self) -> Tasks {
        Tasks { tracker: TaskTracker::new(), stop: self.stop.child_token(), panics: self.panics.clone() }
    }

    /// Resolves when [`Tasks::stop`] is called.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// How many tasks have panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Runs `future` until it ends or the tasks are told to stop (it is then dropped at its next wait).
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.spawn_draining(name, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = future => {}
            }
        });
    }

    /// Runs `future` to its end; it watches the token itself.
    pub fn spawn_draining<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let panics = self.panics.clone();
        let task = tokio::spawn(future);
        self.tracker.spawn(async move {
            if let Err(error) = task.await
                && error.is_panic()
            {
                panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(task = name, %error, "task panicked");
            }
        });
    }

    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Tells all tasks to stop and waits for them, at most `limit`; false if some were still running.
    pub async fn shut_down(&self, limit: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_counted_and_others_go_on() {
        let tasks = Tasks::new();
        tasks.spawn("bad", async { panic!("on purpose") });
        let (tx, rx) = tokio::sync::oneshot::channel();
        tasks.spawn("good", async move {
            let _ = tx.send(7);
        });
        assert_eq!(rx.await.ok(), Some(7));
        assert!(tasks.shut_down(Duration::from_secs(5)).await);
        assert_eq!(tasks.panics(), 1);
    }

    #[tokio::test]
    async fn stopping_ends_a_task_that_would_wait_forever() {
        let tasks = Tasks::new();
        tasks.spawn("waits", std::future::pending());
        assert!(tasks.shut_down(Duration::from_secs(5)).await);
    }
}
