//! Logs over a WebSocket, the API server's side (`binary.k8s.io`, `base64.binary.k8s.io`): messages without channels.

use crate::stream::StreamClosed;
use crate::upgrade::{self, Refusal, StreamError, Upgrade};
use crate::websocket::accept;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

const PROTOCOLS: [&str; 2] = ["binary.k8s.io", "base64.binary.k8s.io"];

/// Takes log bytes until closed or the client is gone.
#[derive(Debug)]
pub struct LogSink {
    base64: bool,
    messages: mpsc::Sender<Message>,
    gone: watch::Receiver<bool>,
}

impl LogSink {
    pub async fn write(&mut self, data: Bytes) -> Result<(), StreamClosed> {
        let message = if self.base64 { Message::text(STANDARD.encode(&data)) } else { Message::Binary(data) };
        self.messages.send(message).await.map_err(|_| StreamClosed)
    }

    /// Resolves when the client hung up.
    pub async fn closed(&mut self) {
        let _ = self.gone.wait_for(|gone| *gone).await;
    }
}

/// Answers a WebSocket request for logs.
pub fn accept_logs<B>(request: &mut Request<B>) -> Result<Upgrade<LogSink>, Box<Refusal>> {
    let (response, protocol) = upgrade::websocket(request.headers(), &PROTOCOLS)?;
    let upgraded = upgrade::taken(request);
    let session = Box::pin(async move { Ok::<_, StreamError>(sink(upgraded.await?, protocol.contains("base64")).await) });
    Ok(Upgrade { response, session })
}

async fn sink(io: hyper::upgrade::Upgraded, base64: bool) -> LogSink {
    let (mut out, mut from) = accept(TokioIo::new(io)).await.split();
    let (messages, mut outgoing) = mpsc::channel::<Message>(16);
    let (gone_tx, gone) = watch::channel(false);
    tokio::spawn(async move {
        while let Some(message) = outgoing.recv().await {
            if out.send(message).await.is_err() {
                return;
            }
        }
        let _ = out.send(Message::Close(None)).await;
        let _ = out.close().await;
    });
    tokio::spawn(async move {
        while let Some(Ok(message)) = from.next().await {
            if message.is_close() {
                break;
            }
        }
        let _ = gone_tx.send(true);
    });
    LogSink { base64, messages, gone }
}
