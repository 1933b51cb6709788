//! Clients that mean harm are stopped at a limit, and others do not notice.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tiphys_base::pki::Use;
use tiphys_base::tls;
use tiphys_meta::Gvr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::cluster::Cluster;

/// Whatever is done to a server, others are answered within this; it is long because test machines are slow.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

async fn connect(cluster: &Cluster, protocol: &[u8]) -> TlsStream<TcpStream> {
    connect_as(cluster, protocol, "admin", &["system:masters"]).await
}

async fn connect_as(cluster: &Cluster, protocol: &[u8], user: &str, groups: &[&str]) -> TlsStream<TcpStream> {
    let id = cluster.issue(user, groups, Use::Client);
    let mut config = tls::client(tls::ServerTrust::Ca(cluster.ca.cert_pem().as_bytes()), Some(&id)).expect("TLS");
    config.alpn_protocols = vec![protocol.to_vec()];
    let socket = TcpStream::connect(cluster.running.address()).await.expect("connected");
    let name = "127.0.0.1".try_into().expect("name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("TLS")
}

/// The head of the answer to a body of HTTP/1.1, and how much of the body was sent until it came.
async fn post(cluster: &Cluster, content_type: &str, length: usize, body: impl Iterator<Item = Vec<u8>>) -> (String, usize) {
    let stream = connect(cluster, b"http/1.1").await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let head = format!(
        "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut sent = 0;
    let send = async {
        writer.write_all(head.as_bytes()).await.expect("the head is taken");
        for piece in body {
            if writer.write_all(&piece).await.is_err() {
                return;
            }
            sent += piece.len();
        }
        let _ = writer.flush().await;
        std::future::pending::<()>().await;
    };
    let receive = async {
        let mut answer = vec![0; 4096];
        let read = reader.read(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    let answer = tokio::time::timeout(ANSWERED_WITHIN, async {
        tokio::pin!(send, receive);
        tokio::select! {
            answer = &mut receive => answer,
            () = &mut send => receive.await,
        }
    });
    (answer.await.expect("answered in time"), sent)
}

async fn others_are_answered(cluster: &Cluster) {
    let client = cluster.running.loopback_client();
    let namespaces = Gvr::new("", "v1", "namespaces");
    let answered = tokio::time::timeout(ANSWERED_WITHIN, client.get_value(&namespaces, "", "default")).await;
    answered.expect("in time").expect("an answer");
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_when_three_have_come() {
    const LENGTH: usize = 100_000_000;
    let cluster = Cluster::start().await;
    let piece = vec![b' '; 1 << 16];
    let (answer, sent) = post(&cluster, "application/json", LENGTH, std::iter::repeat_n(piece, LENGTH >> 16)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // What was on its way when the answer came stands in the buffers of sockets.
    assert!(sent < LENGTH / 2, "{sent} bytes were taken");
    others_are_answered(&cluster).await;
}

#[tokio::test]
async fn bombs_are_refused() {
    let cluster = Cluster::start().await;
    let mut laughs = String::from("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\na: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let ten = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs += &format!("b{i}: &a{i} [{ten}]\n");
    }
    let deep = 1_000_000;
    let nested = |open: &str, close: &str| format!("{{\"metadata\": {}{}}}", open.repeat(deep), close.repeat(deep));
    for (what, content_type, body) in [
        ("aliases", "application/yaml", laughs),
        ("lists in YAML", "application/yaml", nested("[", "]")),
        ("blocks in YAML", "application/yaml", "- ".repeat(deep)),
        ("lists in JSON", "application/json", nested("[", "]")),
        ("maps in JSON", "application/json", "{\"a\":".repeat(deep / 5)),
    ] {
        let (answer, _) = post(&cluster, content_type, body.len(), std::iter::once(body.into_bytes())).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 413 "), "{what}: {answer}");
        others_are_answered(&cluster).await;
    }
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET path` by HPACK's static table (RFC 7541, appendix A) and literals without Huffman coding.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).expect("short");
    let block = [&[0x82, 0x87, 0x04, length(path)], path.as_bytes(), &[0x01, 1, b'x']].concat();
    frame(1, 0x5, stream, &block)
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: [u8; 4] = 11u32.to_be_bytes();

/// The head of a `POST path` of so many bytes, which come later or never.
fn post_head(stream: u32, path: &str, length: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    // Static names: :path is 4, :authority 1, content-length 28 (a literal's index has four bits, and goes on in the next byte).
    let block = [&[0x83, 0x87, 0x04][..], &text(path), &[0x01], &text("x"), &[0x0f, 0x0d], &text(length)].concat();
    frame(1, 0x4, stream, &block)
}

/// The error code of GOAWAY, when that comes.
async fn goaway(mut reader: impl AsyncReadExt + Unpin) -> Option<[u8; 4]> {
    loop {
        let mut head = [0; 9];
        reader.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        reader.read_exact(&mut payload).await.ok()?;
        if head[3] == GOAWAY {
            return payload.get(4..8)?.try_into().ok();
        }
    }
}

/// CVE-2023-44487: streams that are opened and reset at once count as long as they are work.
#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let cluster = Cluster::start().await;
    let (reader, mut writer) = tokio::io::split(connect(&cluster, b"h2").await);
    let told = tokio::spawn(goaway(reader));
    writer.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.expect("begun");
    let attack = async {
        for round in 0..100 {
            let pair = |i: u32| [get(i, "/api/v1/namespaces"), frame(3, 0, i, &8u32.to_be_bytes())].concat();
            let burst: Vec<u8> = (0..2000).flat_map(|i| pair(2 * (round * 2000 + i) + 1)).collect();
            if writer.write_all(&burst).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    };
    let (_, ()) = tokio::join!(attack, others_are_answered(&cluster));
    let code = tokio::time::timeout(ANSWERED_WITHIN, told).await.expect("ended in time").expect("no panic");
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    others_are_answered(&cluster).await;
}

/// A client that asks for much and takes nothing holds up nobody else.
#[tokio::test]
async fn slow_readers_hold_up_nobody() {
    let cluster = Cluster::start().await;
    let client = cluster.running.loopback_client();
    let maps = Gvr::new("", "v1", "configmaps");
    for i in 0..20 {
        let object = json!({"metadata": {"name": format!("m{i}")}, "data": {"a": "x".repeat(500_000)}});
        client.create_value(&maps, "default", &object).await.expect("created");
    }
    let mut stuck = connect(&cluster, b"h2").await;
    // SETTINGS_INITIAL_WINDOW_SIZE (4) is 1: each answer may send one byte.
    stuck.write_all(&[PREFACE, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 1])].concat()).await.expect("begun");
    for i in 0..200 {
        stuck.write_all(&get(2 * i + 1, "/api/v1/configmaps")).await.expect("asked");
    }
    stuck.flush().await.expect("sent");
    for _ in 0..20 {
        others_are_answered(&cluster).await;
    }
    drop(stuck);
}

/// Heads without bodies: whoever sends slowly waits for himself, and takes no seat of those who share his priority level.
#[tokio::test]
async fn slow_writers_hold_up_nobody() {
    let cluster = Cluster::start().await;
    let mut slow = connect_as(&cluster, b"h2", "slow", &[]).await;
    let heads = (0..900).map(|i| post_head(2 * i + 1, "/api/v1/namespaces/default/configmaps", "1000"));
    slow.write_all(&[PREFACE.to_vec(), frame(4, 0, 0, &[]), heads.collect::<Vec<_>>().concat()].concat()).await.expect("begun");
    slow.flush().await.expect("sent");
    let mut other = connect_as(&cluster, b"http/1.1", "other", &[]).await;
    for _ in 0..5 {
        let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
        let head = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nHost: x\r\nContent-Type: application/json";
        other.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{review}", review.len()).as_bytes()).await.expect("asked");
        let mut answer = vec![0; 4096];
        let read = tokio::time::timeout(ANSWERED_WITHIN, other.read(&mut answer)).await.expect("in time").expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    }
    drop(slow);
}

/// CVE-2024-27316 and its kin: a head that never ends.
#[tokio::test]
async fn continuations_without_end_end_the_connection() {
    let cluster = Cluster::start().await;
    let (mut reader, mut writer) = tokio::io::split(connect(&cluster, b"h2").await);
    let ended = tokio::spawn(async move {
        let mut taken = vec![0; 4096];
        while matches!(reader.read(&mut taken).await, Ok(1..)) {}
    });
    // `a: b…` as a literal that is not indexed (RFC 7541 §6.2.2), in pieces without END_HEADERS.
    let piece = [&[0, 1, b'a', 100][..], &[b'b'; 100]].concat().repeat(100);
    let begun = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 0x1, 1, &[0x82, 0x87])].concat();
    let mut sent = 0;
    let flood = async {
        writer.write_all(&begun).await?;
        loop {
            writer.write_all(&frame(9, 0, 1, &piece)).await?;
            writer.flush().await?;
            sent += piece.len();
            assert!(sent < 200 << 20, "200 MiB of headers were taken");
        }
    };
    let (outcome, ()): (std::io::Result<()>, ()) = tokio::join!(flood, others_are_answered(&cluster));
    assert!(outcome.is_err());
    tokio::time::timeout(ANSWERED_WITHIN, ended).await.expect("ended in time").expect("no panic");
    others_are_answered(&cluster).await;
}

/// Before TLS, after it, and with half a head.
#[tokio::test]
async fn idle_connections_hold_up_nobody() {
    let cluster = Cluster::start().await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(TcpStream::connect(cluster.running.address()).await.expect("connected"));
    }
    let mut half = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(&cluster, b"http/1.1").await;
        stream.write_all(b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nA: ").await.expect("begun");
        stream.flush().await.expect("sent");
        half.push(stream);
    }
    others_are_answered(&cluster).await;
    let (answer, _) = post(&cluster, "application/json", 2, std::iter::once(b"{}".to_vec())).await;
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
}

/// Three MiB that would be hundreds as a tree, and patches that multiply.
#[tokio::test]
async fn what_grows_when_it_is_read_is_refused() {
    let cluster = Cluster::start().await;
    let filled = |open: &str, piece: &str, close: &str| format!("{open}{}{close}", vec![piece; 700_000].join(","));
    let aliases = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 50_000].join(", "));
    for (what, content_type, body) in [
        ("owners", "application/json", filled(r#"{"metadata":{"ownerReferences":["#, "{}", "]}}")),
        ("long texts by aliases", "application/yaml", aliases),
    ] {
        let (answer, _) = post(&cluster, content_type, body.len(), std::iter::once(body.into_bytes())).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") || answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        others_are_answered(&cluster).await;
    }
    let client = cluster.running.loopback_client();
    let maps = Gvr::new("", "v1", "configmaps");
    client.create_value(&maps, "default", &json!({"metadata": {"name": "m"}, "data": {"a": "x".repeat(1000)}})).await.expect("created");
    let operations: Vec<_> = (0..64).map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data/{i}")})).collect();
    let body = serde_json::Value::from(operations).to_string();
    let mut stream = connect(&cluster, b"http/1.1").await;
    let head = "PATCH /api/v1/namespaces/default/configmaps/m HTTP/1.1\r\nHost: x\r\nContent-Type: application/json-patch+json";
    stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.expect("asked");
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(ANSWERED_WITHIN, stream.read(&mut answer)).await.expect("in time").expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
}
