//! The client's end of a watch.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tiphys_meta::EventType;

/// One event with its object in the encoding that was negotiated.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    pub kind: EventType,
    pub object: Bytes,
}

/// A running watch. In-process callers take events one by one; the listener writes frames out.
pub struct WatchStream {
    pub content_type: Cow<'static, str>,
    pub warnings: Vec<String>,
    events: Pin<Box<dyn Stream<Item = Vec<WatchEvent>> + Send>>,
    pending: std::vec::IntoIter<WatchEvent>,
    frame: fn(&[WatchEvent]) -> Bytes,
}

impl WatchStream {
    pub(crate) fn new(
        content_type: Cow<'static, str>,
        warnings: Vec<String>,
        events: Pin<Box<dyn Stream<Item = Vec<WatchEvent>> + Send>>,
        frame: fn(&[WatchEvent]) -> Bytes,
    ) -> Self {
        WatchStream { content_type, warnings, events, pending: Vec::new().into_iter(), frame }
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
        Some((self.frame)(&batch))
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").field("content_type", &self.content_type).finish_non_exhaustive()
    }
}
