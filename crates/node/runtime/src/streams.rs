//! Pipes and terminals as tokio streams.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tiphys_sys::process;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A descriptor that can be waited on; clones share it.
#[derive(Clone)]
pub(crate) struct FdStream(Option<Arc<AsyncFd<OwnedFd>>>);

impl FdStream {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        process::set_nonblocking(fd.as_fd(), true)?;
        Ok(Self(Some(Arc::new(crate::client::watched(fd)?))))
    }

    /// What is there at this moment, asked of the kernel and not of tokio, which may not have heard yet. Nothing is the end.
    fn fill_now(&self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let Some(fd) = &self.0 else { return Ok(()) };
        match process::read(fd.get_ref().as_fd(), buffer.initialize_unfilled()) {
            Ok(count) => buffer.advance(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(5) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn poll_fill(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(fd) = &self.0 else { return Poll::Ready(Ok(())) };
        loop {
            let mut guard = ready!(fd.poll_read_ready(context))?;
            match guard.try_io(|fd| process::read(fd.get_ref().as_fd(), buffer.initialize_unfilled())) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal whose other side is closed says EIO: that is its end of file.
                Ok(Err(error)) if error.raw_os_error() == Some(5) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncRead for FdStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_fill(context, buffer)
    }
}

impl AsyncWrite for FdStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(fd) = &self.0 else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        loop {
            let mut guard = ready!(fd.poll_write_ready(context))?;
            match guard.try_io(|fd| process::write(fd.get_ref().as_fd(), bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}

/// Output of a command: ends when the command has ended and the pipe is empty, though a process it left behind may
/// still hold the other end.
pub(crate) struct OutputStream {
    inner: FdStream,
    ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl OutputStream {
    pub(crate) fn new(inner: FdStream, ended: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { inner, ended: Some(Box::pin(ended)) }
    }
}

impl AsyncRead for OutputStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(ended) = &mut self.ended
            && ended.as_mut().poll(context).is_ready()
        {
            self.ended = None;
        }
        if self.ended.is_none() {
            return Poll::Ready(self.inner.fill_now(buffer));
        }
        self.inner.poll_fill(context, buffer)
    }
}

/// Standard input of an attached client; its end is told to whoever waits.
pub(crate) struct NotifyingInput {
    inner: FdStream,
    closed: Option<tokio::sync::oneshot::Sender<()>>,
}

impl NotifyingInput {
    pub(crate) fn new(inner: FdStream, closed: tokio::sync::oneshot::Sender<()>) -> Self {
        Self { inner, closed: Some(closed) }
    }
}

impl AsyncWrite for NotifyingInput {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(closed) = self.closed.take() {
            closed.send(()).ok();
        }
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
