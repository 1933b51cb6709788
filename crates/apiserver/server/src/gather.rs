//! Writes of HTTP/2 put together before they become TLS records and system calls.
//!
//! h2 flushes after each frame whose payload it does not copy, which is from 256 bytes on where the stream can write vectors: a watch event to a
//! thousand watchers would be a thousand records, a long list a system call for each 16 KiB. So this says that it cannot write vectors (h2 then
//! copies payloads up to 1 KiB), holds what is small, encrypts what is large at once with the head of its frame, and takes a flush for a
//! wish: records leave when there are four of them, and when the connection has nothing more to say for now, which is when its `Outlet` is drained.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// Writes below this are held.
const SMALL: usize = 4 * 1024;
/// Not more than this is held: a TLS record.
const RECORD: usize = 16 * 1024;
/// When so much is encrypted, it leaves.
const MOST: usize = 4 * RECORD;

/// What encrypts at once and writes when flushed.
pub(crate) trait Seal: AsyncWrite + Unpin {
    /// Takes all of it.
    fn seal(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()>;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Seal for TlsStream<S> {
    fn seal(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let (_, session) = self.get_mut();
        let length: usize = parts.iter().map(|part| part.len()).sum();
        // How much may wait is seen to here.
        session.set_buffer_limit(None);
        let taken = session.writer().write_vectored(parts)?;
        if taken == length { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// The connection's end.
pub(crate) struct Gather<S>(Arc<Mutex<Held<S>>>);

/// Where what is held is let out.
pub(crate) struct Outlet<S>(Arc<Mutex<Held<S>>>);

/// Only ever locked by the task of the connection.
struct Held<S> {
    inner: S,
    small: Vec<u8>,
    /// So much was sealed since the last flush came to its end.
    sealed: usize,
}

pub(crate) fn gather<S: Seal>(inner: S) -> (Gather<S>, Outlet<S>) {
    let held = Arc::new(Mutex::new(Held { inner, small: Vec::new(), sealed: 0 }));
    (Gather(held.clone()), Outlet(held))
}

impl<S: Seal> Outlet<S> {
    /// To be called whenever the connection waits; what cannot be written now is written when its task is woken again.
    /// An error shows when the connection itself writes next, for which it is woken.
    pub(crate) fn drain(&self, cx: &mut Context<'_>) {
        let mut held = self.0.lock();
        if held.is_empty() {
            return;
        }
        if let Poll::Ready(Err(_)) = held.drain(cx) {
            cx.waker().wake_by_ref();
        }
        // Connections that wait keep no buffers.
        held.small = Vec::new();
    }
}

impl<S: Seal> Held<S> {
    fn is_empty(&self) -> bool {
        self.small.is_empty() && self.sealed == 0
    }

    /// Seals what is held, and `large` behind it.
    fn seal(&mut self, large: &[u8]) -> io::Result<()> {
        let length = self.small.len() + large.len();
        if length > 0 {
            self.inner.seal(&[IoSlice::new(&self.small), IoSlice::new(large)])?;
            self.sealed += length;
            self.small.clear();
        }
        Ok(())
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.sealed = 0;
        Poll::Ready(Ok(()))
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seal(&[])?;
        self.flush(cx)
    }
}

impl<S: Seal> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut held = self.0.lock();
        if held.sealed >= MOST {
            ready!(held.flush(cx))?;
        }
        if data.len() >= SMALL {
            held.seal(data)?;
        } else {
            if held.small.len() + data.len() > RECORD {
                held.seal(&[])?;
            }
            if held.small.capacity() == 0 {
                held.small.reserve_exact(RECORD);
            }
            held.small.extend_from_slice(data);
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.0.lock();
        ready!(held.drain(cx))?;
        Pin::new(&mut held.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().inner).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Writes at most seven hundred bytes at once, and every third time makes the writer wait.
    #[derive(Default)]
    struct Narrow {
        sealed: Vec<u8>,
        records: usize,
        written: Vec<u8>,
        asked: usize,
    }

    impl Seal for Narrow {
        fn seal(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
            parts.iter().for_each(|part| self.sealed.extend_from_slice(part));
            self.records += 1;
            Ok(())
        }
    }

    impl AsyncWrite for Narrow {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::Error::other("everything is to be sealed")))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            while !self.sealed.is_empty() {
                self.asked += 1;
                if self.asked.is_multiple_of(3) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let bytes = self.sealed.len().min(700);
                let rest = self.sealed.split_off(bytes);
                let now = std::mem::replace(&mut self.sealed, rest);
                self.written.extend(now);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }

    async fn drained<S: Seal>(outlet: &Outlet<S>) {
        poll_fn(|cx| {
            outlet.drain(cx);
            if outlet.0.lock().is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[tokio::test]
    async fn everything_arrives_once_and_in_order() {
        let (mut gather, outlet) = gather(Narrow::default());
        let mut sent = Vec::new();
        for (i, size) in [9, 5000, 3, 0, 4096, 4095, 9, 9, 16_384, 9, 16_384, 9, 16_384, 9, 16_384, 9, 16_384, 1].into_iter().enumerate() {
            let data: Vec<u8> = (0..size).map(|n: usize| (n * 31 + i) as u8).collect();
            gather.write_all(&data).await.expect("written");
            gather.flush().await.expect("flushed");
            sent.extend(data);
            let waits = sent.len() - outlet.0.lock().inner.written.len();
            assert!(waits <= MOST + 2 * RECORD, "{waits} bytes wait");
            if i % 8 == 3 {
                drained(&outlet).await;
                assert_eq!(outlet.0.lock().inner.written, sent);
            }
        }
        gather.shutdown().await.expect("shut down");
        assert_eq!(outlet.0.lock().inner.written, sent);
    }

    #[tokio::test]
    async fn small_writes_are_one_record_and_a_head_goes_with_its_payload() {
        let (mut gather, outlet) = gather(Narrow::default());
        for _ in 0..20 {
            gather.write_all(&[7; 600]).await.expect("written");
            gather.flush().await.expect("flushed");
        }
        drained(&outlet).await;
        assert_eq!(outlet.0.lock().inner.records, 1);
        for _ in 0..3 {
            gather.write_all(&[1; 9]).await.expect("written");
            gather.write_all(&[2; 16_375]).await.expect("written");
        }
        drained(&outlet).await;
        assert_eq!(outlet.0.lock().inner.records, 4);
        assert_eq!(outlet.0.lock().small.capacity(), 0, "nothing is kept while a connection waits");
    }
}
