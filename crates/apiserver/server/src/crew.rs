//! An HTTP/2 connection's streams, in the connection's own task.
//!
//! With a task for each stream whichever processor is idle takes it: a request is read by one, answered by another and written by the first, which
//! costs a wake-up each way, and what the caches held. Here a connection and its streams stay together; connections go to whoever is idle. So no
//! stream may keep its thread for long: what computes for milliseconds leaves it (`tiphys_base::threads`), and large bodies have tasks of their own.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use futures_util::{FutureExt, StreamExt};
use hyper::rt::Executor;
use parking_lot::Mutex;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What hyper hands new streams to.
#[derive(Clone, Default)]
pub(crate) struct Newcomers(Arc<Mutex<Vec<Stream>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Newcomers {
    fn execute(&self, stream: F) {
        // A panic in one leaves the others alone: it is told of where it happens, by the panic hook.
        self.0.lock().push(Box::pin(AssertUnwindSafe(stream).catch_unwind().map(drop)));
    }
}

/// Whether the connection has something to do: its own waker, so that it is not asked because a stream has.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// The streams of one connection.
pub(crate) struct Crew {
    newcomers: Newcomers,
    streams: FuturesUnordered<Stream>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl Crew {
    pub(crate) fn new(newcomers: Newcomers) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        let waker = Waker::from(bell.clone());
        Crew { newcomers, streams: FuturesUnordered::new(), bell, waker }
    }

    /// The connection is to be asked in any case when the crew is polled next.
    pub(crate) fn ring(&self) {
        self.bell.rung.store(true, Ordering::Release);
    }

    /// One turn: the connection, its streams, and the connection again, which then writes what the streams have said. Others' turns come in between,
    /// however much there is to do.
    pub(crate) fn poll<T>(&mut self, cx: &mut Context<'_>, mut connection: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.bell.task.register(cx.waker());
        for _ in 0..2 {
            if self.bell.rung.swap(false, Ordering::AcqRel) {
                let ended = connection(&mut Context::from_waker(&self.waker));
                if ended.is_ready() {
                    return ended;
                }
            }
            self.streams.extend(self.newcomers.0.lock().drain(..));
            self.advance(cx);
        }
        Poll::Pending
    }

    fn advance(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.streams.poll_next_unpin(cx) {}
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::oneshot;

    use super::*;

    /// A connection that brings these streams, and ends when so many were told of.
    fn connection(newcomers: &Newcomers, streams: Vec<Stream>, told: &Arc<Mutex<Vec<Waker>>>, last: usize) -> impl FnMut(&mut Context<'_>) -> Poll<()> {
        let (newcomers, told, mut streams) = (newcomers.clone(), told.clone(), Some(streams));
        let mut seen = 0;
        move |cx| {
            streams.take().into_iter().flatten().for_each(|stream| newcomers.execute(stream));
            told.lock().push(cx.waker().clone());
            seen += 1;
            if seen > last { Poll::Ready(()) } else { Poll::Pending }
        }
    }

    /// Streams tell the connection by the waker that it left.
    fn tell(told: &Mutex<Vec<Waker>>) {
        told.lock().iter().for_each(Waker::wake_by_ref);
    }

    #[tokio::test]
    async fn a_panic_in_one_stream_leaves_the_others_alone() {
        let (newcomers, told) = (Newcomers::default(), Arc::default());
        let (answer, answered) = oneshot::channel();
        let tells: Arc<Mutex<Vec<Waker>>> = Arc::clone(&told);
        let broken: Stream = Box::pin(async { std::panic::resume_unwind(Box::new("broken")) });
        let whole: Stream = Box::pin(async move {
            answer.send(()).expect("somebody waits");
            tell(&tells);
        });
        let mut crew = Crew::new(newcomers.clone());
        let mut connection = connection(&newcomers, vec![broken, whole], &told, 1);
        poll_fn(|cx| crew.poll(cx, &mut connection)).await;
        answered.await.expect("answered");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_another_thread_has_for_a_stream_reaches_the_connection() {
        for _ in 0..200 {
            let (newcomers, told) = (Newcomers::default(), Arc::default());
            let (mut streams, mut senders) = (Vec::new(), Vec::new());
            for _ in 0..8 {
                let (sender, receiver) = oneshot::channel::<()>();
                let tells: Arc<Mutex<Vec<Waker>>> = Arc::clone(&told);
                streams.push(Box::pin(async move {
                    receiver.await.expect("sent");
                    tell(&tells);
                }) as Stream);
                senders.push(sender);
            }
            let mut crew = Crew::new(newcomers.clone());
            // It is asked once at first, and at least once when a stream has told.
            let mut connection = connection(&newcomers, streams, &told, 1);
            let sending = tokio::spawn(async move { senders.into_iter().for_each(|sender| sender.send(()).expect("somebody waits")) });
            poll_fn(|cx| crew.poll(cx, &mut connection)).await;
            sending.await.expect("sent");
        }
    }

    #[test]
    fn a_turn_ends_however_much_there_is_to_do() {
        let (newcomers, told) = (Newcomers::default(), Arc::default());
        let tells: Arc<Mutex<Vec<Waker>>> = Arc::clone(&told);
        let restless: Stream = Box::pin(poll_fn(move |cx| {
            tell(&tells);
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let mut crew = Crew::new(newcomers.clone());
        let mut connection = connection(&newcomers, vec![restless], &told, usize::MAX);
        assert!(crew.poll(&mut Context::from_waker(Waker::noop()), &mut connection).is_pending());
        assert_eq!(told.lock().len(), 2, "the connection was asked before the stream and after it");
    }
}
