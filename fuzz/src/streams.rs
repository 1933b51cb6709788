//! What comes on connections that were upgraded: SPDY frames, and the channels of a WebSocket, each read by a session that takes everything.

use std::time::Duration;

use tiphys_streaming::remotecommand::{self, Wanted};
use tiphys_streaming::spdy::{Connection, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()
        .unwrap_or_else(|why| panic!("no runtime: {why}"));
}

/// The client hangs up when it has sent all, which ends every session.
const AT_AN_END: Duration = Duration::from_secs(20);

/// SYN_STREAM frames of two streams as a client in Go writes them, with data, a ping, settings, window updates and a goodbye.
pub(crate) fn spdy_seeds() -> Vec<Vec<u8>> {
    let control = |kind: u8, payload: &[u8]| [&[0x80, 3, 0, kind, 0, 0, 0, payload.len() as u8], payload].concat();
    let data = |stream: u8, fin: u8, payload: &[u8]| [&[0, 0, 0, stream, fin, 0, 0, payload.len() as u8], payload].concat();
    let open = |stream: u8| control(1, &[&[0, 0, 0, stream, 0, 0, 0, 0, 0, 0], STORED].concat());
    let settings = control(4, &[0, 0, 0, 1, 0, 0, 0, 7, 0, 1, 0, 0]);
    let window = control(9, &[0, 0, 0, 1, 0, 0, 1, 0]);
    vec![
        [open(1), data(1, 0, b"hello"), data(1, 1, b""), control(7, &[0, 0, 0, 1, 0, 0, 0, 0])].concat(),
        [settings, open(1), window, control(6, &[0, 0, 0, 1]), control(3, &[0, 0, 0, 1, 0, 0, 0, 5])].concat(),
        control(8, &[0, 0, 0, 1]),
    ]
}

/// A zlib stream of one stored block (RFC 1950, 1951): one pair, `streamtype: data`.
const STORED: &[u8] = b"\x78\x01\x00\x1a\x00\xe5\xff\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x04data";

pub(crate) const SPDY: &[&str] =
    &["\u{0}\u{0}\u{0}\u{1}", "\u{3}\u{0}\u{1}", "\u{3}\u{0}\u{9}", "\u{7f}\u{7f}\u{7f}", "streamtype", "\u{0}\u{0}\u{0}\u{a}"];

pub(crate) fn spdy(bytes: &[u8]) -> bool {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (client, server) = tokio::io::duplex(64 * 1024);
            let (connection, mut streams) = Connection::serve(server);
            let sending = tokio::spawn(sent(client, bytes.to_vec()));
            let mut read = false;
            let taking = async {
                while let Some(stream) = streams.recv().await {
                    read = true;
                    tokio::spawn(drained(stream));
                }
            };
            tokio::time::timeout(AT_AN_END, taking).await.unwrap_or_else(|_| panic!("no end"));
            drop(connection);
            let _ = sending.await;
            read
        })
    })
}

async fn drained(mut stream: Stream) {
    while let Some(data) = stream.reader.read().await {
        if stream.writer.write(data).await.is_err() {
            return;
        }
    }
    stream.writer.close().await;
}

/// A client that sends and takes all, and hangs up when it has.
async fn sent(client: tokio::io::DuplexStream, bytes: Vec<u8>) {
    let (mut reader, mut writer) = tokio::io::split(client);
    let took = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
    });
    let _ = writer.write_all(&bytes).await;
    let _ = writer.shutdown().await;
    drop(writer);
    let _ = took.await;
}

/// Masked frames (RFC 6455 §5.2), the mask zero: stdin, a size, the signal that stdin ends, a ping, a close.
pub(crate) fn websocket_seeds() -> Vec<Vec<u8>> {
    let frame = |opcode: u8, payload: &[u8]| [&[0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat();
    vec![
        [frame(2, b"\0hello"), frame(2, b"\x04{\"Width\":80,\"Height\":24}"), frame(2, b"\xff\0"), frame(8, b"\x03\xe8")].concat(),
        [frame(9, b"x"), frame(1, b"0aGk="), frame(2, b""), frame(0, b"a")].concat(),
    ]
}

pub(crate) const WEBSOCKET: &[&str] = &["\u{2}\u{0}", "\u{4}{\"Width\":", "\u{7f}\u{7f}", "0aGk=", "{}", "\u{0}\u{0}\u{0}\u{0}"];

pub(crate) fn websocket(bytes: &[u8]) -> bool {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let mut read = false;
            for protocol in ["v5.channel.k8s.io", "v4.base64.channel.k8s.io"] {
                let (client, server) = tokio::io::duplex(64 * 1024);
                let wanted = Wanted { stdin: true, stdout: true, stderr: false, tty: true };
                let sending = tokio::spawn(sent(client, bytes.to_vec()));
                let mut session = remotecommand::over_websocket(server, protocol, wanted).await;
                let taking = async {
                    let Some(stdin) = &mut session.stdin else { return };
                    while stdin.read().await.is_some() {
                        read = true;
                    }
                    while session.resize.recv().await.is_some() {}
                };
                tokio::time::timeout(AT_AN_END, taking).await.unwrap_or_else(|_| panic!("no end"));
                drop(session);
                let _ = sending.await;
            }
            read
        })
    })
}
