//! Work that keeps a processor busy, away from a runtime's threads and behind everybody else's.
//!
//! A task that computes for milliseconds makes every other task of its thread wait. On a thread of its own the kernel shares the processors out, and a
//! lower priority (sched(7): Linux keeps nice values per thread) lets whoever wakes go first.

use std::future::Future;
use std::sync::LazyLock;

use rustix::process::{getpid, getpriority_process, setpriority_process};
use tokio::runtime::{Handle, RuntimeFlavor};

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

/// Does heavy work to its end here, at a low priority, while the runtime's other tasks go on elsewhere. A runtime of one thread does it like any other.
pub async fn heavy<F: Future>(work: F) -> F::Output {
    match with_others() {
        // Lowered within: the thread that takes over must not be.
        Some(runtime) => tokio::task::block_in_place(|| lowered(|| runtime.block_on(work))),
        None => work.await,
    }
}

/// Waits for something on this thread, while the runtime's other tasks go on elsewhere.
///
/// # Errors
/// The work, not begun, where there is no runtime with another thread.
pub fn wait<F: Future>(work: F) -> Result<F::Output, F> {
    match with_others() {
        Some(runtime) => Ok(tokio::task::block_in_place(|| runtime.block_on(work))),
        None => Err(work),
    }
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

    #[test]
    fn one_thread_does_all() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            assert_eq!(heavy(async { 1 }).await, 1);
            assert!(wait(async {}).is_err());
        });
    }
}
