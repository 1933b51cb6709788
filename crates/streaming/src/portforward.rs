//! port-forward: pairs of a data and an error stream per connection, over SPDY (`portforward.k8s.io`), over SPDY in a
//! WebSocket (`SPDY/3.1+portforward.k8s.io`), or over WebSocket channels (`v4.channel.k8s.io`: 2n data, 2n+1 error).

use crate::query;
use crate::spdy::{self, Connection};
use crate::stream::{Input, InputKind, Output, OutputKind};
use crate::tunnel;
use crate::upgrade::{self, Refusal, StreamError, Transport, Upgrade};
use crate::websocket::{Channels, Codec, accept};
use bytes::Bytes;
use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

const SPDY: [&str; 1] = ["portforward.k8s.io"];
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const WEBSOCKET: [&str; 3] = [TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
const MAX_WAITING_PAIRS: usize = 1024;

/// One forwarded connection: copy both ways, then `finish`.
#[derive(Debug)]
pub struct Forward {
    pub port: u16,
    pub from_client: Input,
    pub to_client: Output,
    error: Output,
    _alive: Arc<Held>,
}

impl Forward {
    /// Ends the pair; the error is told on the error stream, and breaks the data stream.
    pub async fn finish(mut self, result: Result<(), String>) {
        if let Err(why) = result {
            let _ = self.error.write(Bytes::from(why)).await;
            self.to_client.reset().await;
        }
        self.to_client.close().await;
        self.error.close().await;
    }
}

/// The connection that pairs come from.
#[derive(Debug)]
pub struct Session {
    forwards: mpsc::Receiver<Forward>,
    pub gone: watch::Receiver<bool>,
}

impl Session {
    /// The next connection that the client forwards; `None` when the client is gone.
    pub async fn next(&mut self) -> Option<Forward> {
        self.forwards.recv().await
    }
}

#[derive(Debug)]
enum Held {
    Spdy(#[allow(dead_code, reason = "held so that the connection lives as long as its streams")] Connection),
    WebSocket(#[allow(dead_code, reason = "held so that the connection lives as long as its streams")] Channels),
}

/// Answers a request for port-forward. `pairs` is the query; WebSocket channels name their ports there.
pub fn serve<B>(request: &mut Request<B>, pairs: &[(String, String)]) -> Result<Upgrade<Session>, Box<Refusal>> {
    match upgrade::transport(request.headers())? {
        Transport::Spdy => {
            let (response, _) = upgrade::spdy(request.headers(), &SPDY, false)?;
            let upgraded = upgrade::taken(request);
            let session = async move { Ok::<_, StreamError>(over_spdy(TokioIo::new(upgraded.await?))) };
            Ok(Upgrade { response, session: Box::pin(session) })
        }
        Transport::WebSocket => {
            let (response, protocol) = upgrade::websocket(request.headers(), &WEBSOCKET)?;
            let ports = if protocol == TUNNEL { Vec::new() } else { ports(pairs)? };
            let upgraded = upgrade::taken(request);
            let session = async move {
                let socket = accept(TokioIo::new(upgraded.await?)).await;
                if protocol == TUNNEL {
                    return Ok::<_, StreamError>(over_spdy(tunnel::bytes_of(socket)));
                }
                let readable: Vec<u8> = (0..ports.len() as u8).map(|n| 2 * n).collect();
                let (channels, inputs) = Channels::start(socket, Codec::of(protocol), &readable);
                Ok(over_channels(channels, inputs, &ports).await)
            };
            Ok(Upgrade { response, session: Box::pin(session) })
        }
    }
}

fn ports(pairs: &[(String, String)]) -> Result<Vec<u16>, Box<Refusal>> {
    let bad = |why: String| upgrade::refuse(StatusCode::BAD_REQUEST, why);
    let given: Vec<&str> = [query::all(pairs, "port"), query::all(pairs, "ports")].concat();
    if given.is_empty() {
        return Err(bad("query parameter \"port\" is required".into()));
    }
    let mut ports = Vec::new();
    for text in given.iter().flat_map(|text| text.split(',')) {
        match text.parse::<u16>() {
            Ok(0) => return Err(bad(format!("port {text:?} must be > 0"))),
            Ok(port) => ports.push(port),
            Err(_) if text.is_empty() => return Err(bad("query parameter \"port\" cannot be empty".into())),
            Err(error) => return Err(bad(format!("unable to parse {text:?} as a port: {error}"))),
        }
    }
    if ports.len() > 127 {
        return Err(bad("too many ports".into()));
    }
    Ok(ports)
}

async fn over_channels(channels: Channels, inputs: Vec<Input>, ports: &[u16]) -> Session {
    let gone = channels.closed();
    let outputs: Vec<_> = (0..ports.len() as u8).map(|n| (channels.output(2 * n), channels.output(2 * n + 1))).collect();
    let held = Arc::new(Held::WebSocket(channels));
    let (sender, forwards) = mpsc::channel(ports.len().max(1));
    for ((port, from_client), (mut to_client, mut error)) in ports.iter().zip(inputs).zip(outputs) {
        let told = Bytes::copy_from_slice(&port.to_le_bytes());
        let _ = to_client.write(told.clone()).await;
        let _ = error.write(told).await;
        let _ = sender.send(Forward { port: *port, from_client, to_client, error, _alive: held.clone() }).await;
    }
    Session { forwards, gone }
}

fn over_spdy<S>(io: S) -> Session
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (connection, incoming) = Connection::serve(io);
    let gone = connection.closed();
    let (sender, forwards) = mpsc::channel(16);
    tokio::spawn(pair_up(incoming, Arc::new(Held::Spdy(connection)), sender));
    Session { forwards, gone }
}

async fn pair_up(mut incoming: mpsc::Receiver<spdy::Stream>, held: Arc<Held>, sender: mpsc::Sender<Forward>) {
    let mut waiting: HashMap<String, spdy::Stream> = HashMap::new();
    while let Some(mut stream) = incoming.recv().await {
        let Some((port, id)) = identify(&stream) else {
            stream.writer.reset().await;
            continue;
        };
        let Some(other) = waiting.remove(&id) else {
            if waiting.len() < MAX_WAITING_PAIRS {
                waiting.insert(id, stream);
            } else {
                stream.writer.reset().await;
            }
            continue;
        };
        let (data, error) = if stream.header("streamtype") == "data" { (stream, other) } else { (other, stream) };
        let forward = Forward {
            port,
            from_client: Input(InputKind::Spdy(data.reader)),
            to_client: Output(OutputKind::Spdy(data.writer)),
            error: Output(OutputKind::Spdy(error.writer)),
            _alive: held.clone(),
        };
        if sender.send(forward).await.is_err() {
            return;
        }
    }
}

/// The port and the request id of a stream. Clients before request ids open error and data with ids n and n+2.
fn identify(stream: &spdy::Stream) -> Option<(u16, String)> {
    let port: u16 = stream.header("port").parse().ok().filter(|port| *port > 0)?;
    let id = stream.header("requestid");
    match (stream.header("streamtype"), id.is_empty()) {
        ("error" | "data", false) => Some((port, id.to_owned())),
        ("error", true) => Some((port, stream.id.to_string())),
        ("data", true) => Some((port, stream.id.checked_sub(2)?.to_string())),
        _ => None,
    }
}
