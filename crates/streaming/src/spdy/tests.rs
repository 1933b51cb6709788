use super::*;
use tokio::io::DuplexStream;

struct Peer {
    io: DuplexStream,
    encoder: HeaderEncoder,
    decoder: HeaderDecoder,
}

impl Peer {
    async fn send(&mut self, frame: Frame) {
        let mut wire = BytesMut::new();
        frame::write(&frame, &mut self.encoder, &mut wire);
        self.io.write_all(&wire).await.expect("the server reads");
    }

    async fn receive(&mut self) -> Frame {
        frame::read(&mut self.io, &mut self.decoder).await.expect("a frame")
    }

    async fn open(&mut self, stream: u32) {
        self.send(Frame::SynStream { stream, fin: false, headers: vec![("streamType".into(), "data".into())] }).await;
        assert_eq!(self.receive().await, Frame::SynReply { stream, fin: false, headers: vec![] });
    }
}

fn start() -> (Peer, Connection, mpsc::Receiver<Stream>) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (connection, streams) = Connection::serve(ours);
    (Peer { io: theirs, encoder: HeaderEncoder::new(), decoder: HeaderDecoder::new() }, connection, streams)
}

#[tokio::test]
async fn streams_that_have_ended_are_forgotten_and_too_many_are_refused() {
    let (mut peer, connection, mut streams) = start();
    peer.open(1).await;
    let mut stream = streams.recv().await.expect("a stream");
    peer.send(Frame::Data { stream: 1, fin: true, data: Bytes::new() }).await;
    assert_eq!(stream.reader.read().await, None);
    stream.writer.close().await;
    assert_eq!(peer.receive().await, Frame::Data { stream: 1, fin: true, data: Bytes::new() });
    assert!(connection.shared.streams().is_empty());

    let consumed = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(stream) = streams.recv().await {
            all.push(stream);
        }
        all.len()
    });
    for i in 0..MAX_STREAMS as u32 {
        peer.open(2 * i + 1).await;
    }
    peer.send(Frame::SynStream { stream: 99_999, fin: false, headers: vec![] }).await;
    assert_eq!(peer.receive().await, Frame::Reset { stream: 99_999, status: REFUSED_STREAM });
    drop(peer);
    assert_eq!(consumed.await.expect("no panic"), MAX_STREAMS);
}

/// Clients without windows send as they like: what nobody reads is bounded in bytes, however large its frames are.
#[tokio::test(start_paused = true)]
async fn what_is_not_read_stops_the_sender() {
    let (mut peer, _connection, mut streams) = start();
    peer.open(1).await;
    let mut stream = streams.recv().await.expect("a stream");
    let piece = Bytes::from(vec![7; 1 << 20]);
    let mut sent = 0;
    let sending = async {
        loop {
            peer.send(Frame::Data { stream: 1, fin: false, data: piece.clone() }).await;
            sent += 1;
        }
    };
    // With no timers running, time goes on when nothing else does.
    let stuck = tokio::time::timeout(Duration::from_secs(3600), sending).await;
    assert!(stuck.is_err() && sent <= 7, "{sent} MiB were taken");
    let mut read = 0;
    while read < 4 << 20 {
        read += stream.reader.read().await.expect("data").len();
    }
}

#[tokio::test]
async fn a_stream_carries_data_both_ways_and_ends() {
    let (mut peer, connection, mut streams) = start();
    peer.open(1).await;
    let mut stream = streams.recv().await.expect("a stream");
    assert_eq!(stream.header("streamtype"), "data");
    peer.send(Frame::Data { stream: 1, fin: true, data: Bytes::from_static(b"ping") }).await;
    assert_eq!(stream.reader.read().await.as_deref(), Some(&b"ping"[..]));
    assert_eq!(stream.reader.read().await, None);
    stream.writer.write(Bytes::from_static(b"pong")).await.expect("open");
    stream.writer.close().await;
    assert_eq!(peer.receive().await, Frame::Data { stream: 1, fin: false, data: Bytes::from_static(b"pong") });
    assert_eq!(peer.receive().await, Frame::Data { stream: 1, fin: true, data: Bytes::new() });
    peer.send(Frame::Ping { id: 1 }).await;
    assert_eq!(peer.receive().await, Frame::Ping { id: 1 });
    let closing = tokio::spawn(connection.close());
    assert_eq!(peer.receive().await, Frame::GoAway { last: 1 });
    drop(peer);
    closing.await.expect("closed");
}

#[tokio::test]
async fn windows_bind_only_peers_that_keep_them() {
    let (mut peer, _connection, mut streams) = start();
    peer.open(1).await;
    let mut free = streams.recv().await.expect("a stream");
    free.writer.write(Bytes::from(vec![0; 200_000])).await.expect("no window is kept");
    let mut received = 0;
    while received < 200_000 {
        if let Frame::Data { data, .. } = peer.receive().await {
            received += data.len();
        }
    }
    peer.send(Frame::WindowUpdate { stream: 1, delta: 1 }).await;
    peer.open(3).await;
    let mut bound = streams.recv().await.expect("a stream");
    let writing = tokio::spawn(async move { bound.writer.write(Bytes::from(vec![0; 65_537])).await });
    let mut received = 0;
    while received < 65_536 {
        if let Frame::Data { data, .. } = peer.receive().await {
            received += data.len();
        }
    }
    assert!(!writing.is_finished(), "one byte waits for a window");
    peer.send(Frame::WindowUpdate { stream: 3, delta: 10 }).await;
    assert_eq!(peer.receive().await, Frame::Data { stream: 3, fin: false, data: Bytes::from_static(b"\0") });
    writing.await.expect("task").expect("written");
}

#[tokio::test]
async fn a_reset_stops_both_directions() {
    let (mut peer, _connection, mut streams) = start();
    peer.open(1).await;
    let mut stream = streams.recv().await.expect("a stream");
    peer.send(Frame::Reset { stream: 1, status: 5 }).await;
    assert_eq!(stream.reader.read().await, None);
    assert_eq!(stream.writer.write(Bytes::from_static(b"x")).await, Err(StreamClosed));
}
