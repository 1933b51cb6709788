//! Sessions from the client's side: hyper serves over a pipe, tungstenite speaks.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tiphys_streaming::remotecommand::{self, Outcome, Wanted};
use tiphys_streaming::{portforward, query};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

async fn answer(mut request: Request<Incoming>) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let pairs = query::pairs(request.uri().query().unwrap_or_default());
    let response = if request.uri().path() == "/exec" { exec(&mut request, &pairs) } else { forward(&mut request, &pairs) };
    Ok(response.unwrap_or_else(|refusal| *refusal))
}

type Answer = Result<http::Response<Full<Bytes>>, Box<tiphys_streaming::Refusal>>;

/// Echoes, tells terminal sizes on stderr's channel or stdout's, ends with 3.
fn exec(request: &mut Request<Incoming>, pairs: &[(String, String)]) -> Answer {
    let upgrade = remotecommand::serve(request, Wanted::from_query(pairs)?)?;
    tokio::spawn(async move {
        let mut session = upgrade.session.await.expect("a session");
        let mut stdin = session.stdin.take().expect("stdin was asked for");
        while let Some(chunk) = stdin.read().await {
            session.stdout.as_mut().expect("stdout was asked for").write(chunk).await.expect("the client reads");
        }
        if let Ok(size) = session.resize.try_recv() {
            let text = format!("{}x{}", size.width, size.height);
            session.stdout.as_mut().expect("stdout").write(text.into()).await.expect("the client reads");
        }
        session.finish(Outcome::Exited(3)).await;
    });
    Ok(upgrade.response)
}

/// Answers each connection with its port and what was said.
fn forward(request: &mut Request<Incoming>, pairs: &[(String, String)]) -> Answer {
    let upgrade = portforward::serve(request, pairs)?;
    tokio::spawn(async move {
        let mut session = upgrade.session.await.expect("a session");
        while let Some(mut forward) = session.next().await {
            tokio::spawn(async move {
                let said = forward.from_client.read().await.unwrap_or_default();
                let text = format!("{}: {}", forward.port, String::from_utf8_lossy(&said));
                forward.to_client.write(text.into()).await.expect("the client reads");
                forward.finish(Err("over".into())).await;
            });
        }
    });
    Ok(upgrade.response)
}

async fn connect(target: &str, protocol: &'static str) -> Result<WebSocketStream<DuplexStream>, String> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let builder = hyper::server::conn::http1::Builder::new();
        builder.serve_connection(TokioIo::new(theirs), service_fn(answer)).with_upgrades().await
    });
    let mut request = format!("ws://node{target}").into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a header"));
    tokio_tungstenite::client_async(request, ours).await.map(|(socket, _)| socket).map_err(|e| e.to_string())
}

async fn all(mut socket: WebSocketStream<DuplexStream>) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_binary() || message.is_text() {
            messages.push(message.into_data().to_vec());
        }
    }
    messages
}

fn binary(data: &'static [u8]) -> Message {
    Message::Binary(Bytes::from_static(data))
}

#[tokio::test]
async fn exec_over_v5_ends_stdin_and_tells_the_exit_code() {
    let mut socket = connect("/exec?stdin=true&stdout=true&tty=true", "v5.channel.k8s.io").await.expect("accepted");
    socket.send(binary(b"\x04{\"Width\":80,\"Height\":24}")).await.expect("sent");
    socket.send(binary(b"\x00hello")).await.expect("sent");
    socket.send(binary(b"\xff\x00")).await.expect("sent");
    let got = all(socket).await;
    assert_eq!(got[0], b"\x01", "an empty message tells that the session stands");
    assert_eq!(got[1], b"\x01hello");
    assert_eq!(got[2], b"\x0180x24");
    assert_eq!(got[3][0], 3);
    let status: serde_json::Value = serde_json::from_slice(&got[3][1..]).expect("a status");
    assert_eq!(status["details"]["causes"][0]["message"], "3");
}

#[tokio::test]
async fn unknown_protocols_are_refused() {
    let error = connect("/exec?stdin=true&stdout=true", "v9.channel.k8s.io").await.expect_err("refused");
    assert!(error.contains("403"), "{error}");
    let error = connect("/exec", "v5.channel.k8s.io").await.expect_err("refused");
    assert!(error.contains("400"), "{error}");
}

#[tokio::test]
async fn ports_have_two_channels_each() {
    let mut socket = connect("/forward?ports=80&ports=8080", "v4.channel.k8s.io").await.expect("accepted");
    socket.send(binary(b"\x02hi")).await.expect("sent");
    socket.send(binary(b"\x00ho")).await.expect("sent");
    let mut got = Vec::new();
    while got.len() < 8 {
        match socket.next().await {
            Some(Ok(message)) if message.is_binary() => got.push(message.into_data().to_vec()),
            _ => break,
        }
    }
    got.sort();
    let expected: [&[u8]; 8] =
        [b"\x0080: ho", b"\x00P\x00", b"\x01P\x00", b"\x01over", b"\x028080: hi", b"\x02\x90\x1f", b"\x03over", b"\x03\x90\x1f"];
    assert_eq!(got, expected);
}
