//! Small writes of HTTP/2 put together before they become TLS records and system calls.
//!
//! h2 flushes after each frame whose payload it does not copy, which is from 256 bytes on where the stream can write vectors: a watch event to a
//! thousand watchers would be a thousand records. Where it cannot, h2 copies payloads up to 1 KiB, and many events leave in one write. So this says
//! that it cannot, and joins the heads of larger frames, which then come by themselves, with their payloads.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes below this are held until more comes or the writer flushes.
const SMALL: usize = 4096;
/// Not more than this is held.
const MOST: usize = 16 * 1024;

pub(crate) struct Gather<S> {
    inner: S,
    held: Vec<u8>,
    /// So much of `held` is written already.
    written: usize,
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    pub(crate) fn new(inner: S) -> Self {
        Gather { inner, held: Vec::new(), written: 0 }
    }

    fn written(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += bytes;
        if self.written == self.held.len() {
            self.held.clear();
            self.written = 0;
        }
        Ok(())
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let bytes = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.held[self.written..]))?;
            self.written(bytes)?;
        }
        Poll::Ready(Ok(()))
    }

    /// What is held, and `data` behind it.
    fn write_with_held(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            let left = self.held.len() - self.written;
            let parts = [IoSlice::new(&self.held[self.written..]), IoSlice::new(data)];
            let bytes = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &parts))?;
            self.written(bytes.min(left))?;
            if bytes > left {
                return Poll::Ready(Ok(bytes - left));
            }
        }
        Pin::new(&mut self.inner).poll_write(cx, data)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.len() >= SMALL {
            return self.write_with_held(cx, data);
        }
        if self.held.len() + data.len() > MOST {
            ready!(self.drain(cx))?;
        }
        self.held.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Takes at most seven bytes at once, and counts how often it was asked.
    #[derive(Default)]
    struct Narrow {
        taken: Vec<u8>,
        writes: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let bytes = data.len().min(7);
            self.taken.extend_from_slice(&data[..bytes]);
            self.writes += 1;
            Poll::Ready(Ok(bytes))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn everything_arrives_once_and_in_order() {
        let mut gather = Gather::new(Narrow::default());
        let mut sent = Vec::new();
        for (i, size) in [9, 5000, 3, 0, 4096, 4095, 9, 9, 16_384, 1].into_iter().enumerate() {
            let data: Vec<u8> = (0..size).map(|n: usize| (n * 31 + i) as u8).collect();
            gather.write_all(&data).await.expect("written");
            sent.extend(data);
            if i % 4 == 3 {
                gather.flush().await.expect("flushed");
                assert_eq!(gather.inner.taken, sent);
            }
        }
        gather.shutdown().await.expect("shut down");
        assert_eq!(gather.inner.taken, sent);
    }

    #[tokio::test]
    async fn small_writes_leave_as_one() {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let mut gather = Gather::new(near);
        for _ in 0..20 {
            gather.write_all(&[7; 600]).await.expect("written");
        }
        gather.flush().await.expect("flushed");
        let mut buffer = vec![0; 64 * 1024];
        assert_eq!(far.read(&mut buffer).await.expect("read"), 12_000);
    }
}
