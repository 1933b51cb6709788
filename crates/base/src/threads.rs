//! Work that keeps a processor busy, away from a runtime's threads and behind everybody else's.
//!
//! A task that computes for milliseconds makes every other task of its thread wait. On a thread of its own the kernel shares the processors out, and a
//! lower priority (sched(7): Linux keeps nice values per thread) lets whoever wakes go first. Such work takes turns, as many as there are processors:
//! more at once would only be shares against everybody else, and would use up the runtime's threads.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Poll, ready};

use rustix::process::{getpid, getpriority_process, setpriority_process};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// A tenth of the share of those who are not so lowered.
const STEPS_DOWN: i32 = 10;

/// Whether a thread of ours that went down may come up again: root's may, and whose resource limits say so.
static MAY_RISE: LazyLock<bool> = LazyLock::new(|| {
    let tried = std::thread::spawn(|| {
        let here = getpriority_process(None)?;
        setpriority_process(None, here + 1)?;
        setpriority_process(None, here)
    });
    matches!(tried.join(), Ok(Ok(())))
});

static TURNS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new(processors.max(2)))
});

thread_local! {
    /// Of the heavy work that this thread is at.
    static TURN: RefCell<Option<OwnedSemaphorePermit>> = const { RefCell::new(None) };
}

/// Does heavy work at a low priority, while the runtime's other tasks go on elsewhere; it has a thread and a turn only while it computes, not while it
/// waits for something. A runtime of one thread does it like any other.
pub async fn heavy<F: Future>(work: F) -> F::Output {
    if with_others().is_none() {
        return work.await;
    }
    let mut work = pin!(work);
    let mut turns = PollSemaphore::new(TURNS.clone());
    poll_fn(|context| {
        let turn = ready!(turns.poll_acquire(context));
        // Lowered within: the thread that takes over must not be.
        Poll::Ready(ready!(tokio::task::block_in_place(|| lowered(|| in_turn(turn, || work.as_mut().poll(context))))))
    })
    .await
}

/// Waits for something on this thread, while the runtime's other tasks go on elsewhere, and heavy work that stands behind this thread's.
///
/// # Errors
/// The work, not begun, where there is no runtime with another thread.
pub fn wait<F: Future>(work: F) -> Result<F::Output, F> {
    match with_others() {
        Some(runtime) => {
            TURN.take();
            Ok(tokio::task::block_in_place(|| runtime.block_on(work)))
        }
        None => Err(work),
    }
}

fn in_turn<T>(turn: Option<OwnedSemaphorePermit>, work: impl FnOnce() -> T) -> T {
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            TURN.take();
        }
    }
    TURN.set(turn);
    let _done = Done;
    work()
}

fn with_others() -> Option<Handle> {
    Handle::try_current().ok().filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

fn lowered<T>(work: impl FnOnce() -> T) -> T {
    struct Rise(i32);
    impl Drop for Rise {
        fn drop(&mut self) {
            // It could before.
            let _ = setpriority_process(None, self.0);
        }
    }
    let here = getpriority_process(None).ok().filter(|_| *MAY_RISE);
    let _rise = here.filter(|here| setpriority_process(None, here + STEPS_DOWN).is_ok()).map(Rise);
    work()
}

/// For a runtime's new threads, which start with the priority of the thread that made them: theirs is the process'.
pub fn started() {
    if let Ok(process) = getpriority_process(Some(getpid())) {
        let _ = setpriority_process(None, process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority() -> i32 {
        getpriority_process(None).expect("a priority")
    }

    #[test]
    fn heavy_work_steps_back_and_its_thread_comes_back() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).on_thread_start(started).build().expect("a runtime");
        let before = priority();
        let expected = if *MAY_RISE { (before + STEPS_DOWN).min(19) } else { before };
        let task = async {
            let seen = heavy(async { (priority(), tokio::task::spawn_blocking(priority).await.expect("ran")) }).await;
            (seen, priority())
        };
        let ((within, beside), after) = runtime.block_on(runtime.spawn(task)).expect("ran");
        assert_eq!((within, beside, after), (expected, before, before));
    }

    /// Two threads beside the runtime's one, and a hundred that wait: as many writes behind a slow webhook would be.
    #[test]
    fn heavy_work_that_waits_has_no_thread() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).max_blocking_threads(2).build().expect("a runtime");
        let (answer, asked) = tokio::sync::watch::channel(false);
        let ask = |mut asked: tokio::sync::watch::Receiver<bool>| heavy(async move { asked.wait_for(|answered| *answered).await.is_ok() });
        let waiting: Vec<_> = (0..100).map(|_| runtime.spawn(ask(asked.clone()))).collect();
        let (done, went_on) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            heavy(tokio::task::yield_now()).await;
            answer.send(true).expect("they listen");
            for waiting in waiting {
                assert!(waiting.await.expect("ran"));
            }
            done.send(())
        });
        // Not by the runtime's clock, which would stand too.
        let went_on = went_on.recv_timeout(std::time::Duration::from_secs(30));
        runtime.shutdown_background();
        went_on.expect("nobody is kept from going on");
    }

    #[test]
    fn who_waits_on_a_thread_gives_up_the_turn() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let held = || TURN.with_borrow(Option::is_some);
        let seen = runtime.block_on(runtime.spawn(heavy(async move {
            let before = held();
            let waited = wait(async {}).is_ok();
            (before, waited, held())
        })));
        assert_eq!(seen.expect("ran"), (true, true, false));
    }

    #[test]
    fn one_thread_does_all() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            assert_eq!(heavy(async { 1 }).await, 1);
            assert!(wait(async {}).is_err());
        });
    }
}
