//! The client's end of a watch.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tiphys_meta::EventType;
use tiphys_schema::codec;

use super::Event;

/// One event with its object in the encoding that was negotiated.
#[derive(Clone)]
pub struct WatchEvent {
    pub kind: EventType,
    pub object: Bytes,
    /// What happened, where every watcher of this encoding is shown the same of it.
    pub(crate) shared: Option<Arc<Event>>,
}

impl fmt::Debug for WatchEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchEvent").field("kind", &self.kind).field("object", &self.object).finish_non_exhaustive()
    }
}

/// A running watch. In-process callers take events one by one; the listener writes frames out.
pub struct WatchStream {
    pub content_type: Cow<'static, str>,
    pub warnings: Vec<String>,
    events: Pin<Box<dyn Stream<Item = Vec<WatchEvent>> + Send>>,
    pending: std::vec::IntoIter<WatchEvent>,
    framing: Framing,
}

/// How events stand on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `{"type":…,"object":…}` and a newline.
    Json,
    /// A length, and a `WatchEvent`.
    Protobuf,
}

impl Framing {
    fn frame(self, event: &WatchEvent) -> Bytes {
        let make = || match self {
            Framing::Json => [b"{\"type\":\"", event.kind.as_str().as_bytes(), b"\",\"object\":", &event.object, b"}\n"].concat().into(),
            Framing::Protobuf => codec::proto::encode_watch_event(event.kind.as_str(), &event.object).into(),
        };
        match &event.shared {
            Some(shared) => shared.frame(event.kind, self == Framing::Protobuf, make),
            None => make(),
        }
    }
}

impl WatchStream {
    pub(crate) fn new(
        content_type: Cow<'static, str>,
        warnings: Vec<String>,
        events: Pin<Box<dyn Stream<Item = Vec<WatchEvent>> + Send>>,
        framing: Framing,
    ) -> Self {
        WatchStream { content_type, warnings, events, pending: Vec::new().into_iter(), framing }
    }

    /// The next event; none when the watch is over.
    pub async fn next_event(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.pending.next() {
                return Some(event);
            }
            self.pending = self.events.next().await?.into_iter();
        }
    }

    /// All frames that are ready, as one piece to write; waits for the first. None when the watch is over.
    pub async fn next_frames(&mut self) -> Option<Bytes> {
        let batch = self.events.next().await?;
        if let [event] = &batch[..] {
            return Some(self.framing.frame(event));
        }
        let mut out = Vec::with_capacity(batch.iter().map(|e| e.object.len() + 40).sum());
        batch.iter().for_each(|event| out.extend_from_slice(&self.framing.frame(event)));
        Some(out.into())
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").field("content_type", &self.content_type).finish_non_exhaustive()
    }
}
