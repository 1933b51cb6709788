//! exec and attach: stdin, stdout, stderr, terminal sizes and the final status, over WebSocket channels
//! (`channel.k8s.io`, v4, v5 and the base64 forms) or SPDY streams (v1–v4).

use crate::query;
use crate::spdy::{self, Connection};
use crate::stream::{Input, InputKind, Output, OutputKind};
use crate::upgrade::{self, Refusal, StreamError, Transport, Upgrade};
use crate::websocket::{Channels, Codec, accept};
use bytes::Bytes;
use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

const WEBSOCKET: [&str; 6] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v5.base64.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
const SPDY: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// Upstream's remotecommand.DefaultStreamCreationTimeout.
const CREATION_TIMEOUT: Duration = Duration::from_secs(30);
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Which streams a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Wanted {
    /// Reads both spellings: the kubelet's (`input=1`) and the API's (`stdin=true`). A terminal has no stderr of its own.
    pub fn from_query(pairs: &[(String, String)]) -> Result<Self, Box<Refusal>> {
        let any = |a, b| query::truthy(pairs, a) || query::truthy(pairs, b);
        let tty = query::truthy(pairs, "tty");
        let (stdin, stdout) = (any("input", "stdin"), any("output", "stdout"));
        let stderr = any("error", "stderr") && !tty;
        if !stdin && !stdout && !stderr {
            return Err(upgrade::refuse(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr"));
        }
        Ok(Wanted { stdin, stdout, stderr, tty })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Exited(i32),
    Failed(String),
}

/// An open session. Write the output, then `finish`.
#[derive(Debug)]
pub struct Session {
    pub stdin: Option<Input>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    /// Ends when the client sends no more sizes.
    pub resize: mpsc::Receiver<TerminalSize>,
    /// Turns true when the client is gone.
    pub gone: watch::Receiver<bool>,
    error: Output,
    json_status: bool,
    transport: Held,
}

#[derive(Debug)]
enum Held {
    WebSocket(Channels),
    Spdy(Connection),
}

impl Session {
    /// Sends the status and closes everything, after all that was written.
    pub async fn finish(mut self, outcome: Outcome) {
        if let Some(status) = status_bytes(&outcome, self.json_status) {
            let _ = self.error.write(status).await;
        }
        for output in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            output.close().await;
        }
        self.error.close().await;
        drop((self.stdin, self.stdout, self.stderr, self.error));
        match self.transport {
            Held::WebSocket(channels) => channels.close().await,
            Held::Spdy(connection) => connection.close().await,
        }
    }
}

fn status_bytes(outcome: &Outcome, json_status: bool) -> Option<Bytes> {
    let status = status(outcome);
    if json_status {
        return Some(status.to_string().into());
    }
    // Before v4 only failures were told, as plain text.
    status["message"].as_str().map(|message| Bytes::from(message.to_owned()))
}

fn status(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Exited(0) => json!({"metadata": {}, "status": "Success"}),
        Outcome::Exited(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Outcome::Failed(why) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: {why}"),
            "reason": "InternalError",
            "code": 500,
        }),
    }
}

/// Answers a request for exec or attach.
pub fn serve<B>(request: &mut Request<B>, wanted: Wanted) -> Result<Upgrade<Session>, Box<Refusal>> {
    match upgrade::transport(request.headers())? {
        Transport::WebSocket => {
            let (response, protocol) = upgrade::websocket(request.headers(), &WEBSOCKET)?;
            let upgraded = upgrade::taken(request);
            let session = async move { Ok(over_websocket(TokioIo::new(upgraded.await?), protocol, wanted).await) };
            Ok(Upgrade { response, session: Box::pin(session) })
        }
        Transport::Spdy => {
            let (response, protocol) = upgrade::spdy(request.headers(), &SPDY, true)?;
            let upgraded = upgrade::taken(request);
            let session = async move { over_spdy(TokioIo::new(upgraded.await?), protocol, wanted).await };
            Ok(Upgrade { response, session: Box::pin(session) })
        }
    }
}

/// A session on a connection that is a WebSocket of the protocol already.
pub async fn over_websocket<S>(io: S, protocol: &str, wanted: Wanted) -> Session
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let socket = accept(io).await;
    let (channels, mut inputs) = Channels::start(socket, Codec::of(protocol), &[STDIN, RESIZE]);
    let sizes = inputs.pop();
    let stdin = inputs.pop().filter(|_| wanted.stdin);
    let stdout = wanted.stdout.then(|| channels.output(STDOUT));
    let stderr = wanted.stderr.then(|| channels.output(STDERR));
    let error = channels.output(ERROR);
    // An empty message on the lowest channel tells the client that the session stands.
    let first = if wanted.stdout { STDOUT } else { if wanted.stderr { STDERR } else { ERROR } };
    let _ = channels.output(first).write(Bytes::new()).await;
    let json_status = protocol.starts_with("v4") || protocol.starts_with("v5");
    let gone = channels.closed();
    Session { stdin, stdout, stderr, resize: resizes(sizes), gone, error, json_status, transport: Held::WebSocket(channels) }
}

async fn over_spdy<S>(io: S, protocol: &str, wanted: Wanted) -> Result<Session, StreamError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let version = protocol.strip_prefix('v').and_then(|p| p.get(..1)).and_then(|p| p.parse::<u8>().ok()).unwrap_or(1);
    let expected =
        [true, wanted.stdin, wanted.stdout, wanted.stderr, wanted.tty && version >= 3].into_iter().filter(|is_wanted| *is_wanted).count();
    let (connection, mut incoming) = Connection::serve(io);
    let collecting = tokio::time::timeout(CREATION_TIMEOUT, collect(&mut incoming, expected)).await;
    let mut streams = collecting.map_err(|_| StreamError::StreamsMissing)??;
    // Later streams are nobody's; the receiver must go on being read so that the connection does not stall.
    tokio::spawn(async move { while incoming.recv().await.is_some() {} });
    let mut take = |kind: &str| streams.iter().position(|s| s.header("streamtype") == kind).map(|at| streams.swap_remove(at));
    let error = take("error").map(output).ok_or(StreamError::StreamsMissing)?;
    let (stdin, stdout, stderr) = (take("stdin").map(input), take("stdout").map(output), take("stderr").map(output));
    let sizes = take("resize").map(input);
    let gone = connection.closed();
    Ok(Session { stdin, stdout, stderr, resize: resizes(sizes), gone, error, json_status: version >= 4, transport: Held::Spdy(connection) })
}

async fn collect(incoming: &mut mpsc::Receiver<spdy::Stream>, expected: usize) -> Result<Vec<spdy::Stream>, StreamError> {
    let mut streams = Vec::with_capacity(expected);
    while streams.len() < expected {
        streams.push(incoming.recv().await.ok_or(StreamError::Closed)?);
    }
    Ok(streams)
}

fn input(stream: spdy::Stream) -> Input {
    Input(InputKind::Spdy(stream.reader))
}

fn output(stream: spdy::Stream) -> Output {
    Output(OutputKind::Spdy(stream.writer))
}

/// Sizes are JSON documents one after another, `{"Width":80,"Height":24}`, not aligned with messages.
fn resizes(input: Option<Input>) -> mpsc::Receiver<TerminalSize> {
    let (sizes, receiver) = mpsc::channel(8);
    if let Some(mut input) = input {
        tokio::spawn(async move {
            let mut buffer = Vec::new();
            while let Some(chunk) = input.read().await {
                buffer.extend_from_slice(&chunk);
                for size in drain_sizes(&mut buffer) {
                    if sizes.send(size).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
    receiver
}

fn drain_sizes(buffer: &mut Vec<u8>) -> Vec<TerminalSize> {
    const MAX_WAITING: usize = 4096;
    let mut documents = serde_json::Deserializer::from_slice(buffer).into_iter::<Value>();
    let mut sizes = Vec::new();
    let mut failed = false;
    for document in documents.by_ref() {
        match document {
            Ok(value) => {
                let side = |name: &str| value[name].as_u64().unwrap_or(0).min(u64::from(u16::MAX)) as u16;
                sizes.push(TerminalSize { width: side("Width"), height: side("Height") });
            }
            Err(error) => {
                failed = !error.is_eof();
                break;
            }
        }
    }
    let used = documents.byte_offset();
    buffer.drain(..used);
    if failed || buffer.len() > MAX_WAITING {
        buffer.clear();
    }
    sizes
}

#[cfg(test)]
mod tests;
