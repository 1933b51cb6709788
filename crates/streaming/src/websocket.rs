//! WebSocket channels (`channel.k8s.io` and its versions): the first byte of each message names the channel. In the
//! base64 variants messages are text, the channel is a digit, and the rest is base64.

use crate::stream::{Input, InputKind, Output, OutputKind, StreamClosed};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};

/// The channel number of the v5 close signal; its payload is the channel that ends.
const CLOSE_SIGNAL: u8 = 255;
/// Messages that may wait per direction before the other side is slowed.
const WAITING: usize = 64;
/// Bytes that may wait in a channel for their reader.
const WAITING_BYTES: usize = 4 << 20;
/// Upstream's largest message (golang.org/x/net/websocket's DefaultMaxPayloadBytes).
const MAX_MESSAGE: usize = 32 << 20;
/// How long the peer may take to answer our close.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Binary,
    Base64,
}

impl Codec {
    pub(crate) fn of(protocol: &str) -> Self {
        if protocol.contains("base64") { Codec::Base64 } else { Codec::Binary }
    }

    fn encode(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Codec::Binary => {
                let mut out = BytesMut::with_capacity(data.len() + 1);
                out.put_u8(channel);
                out.put_slice(data);
                Message::Binary(out.freeze())
            }
            // With many forwarded ports there are channels beyond the digits, and upstream's byte wraps.
            Codec::Base64 => Message::text(format!("{}{}", char::from(b'0'.wrapping_add(channel)), STANDARD.encode(data))),
        }
    }

    fn decode(self, message: Bytes) -> Option<(u8, Bytes)> {
        let channel = *message.first()?;
        match self {
            Codec::Binary => Some((channel, message.slice(1..))),
            Codec::Base64 => Some((channel.wrapping_sub(b'0'), STANDARD.decode(&message[1..]).ok()?.into())),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ChannelWriter {
    channel: u8,
    codec: Codec,
    messages: mpsc::Sender<Message>,
}

impl ChannelWriter {
    pub(crate) async fn write(&mut self, data: Bytes) -> Result<(), StreamClosed> {
        self.messages.send(self.codec.encode(self.channel, &data)).await.map_err(|_| StreamClosed)
    }
}

/// A WebSocket whose channels are set up; the reader and writer run as tasks.
#[derive(Debug)]
pub(crate) struct Channels {
    codec: Codec,
    messages: mpsc::Sender<Message>,
    done: watch::Receiver<bool>,
}

impl Channels {
    /// Starts the tasks. `readable` are the channels that the client may write to; messages on others are dropped.
    pub(crate) fn start<S>(io: WebSocketStream<S>, codec: Codec, readable: &[u8]) -> (Self, Vec<Input>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sink, stream) = io.split();
        let (messages, outgoing) = mpsc::channel(WAITING);
        let (mut senders, mut inputs) = (Vec::new(), Vec::new());
        for channel in readable {
            let (tx, rx) = mpsc::channel(WAITING);
            let room = Arc::new(Semaphore::new(WAITING_BYTES));
            senders.push((*channel, Some((tx, room.clone()))));
            inputs.push(Input(InputKind::WebSocket(rx, room)));
        }
        let (gone, done) = watch::channel(false);
        tokio::spawn(write_all(sink, outgoing, done.clone()));
        tokio::spawn(read_all(stream, codec, senders, gone));
        (Channels { codec, messages, done }, inputs)
    }

    pub(crate) fn output(&self, channel: u8) -> Output {
        Output(OutputKind::WebSocket(ChannelWriter { channel, codec: self.codec, messages: self.messages.clone() }))
    }

    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.done.clone()
    }

    /// Sends the close frame after everything that was written, and waits a little for the peer's.
    pub(crate) async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        if self.messages.send(Message::Close(Some(frame))).await.is_ok() {
            let _ = tokio::time::timeout(CLOSE_WAIT, self.done.wait_for(|done| *done)).await;
        }
    }
}

async fn write_all<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut outgoing: mpsc::Receiver<Message>,
    mut done: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        let message = tokio::select! {
            message = outgoing.recv() => message,
            _ = done.wait_for(|done| *done) => None,
        };
        let Some(message) = message else { break };
        if sink.feed(message).await.is_err() {
            break;
        }
        if outgoing.is_empty() && sink.flush().await.is_err() {
            break;
        }
    }
    let _ = sink.close().await;
}

/// With each, the room for what waits.
type Senders = Vec<(u8, Option<(mpsc::Sender<Bytes>, Arc<Semaphore>)>)>;

async fn read_all<S>(mut stream: SplitStream<WebSocketStream<S>>, codec: Codec, mut senders: Senders, gone: watch::Sender<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    while let Some(Ok(message)) = stream.next().await {
        let payload = match message {
            Message::Binary(data) => data,
            Message::Text(text) => text.into(),
            Message::Close(_) => break,
            _ => continue,
        };
        let Some((channel, data)) = codec.decode(payload) else { continue };
        if channel == CLOSE_SIGNAL {
            end_channel(&mut senders, data.first().copied());
        } else {
            deliver(&mut senders, channel, data).await;
        }
    }
    let _ = gone.send(true);
}

fn end_channel(senders: &mut Senders, channel: Option<u8>) {
    if let Some(entry) = senders.iter_mut().find(|(c, _)| Some(*c) == channel) {
        entry.1 = None;
    }
}

async fn deliver(senders: &mut Senders, channel: u8, data: Bytes) {
    let Some(entry) = senders.iter_mut().find(|(c, _)| *c == channel) else { return };
    let Some((sender, room)) = entry.1.clone() else { return };
    let taken = tokio::select! {
        taken = room.acquire_many(waiting(&data)) => taken.ok(),
        () = sender.closed() => None,
    };
    if let Some(taken) = taken {
        taken.forget();
        if sender.send(data).await.is_ok() {
            return;
        }
    }
    entry.1 = None;
}

/// How much room a message takes while it waits; what is larger than all of it waits alone.
pub(crate) fn waiting(data: &[u8]) -> u32 {
    data.len().min(WAITING_BYTES) as u32
}

/// The server's end of an upgraded connection as a WebSocket.
pub(crate) async fn accept<S>(io: S) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_codecs_carry_the_channel() {
        assert_eq!(Codec::Binary.encode(1, b"hi"), Message::Binary(Bytes::from_static(b"\x01hi")));
        assert_eq!(Codec::Base64.encode(1, b"\n"), Message::text("1Cg=="));
        assert_eq!(Codec::Base64.decode(Bytes::from_static(b"0Zm9vCgo=")), Some((0, Bytes::from_static(b"foo\n\n"))));
        assert_eq!(Codec::Binary.decode(Bytes::from_static(b"\x04{}")), Some((4, Bytes::from_static(b"{}"))));
        assert_eq!(Codec::Binary.decode(Bytes::new()), None);
        assert_eq!(Codec::Base64.decode(Bytes::from_static(b"0*")), None);
    }
}
