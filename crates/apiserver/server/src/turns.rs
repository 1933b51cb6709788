//! Reading from a connection by turns: whoever has sent a lot at once is read a little of, then the others come.
//!
//! A task that reads for as long as something is there keeps its thread from everybody else's requests: a burst of HTTP/2 streams opened and taken back
//! (CVE-2023-44487) is thousands of frames, a body of 3 MiB some milliseconds of decryption.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one turn. What many clients send on one connection at a time comes in one: a turn ends with a system call.
const TURN: usize = 32 * 1024;

pub(crate) struct Turns<S> {
    stream: S,
    /// Bytes since somebody else had a turn.
    read: usize,
}

impl<S> Turns<S> {
    pub(crate) fn new(stream: S) -> Self {
        Turns { stream, read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read >= TURN {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.read = if polled.is_pending() { 0 } else { self.read + buffer.filled().len() - before };
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Turns<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn others_come_after_each_turn_and_nothing_is_lost() {
        // By itself: the runtime's own limit would end turns too.
        tokio::task::unconstrained(turns()).await;
    }

    async fn turns() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let sent: Vec<u8> = (0..4 * TURN + 100).map(|i| i as u8).collect();
        client.write_all(&sent).await.expect("sent");
        let mut reading = Turns::new(server);
        let (mut all, mut part, mut turns) = (Vec::new(), vec![0; 1024], 0);
        while all.len() < sent.len() && turns < 100 {
            match reading.read(&mut part).now_or_never() {
                Some(read) => all.extend_from_slice(&part[..read.expect("read")]),
                None => turns += 1,
            }
        }
        assert_eq!(all, sent);
        assert_eq!(turns, sent.len() / TURN);
        // What comes little by little waits for itself alone.
        for _ in 0..2 * TURN / part.len() {
            client.write_all(&sent[..part.len()]).await.expect("sent");
            assert_eq!(reading.read(&mut part).now_or_never().expect("at once").expect("read"), part.len());
            assert!(reading.read(&mut part).now_or_never().is_none());
        }
    }
}
