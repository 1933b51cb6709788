//! Room for the bodies of requests, so that many at once do not add up.
//!
//! A body is read before its request takes a seat of its priority level: who sends slowly waits alone. Small ones are read without asking, for
//! seats and connections bound them; larger ones share two rooms, one to be read in and one to be worked on in, where a tree takes up to ten times
//! as much (`tiphys_schema::codec::budget`). Whoever finds the first one full is told to come again; the second is waited for.

use std::sync::Arc;
use std::time::Duration;

use http_body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{self, Body, MAX_REQUEST_BYTES};
use crate::errors::DoorError;

/// Up to here a body is small.
const SMALL: usize = 16 * 1024;
/// Bytes of larger bodies that are being read.
const READ_AT_ONCE: usize = 128 << 20;
/// Bytes of larger bodies that are being worked on.
const WORKED_AT_ONCE: usize = 32 << 20;

pub(crate) struct Rooms {
    reading: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

/// Whether the body is one that has to ask, as far as its head tells.
pub(crate) fn may_be_large(body: &impl http_body::Body) -> bool {
    !body.is_end_stream() && body.size_hint().upper().is_none_or(|most| most > SMALL as u64)
}

/// A body that came.
pub(crate) struct Received {
    /// As one that is there already.
    pub(crate) body: Body,
    /// Its place in the second room, where it needs one.
    pub(crate) place: Option<OwnedSemaphorePermit>,
    /// It may take milliseconds to read: it is large, or has what YAML repeats things with.
    pub(crate) heavy: bool,
}

impl Default for Rooms {
    fn default() -> Self {
        Rooms { reading: Arc::new(Semaphore::new(READ_AT_ONCE)), working: Arc::new(Semaphore::new(WORKED_AT_ONCE)) }
    }
}

impl Rooms {
    /// Reads a body as a whole.
    pub(crate) async fn receive(&self, body: Body, patience: Duration) -> Result<Received, DoorError> {
        if body.is_end_stream() {
            return Ok(Received { body, place: None, heavy: false });
        }
        // Who does not say how much will come may send all that is allowed.
        let most = body.size_hint().upper().map_or(MAX_REQUEST_BYTES, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let bytes = {
            let _reading = if most > SMALL { Some(self.reader(most.min(MAX_REQUEST_BYTES))?) } else { None };
            tokio::time::timeout(patience, body::collect(body)).await.unwrap_or(Err(DoorError::Timeout))?
        };
        let large = bytes.len() > SMALL;
        let place = if large { self.place(bytes.len(), patience).await? } else { None };
        let heavy = large || (bytes.contains(&b'&') && bytes.contains(&b'*'));
        Ok(Received { body: body::full(bytes), place, heavy })
    }

    fn reader(&self, bytes: usize) -> Result<OwnedSemaphorePermit, DoorError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.reading.clone().try_acquire_many_owned(bytes).map_err(|_| DoorError::TooMany)
    }

    async fn place(&self, bytes: usize, patience: Duration) -> Result<Option<OwnedSemaphorePermit>, DoorError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let place = tokio::time::timeout(patience, self.working.clone().acquire_many_owned(bytes)).await;
        Ok(place.map_err(|_| DoorError::TooMany)?.ok())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{FutureExt, stream};
    use http_body_util::BodyExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A body without a length, of which nothing comes.
    fn silent() -> Body {
        body::streaming(stream::pending::<Bytes>())
    }

    #[tokio::test]
    async fn what_is_read_at_once_is_bounded_and_small_bodies_always_pass() {
        let rooms = Rooms::default();
        let mut slow: Vec<_> = (0..READ_AT_ONCE / MAX_REQUEST_BYTES).map(|_| Box::pin(rooms.receive(silent(), PATIENCE))).collect();
        for reading in &mut slow {
            assert!(reading.now_or_never().is_none());
        }
        assert!(matches!(rooms.receive(silent(), PATIENCE).await, Err(DoorError::TooMany)));
        let small = rooms.receive(body::full(vec![b' '; SMALL]), PATIENCE).await.expect("read");
        assert_eq!((small.place.is_none(), small.heavy), (true, false));
        assert_eq!(small.body.collect().await.expect("a body").to_bytes().len(), SMALL);
        drop(slow);
        let large = rooms.receive(body::full(vec![b' '; SMALL + 1]), PATIENCE).await.expect("read");
        assert!(large.place.is_some() && large.heavy);
        let repeats = rooms.receive(body::full("a: &a 1\nb: *a"), PATIENCE).await.expect("read");
        assert!(repeats.place.is_none() && repeats.heavy);
        drop(large);
        assert_eq!(rooms.reading.available_permits(), READ_AT_ONCE);
    }

    #[tokio::test]
    async fn what_is_worked_on_at_once_is_waited_for() {
        let rooms = Rooms::default();
        let large = || body::full(vec![b' '; MAX_REQUEST_BYTES]);
        let mut places = Vec::new();
        for _ in 0..WORKED_AT_ONCE / MAX_REQUEST_BYTES {
            places.push(rooms.receive(large(), PATIENCE).await.expect("read").place);
        }
        let mut next = Box::pin(rooms.receive(large(), PATIENCE));
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        places.pop();
        assert!(next.await.is_ok());
    }
}
