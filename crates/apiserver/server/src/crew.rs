//! An HTTP/2 connection's streams, in the connection's own task.
//!
//! With a task for each stream whichever processor is idle takes it: a request is read by one, answered by another and written by the first, which
//! costs a wake-up each way, and what the caches held. Here a connection and its streams stay together; connections go to whoever is idle. So no
//! stream may keep its thread for long: what computes for milliseconds leaves it (`tiphys_base::threads`), and large bodies have tasks of their own.
//!
//! Connection and streams stand in one queue: whoever is woken goes to its end. So a connection takes no new requests before those that it took are
//! begun, and nobody is passed over.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use futures_util::{FutureExt, StreamExt};
use hyper::rt::Executor;
use parking_lot::Mutex;

/// After so many streams have ended, other connections have their turn.
const TURN: usize = 64;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Streams that have no place in the queue yet.
#[derive(Default)]
pub(crate) struct Crew(Arc<Mutex<Vec<Stream>>>);

/// What hyper hands new streams to. Each of them has one, so it must not keep them.
#[derive(Clone)]
pub(crate) struct Enlist(Weak<Mutex<Vec<Stream>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Enlist {
    fn execute(&self, stream: F) {
        if let Some(newcomers) = self.0.upgrade() {
            // A panic in one leaves the others alone; the panic hook has told of it.
            newcomers.lock().push(Box::pin(AssertUnwindSafe(stream).catch_unwind().map(drop)));
        }
    }
}

/// Who stands in the queue.
enum Member<'c, C> {
    Connection(Pin<&'c mut C>),
    Stream(Stream),
}

impl<C: Future> Future for Member<'_, C> {
    type Output = Option<C::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Member::Connection(connection) => connection.as_mut().poll(cx).map(Some),
            Member::Stream(stream) => stream.as_mut().poll(cx).map(|()| None),
        }
    }
}

/// The queue's waker. While the queue is gone through, whoever is woken has a place in it already, and the task need not be.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    heard: AtomicBool,
    task: AtomicWaker,
}

impl Bell {
    fn listen(&self, task: &Waker) {
        self.task.register(task);
        self.heard.store(true, Ordering::SeqCst);
    }

    /// Whoever rang and was heard is not forgotten: either sees what the other did last.
    fn leave(&self, task: &Waker) {
        self.heard.store(false, Ordering::SeqCst);
        if self.rung.load(Ordering::SeqCst) {
            task.wake_by_ref();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.heard.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

impl Crew {
    pub(crate) fn executor(&self) -> Enlist {
        Enlist(Arc::downgrade(&self.0))
    }

    /// Runs a connection and the streams that it makes, until the connection ends. What its streams are at then is given up.
    pub(crate) async fn run<C: Future + Send>(self, connection: C) -> C::Output {
        let connection = pin!(connection);
        let mut queue: FuturesUnordered<_> = std::iter::once(Member::Connection(connection)).collect();
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        poll_fn(|cx| {
            bell.listen(cx.waker());
            let polled = self.take_turn(&mut queue, &bell, &mut Context::from_waker(&waker));
            bell.leave(cx.waker());
            polled
        })
        .await
    }

    fn take_turn<C: Future>(&self, queue: &mut FuturesUnordered<Member<'_, C>>, bell: &Bell, cx: &mut Context<'_>) -> Poll<C::Output> {
        for _ in 0..TURN {
            // A swap, not a store: it sees what those who rang had done before.
            bell.rung.swap(false, Ordering::SeqCst);
            queue.extend(self.0.lock().drain(..).map(Member::Stream));
            match queue.poll_next_unpin(cx) {
                Poll::Ready(Some(Some(ended))) => return Poll::Ready(ended),
                Poll::Ready(_) => {}
                Poll::Pending if self.0.lock().is_empty() && !bell.rung.load(Ordering::SeqCst) => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        bell.rung.store(true, Ordering::SeqCst);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Notify, oneshot};

    use super::*;

    #[tokio::test]
    async fn a_panic_in_one_stream_leaves_the_others_alone() {
        let crew = Crew::default();
        let executor = crew.executor();
        let (answer, answered) = oneshot::channel();
        let connection = async move {
            executor.execute(async { std::panic::resume_unwind(Box::new("broken")) });
            executor.execute(async move { answer.send(()).expect("somebody waits") });
            answered.await
        };
        crew.run(connection).await.expect("answered");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_another_thread_has_for_a_stream_reaches_the_connection() {
        for _ in 0..500 {
            let crew = Crew::default();
            let executor = crew.executor();
            let connection = async move {
                let (mut senders, mut ended) = (Vec::new(), Vec::new());
                for _ in 0..8 {
                    let (sender, receiver) = oneshot::channel::<()>();
                    let (end, done) = oneshot::channel();
                    executor.execute(async move {
                        receiver.await.expect("sent");
                        end.send(()).expect("somebody waits");
                    });
                    senders.push(sender);
                    ended.push(done);
                }
                let sending = tokio::spawn(async move { senders.into_iter().for_each(|sender| sender.send(()).expect("somebody waits")) });
                for done in ended {
                    done.await.expect("told");
                }
                sending.await
            };
            crew.run(connection).await.expect("sent");
        }
    }

    #[tokio::test]
    async fn streams_that_never_rest_keep_nobody_from_going_on() {
        let crew = Crew::default();
        let executor = crew.executor();
        let enough = Arc::new(Notify::new());
        let told = enough.clone();
        let connection = async move {
            for _ in 0..3 {
                executor.execute(async {
                    loop {
                        tokio::task::yield_now().await
                    }
                });
            }
            executor.execute(poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::Pending
            }));
            enough.notified().await;
        };
        let other = async move {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            told.notify_one();
        };
        tokio::join!(crew.run(connection), other);
    }

    /// A stream has the executor, which has the stream.
    #[tokio::test]
    async fn nothing_is_left_of_a_connection_that_ends_at_once() {
        let crew = Crew::default();
        let executor = crew.executor();
        let left = Arc::new(());
        let (waits, comes_late) = (left.clone(), left.clone());
        let connection = async move {
            let within = executor.clone();
            executor.execute(async move {
                let _held = (waits, within);
                std::future::pending::<()>().await;
            });
            tokio::task::yield_now().await;
            let within = executor.clone();
            executor.execute(async move { drop((comes_late, within)) });
        };
        crew.run(connection).await;
        assert_eq!(Arc::strong_count(&left), 1);
    }

    /// A connection that brings requests faster than they are answered, as one that takes them back at once does.
    #[tokio::test]
    async fn no_new_requests_before_the_last_ones_are_begun() {
        const ROUNDS: usize = 200;
        let crew = Crew::default();
        let executor = crew.executor();
        let begun = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (mut round, mut behind) = (0, 0);
        let connection = poll_fn(|cx| {
            behind = behind.max(round * 100 - begun.load(Ordering::SeqCst));
            for _ in 0..100 {
                let begun = begun.clone();
                let mut first = true;
                // Each is woken once more before it ends.
                executor.execute(poll_fn(move |cx| {
                    if std::mem::take(&mut first) {
                        begun.fetch_add(1, Ordering::SeqCst);
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                }));
            }
            round += 1;
            cx.waker().wake_by_ref();
            if round == ROUNDS { Poll::Ready(()) } else { Poll::Pending }
        });
        crew.run(connection).await;
        assert!(behind <= 300, "{behind} of {} requests waited", ROUNDS * 100);
    }
}
