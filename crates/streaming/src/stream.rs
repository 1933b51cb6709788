//! The two ends that sessions hand out, whatever protocol carries them: `Input` yields bytes from the client,
//! `Output` takes bytes to the client. Both are bounded, so a slow peer slows the container and not the memory.

use crate::{spdy, websocket};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// The peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream was closed by the peer")]
pub struct StreamClosed;

/// Bytes from the client; `None` is the end of the stream.
#[derive(Debug)]
pub struct Input(pub(crate) InputKind);

#[derive(Debug)]
pub(crate) enum InputKind {
    /// With the room that what waits takes.
    WebSocket(mpsc::Receiver<Bytes>, Arc<Semaphore>),
    Spdy(spdy::Reader),
}

impl Input {
    pub async fn read(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            InputKind::WebSocket(chunks, room) => {
                let chunk = chunks.recv().await?;
                room.add_permits(websocket::waiting(&chunk) as usize);
                Some(chunk)
            }
            InputKind::Spdy(reader) => reader.read().await,
        }
    }
}

/// Bytes to the client. Cheap to clone for a WebSocket channel; a SPDY stream has one writer.
#[derive(Debug)]
pub struct Output(pub(crate) OutputKind);

#[derive(Debug)]
pub(crate) enum OutputKind {
    WebSocket(websocket::ChannelWriter),
    Spdy(spdy::Writer),
}

impl Output {
    pub async fn write(&mut self, data: Bytes) -> Result<(), StreamClosed> {
        match &mut self.0 {
            OutputKind::WebSocket(channel) => channel.write(data).await,
            OutputKind::Spdy(writer) => writer.write(data).await,
        }
    }

    /// Ends this direction. A WebSocket channel has no end of its own: the session's close is its end.
    pub async fn close(&mut self) {
        if let OutputKind::Spdy(writer) = &mut self.0 {
            writer.close().await;
        }
    }

    /// Tells the peer that the stream is broken.
    pub async fn reset(&mut self) {
        if let OutputKind::Spdy(writer) = &mut self.0 {
            writer.reset().await;
        }
    }
}
