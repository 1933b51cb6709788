//! A SPDY/3.1 connection, the server's side: streams that the peer opens, each a pair of directions.
//!
//! Flow control: moby/spdystream, the client in every kubectl, knows no windows, so waiting for its WINDOW_UPDATE would
//! hang. A send window binds only once the peer has shown that it keeps windows (SETTINGS or WINDOW_UPDATE);
//! our own updates are always sent. Deliberately absent: opening streams to the peer, priorities, push.

mod frame;

use crate::stream::StreamClosed;
use bytes::{Bytes, BytesMut};
use frame::{Frame, HeaderDecoder, HeaderEncoder, Headers};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

const WINDOW: i64 = 64 * 1024;
const MAX_DATA: usize = 32 * 1024;
const WAITING_FRAMES: usize = 64;
const WAITING_CHUNKS: usize = 1024;
/// Bytes that may wait in a stream for their reader; clients without windows send on, and then the whole connection waits.
const WAITING_BYTES: usize = 4 << 20;
const WAITING_STREAMS: usize = 64;
/// Open at a time. One forwarded connection has two.
const MAX_STREAMS: usize = 4096;
const REFUSED_STREAM: u32 = 3;
const CANCEL: u32 = 5;
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// A stream that the peer opened.
#[derive(Debug)]
pub struct Stream {
    pub id: u32,
    pub headers: Vec<(String, String)>,
    pub reader: Reader,
    pub writer: Writer,
}

impl Stream {
    /// A header's value; names are lower case on the wire.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, v)| v)
    }
}

#[derive(Debug)]
struct StreamState {
    id: u32,
    send_window: AtomicI64,
    reset: AtomicBool,
    /// Nothing more is written to the peer.
    ended: AtomicBool,
    changed: Notify,
    /// For what waits to be read.
    room: Semaphore,
}

#[derive(Debug)]
struct Shared {
    frames: mpsc::Sender<Frame>,
    streams: Mutex<Streams>,
    windows: AtomicBool,
    initial_window: AtomicI64,
    last: AtomicU32,
    gone: watch::Sender<bool>,
}

/// By id; the sender goes when the peer has ended its direction.
type Streams = HashMap<u32, (Arc<StreamState>, Option<mpsc::Sender<Bytes>>)>;

impl Shared {
    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer has ended its direction, or nobody listens; a stream that has ended in both is forgotten.
    fn peer_ended(&self, id: u32) {
        let mut streams = self.streams();
        let Some((state, sender)) = streams.get_mut(&id) else { return };
        *sender = None;
        if state.ended.load(Ordering::Acquire) {
            streams.remove(&id);
        }
    }

    fn we_ended(&self, state: &StreamState) {
        state.ended.store(true, Ordering::Release);
        let mut streams = self.streams();
        if streams.get(&state.id).is_some_and(|(_, sender)| sender.is_none()) {
            streams.remove(&state.id);
        }
    }
}

/// The peer's direction of a stream.
#[derive(Debug)]
pub struct Reader {
    state: Arc<StreamState>,
    chunks: mpsc::Receiver<Bytes>,
    unacknowledged: u32,
    shared: Arc<Shared>,
}

impl Reader {
    pub async fn read(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.recv().await?;
        self.state.room.add_permits(chunk.len().min(WAITING_BYTES));
        self.unacknowledged += chunk.len() as u32;
        if i64::from(self.unacknowledged) >= WINDOW / 2 {
            let delta = std::mem::take(&mut self.unacknowledged);
            let _ = self.shared.frames.send(Frame::WindowUpdate { stream: self.state.id, delta }).await;
        }
        Some(chunk)
    }
}

/// Our direction of a stream.
#[derive(Debug)]
pub struct Writer {
    state: Arc<StreamState>,
    shared: Arc<Shared>,
    closed: bool,
}

impl Writer {
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), StreamClosed> {
        while !data.is_empty() {
            let room = self.room(data.len().min(MAX_DATA)).await?;
            let frame = Frame::Data { stream: self.state.id, fin: false, data: data.split_to(room) };
            self.shared.frames.send(frame).await.map_err(|_| StreamClosed)?;
        }
        Ok(())
    }

    async fn room(&self, wanted: usize) -> Result<usize, StreamClosed> {
        loop {
            let woken = self.state.changed.notified();
            if self.closed || self.state.reset.load(Ordering::Acquire) || self.shared.frames.is_closed() {
                return Err(StreamClosed);
            }
            if !self.shared.windows.load(Ordering::Acquire) {
                self.state.send_window.fetch_sub(wanted as i64, Ordering::AcqRel);
                return Ok(wanted);
            }
            let window = self.state.send_window.load(Ordering::Acquire);
            if window > 0 {
                let room = wanted.min(window as usize);
                self.state.send_window.fetch_sub(room as i64, Ordering::AcqRel);
                return Ok(room);
            }
            woken.await;
        }
    }

    /// Ends our direction.
    pub async fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.shared.we_ended(&self.state);
            let _ = self.shared.frames.send(Frame::Data { stream: self.state.id, fin: true, data: Bytes::new() }).await;
        }
    }

    /// Breaks the stream in both directions.
    pub async fn reset(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.shared.streams().remove(&self.state.id);
            let _ = self.shared.frames.send(Frame::Reset { stream: self.state.id, status: CANCEL }).await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.we_ended(&self.state);
    }
}

/// A connection. Dropping it lets what was written go out, and ends it.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    gone: watch::Receiver<bool>,
}

impl Connection {
    /// Starts the connection's two tasks; new streams arrive on the receiver, already answered with SYN_REPLY.
    pub fn serve<S>(io: S) -> (Connection, mpsc::Receiver<Stream>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let (frames, outgoing) = mpsc::channel(WAITING_FRAMES);
        let (new_streams, streams) = mpsc::channel(WAITING_STREAMS);
        let (gone_tx, gone) = watch::channel(false);
        let shared = Arc::new(Shared {
            frames,
            streams: Mutex::default(),
            windows: AtomicBool::new(false),
            initial_window: AtomicI64::new(WINDOW),
            last: AtomicU32::new(0),
            gone: gone_tx,
        });
        tokio::spawn(write_frames(write, outgoing, gone.clone()));
        tokio::spawn(read_frames(BufReader::new(read), shared.clone(), new_streams));
        (Connection { shared, gone }, streams)
    }

    /// Resolves once the peer is gone.
    pub fn closed(&self) -> watch::Receiver<bool> {
        self.gone.clone()
    }

    /// Says goodbye after all that was written, and waits a little until the peer hangs up.
    pub async fn close(mut self) {
        let last = self.shared.last.load(Ordering::Acquire);
        if self.shared.frames.send(Frame::GoAway { last }).await.is_ok() {
            let _ = tokio::time::timeout(CLOSE_WAIT, self.gone.wait_for(|gone| *gone)).await;
        }
        let _ = self.shared.gone.send(true);
    }
}

async fn write_frames<W: AsyncWrite + Unpin>(mut io: W, mut outgoing: mpsc::Receiver<Frame>, mut gone: watch::Receiver<bool>) {
    let (mut encoder, mut wire) = (HeaderEncoder::new(), BytesMut::with_capacity(MAX_DATA + 64));
    let mut goodbye = false;
    while !goodbye {
        let frame = tokio::select! {
            frame = outgoing.recv() => frame,
            _ = gone.wait_for(|gone| *gone) => None,
        };
        let Some(frame) = frame else { break };
        goodbye = matches!(frame, Frame::GoAway { .. });
        frame::write(&frame, &mut encoder, &mut wire);
        if (goodbye || outgoing.is_empty() || wire.len() >= MAX_DATA) && io.write_all(&wire.split()).await.is_err() {
            break;
        }
    }
    let _ = io.shutdown().await;
}

async fn read_frames<R: AsyncRead + Unpin>(mut io: R, shared: Arc<Shared>, new_streams: mpsc::Sender<Stream>) {
    let mut decoder = HeaderDecoder::new();
    let mut gone = shared.gone.subscribe();
    loop {
        let frame = tokio::select! {
            frame = frame::read(&mut io, &mut decoder) => frame,
            _ = gone.wait_for(|gone| *gone) => break,
        };
        match frame {
            Ok(Frame::GoAway { .. }) => {}
            Ok(frame) => handle(frame, &shared, &new_streams).await,
            Err(error) => {
                tracing::trace!(%error, "SPDY connection ended");
                break;
            }
        }
    }
    let streams = std::mem::take(&mut *shared.streams());
    for (state, _) in streams.values() {
        state.reset.store(true, Ordering::Release);
        state.changed.notify_waiters();
    }
    let _ = shared.gone.send(true);
}

async fn handle(frame: Frame, shared: &Arc<Shared>, new_streams: &mpsc::Sender<Stream>) {
    match frame {
        Frame::SynStream { stream, fin, headers } => open(stream, fin, headers, shared, new_streams).await,
        Frame::Data { stream, fin, data } => data_for(stream, fin, data, shared).await,
        Frame::Reset { stream, .. } => {
            if let Some((state, _)) = shared.streams().remove(&stream) {
                state.reset.store(true, Ordering::Release);
                state.changed.notify_waiters();
            }
        }
        // Odd pings are the peer's (§2.6.5); even ones would be answers to ours.
        Frame::Ping { id } if id % 2 == 1 => {
            let _ = shared.frames.send(Frame::Ping { id }).await;
        }
        Frame::Settings { initial_window: Some(window) } => {
            shared.windows.store(true, Ordering::Release);
            let old = shared.initial_window.swap(i64::from(window), Ordering::AcqRel);
            for (state, _) in shared.streams().values() {
                state.send_window.fetch_add(i64::from(window) - old, Ordering::AcqRel);
                state.changed.notify_waiters();
            }
        }
        Frame::WindowUpdate { stream, delta } => {
            shared.windows.store(true, Ordering::Release);
            if let Some((state, _)) = shared.streams().get(&stream) {
                state.send_window.fetch_add(i64::from(delta), Ordering::AcqRel);
                state.changed.notify_waiters();
            }
        }
        _ => {}
    }
}

async fn open(id: u32, fin: bool, headers: Headers, shared: &Arc<Shared>, new_streams: &mpsc::Sender<Stream>) {
    if shared.streams().len() >= MAX_STREAMS || shared.streams().contains_key(&id) {
        let _ = shared.frames.send(Frame::Reset { stream: id, status: REFUSED_STREAM }).await;
        return;
    }
    let state = Arc::new(StreamState {
        id,
        send_window: AtomicI64::new(shared.initial_window.load(Ordering::Acquire)),
        reset: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        changed: Notify::new(),
        room: Semaphore::new(WAITING_BYTES),
    });
    let (sender, chunks) = mpsc::channel(WAITING_CHUNKS);
    shared.last.fetch_max(id, Ordering::AcqRel);
    shared.streams().insert(id, (state.clone(), (!fin).then_some(sender)));
    let _ = shared.frames.send(Frame::SynReply { stream: id, fin: false, headers: Vec::new() }).await;
    let reader = Reader { state: state.clone(), chunks, unacknowledged: 0, shared: shared.clone() };
    let writer = Writer { state, shared: shared.clone(), closed: false };
    let _ = new_streams.send(Stream { id, headers, reader, writer }).await;
}

async fn data_for(id: u32, fin: bool, data: Bytes, shared: &Arc<Shared>) {
    let stream = shared.streams().get(&id).and_then(|(state, sender)| Some((state.clone(), sender.clone()?)));
    let dropped = match stream {
        Some((state, sender)) if !data.is_empty() => deliver(&state, &sender, data).await.is_err(),
        _ => false,
    };
    if fin || dropped {
        shared.peer_ended(id);
    }
}

async fn deliver(state: &StreamState, sender: &mpsc::Sender<Bytes>, data: Bytes) -> Result<(), StreamClosed> {
    let length = data.len().min(WAITING_BYTES) as u32;
    let room = tokio::select! {
        room = state.room.acquire_many(length) => room.map_err(|_| StreamClosed)?,
        // The reader is gone.
        () = sender.closed() => return Err(StreamClosed),
    };
    room.forget();
    sender.send(data).await.map_err(|_| StreamClosed)
}

#[cfg(test)]
mod tests;
