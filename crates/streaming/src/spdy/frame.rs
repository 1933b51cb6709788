//! SPDY/3.1 frames as bytes (SPDY draft 3, §2.2–2.6): reading, writing, and the zlib header blocks with their shared
//! dictionary. One `HeaderCodec` lives per direction and connection, because zlib keeps its window across blocks.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Draft 3 §2.6.10.1.
static DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
const VERSION: u16 = 3;
const FIN: u8 = 1;
/// Clients send a few hundred bytes. Counted when inflated, and again as pairs: a name is told once for all of its values.
const MAX_HEADERS: usize = 64 * 1024;
/// A payload is given memory as it comes, not as it is announced.
const PIECE: u64 = 64 * 1024;

pub(crate) type Headers = Vec<(String, String)>;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Data { stream: u32, fin: bool, data: Bytes },
    SynStream { stream: u32, fin: bool, headers: Headers },
    SynReply { stream: u32, fin: bool, headers: Headers },
    Reset { stream: u32, status: u32 },
    Settings { initial_window: Option<u32> },
    Ping { id: u32 },
    GoAway { last: u32 },
    WindowUpdate { stream: u32, delta: u32 },
    Other,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("reading a frame")]
    Io(#[from] std::io::Error),
    #[error("a header block is not what SPDY/3 allows: {0}")]
    Headers(&'static str),
    #[error("a {0} frame is too short")]
    Short(&'static str),
}

/// Compresses header blocks.
pub(crate) struct HeaderEncoder(Compress);

impl HeaderEncoder {
    pub(crate) fn new() -> Self {
        let mut zlib = Compress::new(Compression::best(), true);
        // A fresh stream always takes a dictionary; without one the peer could not read us, and says so.
        let _ = zlib.set_dictionary(DICTIONARY);
        HeaderEncoder(zlib)
    }

    fn encode(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = BytesMut::new();
        plain.put_u32(headers.len() as u32);
        for (name, value) in headers {
            plain.put_u32(name.len() as u32);
            plain.put_slice(name.to_ascii_lowercase().as_bytes());
            plain.put_u32(value.len() as u32);
            plain.put_slice(value.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 128);
        let start = self.0.total_in();
        loop {
            let done = (self.0.total_in() - start) as usize;
            let full = out.len() == out.capacity();
            if done == plain.len() && !full && !out.is_empty() {
                return out;
            }
            out.reserve(128);
            if self.0.compress_vec(&plain[done..], &mut out, FlushCompress::Sync).is_err() {
                return out;
            }
        }
    }
}

/// Decompresses header blocks.
pub(crate) struct HeaderDecoder(Decompress);

impl HeaderDecoder {
    pub(crate) fn new() -> Self {
        HeaderDecoder(Decompress::new(true))
    }

    fn decode(&mut self, block: &[u8]) -> Result<Headers, FrameError> {
        let plain = self.inflate(block)?;
        parse_headers(&plain)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut out = Vec::with_capacity((block.len() * 4 + 256).min(MAX_HEADERS));
        let start = self.0.total_in();
        loop {
            let done = (self.0.total_in() - start) as usize;
            let full = out.len() == out.capacity();
            if done >= block.len() && !full {
                return Ok(out);
            }
            if out.len() > MAX_HEADERS {
                return Err(FrameError::Headers("too long"));
            }
            if full {
                out.reserve(1024);
            }
            let (inputs, outputs) = (self.0.total_in(), self.0.total_out());
            match self.0.decompress_vec(&block[done..], &mut out, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Ok(out),
                Ok(_) if self.0.total_in() == inputs && self.0.total_out() == outputs => return Ok(out),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| FrameError::Headers("another dictionary"))?;
                }
                Err(_) => return Err(FrameError::Headers("no zlib data")),
            }
        }
    }
}

fn parse_headers(mut plain: &[u8]) -> Result<Headers, FrameError> {
    const MISFIT: FrameError = FrameError::Headers("lengths do not fit");
    let count = plain.try_get_u32().map_err(|_| MISFIT)?;
    let (mut headers, mut room) = (Vec::new(), MAX_HEADERS);
    for _ in 0..count {
        let name = take(&mut plain).ok_or(MISFIT)?;
        let values = take(&mut plain).ok_or(MISFIT)?;
        // A name with several values has them joined by NUL (§2.6.10).
        for value in values.split('\0') {
            let size = name.len() + value.len() + size_of::<(String, String)>();
            room = room.checked_sub(size).ok_or(FrameError::Headers("too long"))?;
            headers.push((name.clone(), value.to_owned()));
        }
    }
    Ok(headers)
}

fn take(plain: &mut &[u8]) -> Option<String> {
    let length = plain.try_get_u32().ok()? as usize;
    let text = String::from_utf8_lossy(plain.get(..length)?).into_owned();
    plain.advance(length);
    Some(text)
}

/// Reads one frame.
pub(crate) async fn read<R: AsyncRead + Unpin>(io: &mut R, decoder: &mut HeaderDecoder) -> Result<Frame, FrameError> {
    let mut head = [0; 8];
    io.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    let (payload, flags) = (payload(io, length).await?, head[4]);
    if head[0] & 0x80 == 0 {
        let stream = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        return Ok(Frame::Data { stream, fin: flags & FIN != 0, data: payload });
    }
    control(u16::from_be_bytes([head[2], head[3]]), flags, payload, decoder)
}

async fn payload<R: AsyncRead + Unpin>(io: &mut R, length: usize) -> std::io::Result<Bytes> {
    let mut payload = BytesMut::new();
    while payload.len() < length {
        let missing = (length - payload.len()) as u64;
        payload.reserve(missing.min(PIECE) as usize);
        if io.take(missing.min(PIECE)).read_buf(&mut payload).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(payload.freeze())
}

fn control(kind: u16, flags: u8, mut payload: Bytes, decoder: &mut HeaderDecoder) -> Result<Frame, FrameError> {
    let mut number = |name: &'static str| payload.try_get_u32().map_err(|_| FrameError::Short(name));
    let fin = flags & FIN != 0;
    Ok(match kind {
        1 => {
            let stream = number("SYN_STREAM")? & 0x7fff_ffff;
            number("SYN_STREAM")?;
            let rest = payload.get(2..).ok_or(FrameError::Short("SYN_STREAM"))?;
            Frame::SynStream { stream, fin, headers: decoder.decode(rest)? }
        }
        2 => Frame::SynReply { stream: number("SYN_REPLY")? & 0x7fff_ffff, fin, headers: decoder.decode(&payload)? },
        3 => Frame::Reset { stream: number("RST_STREAM")? & 0x7fff_ffff, status: number("RST_STREAM")? },
        4 => Frame::Settings { initial_window: settings(payload) },
        6 => Frame::Ping { id: number("PING")? },
        7 => Frame::GoAway { last: number("GOAWAY")? },
        // The block must pass through zlib all the same, or the next one is unreadable.
        8 => {
            number("HEADERS")?;
            decoder.decode(&payload)?;
            Frame::Other
        }
        9 => Frame::WindowUpdate { stream: number("WINDOW_UPDATE")? & 0x7fff_ffff, delta: number("WINDOW_UPDATE")? & 0x7fff_ffff },
        _ => Frame::Other,
    })
}

fn settings(mut payload: Bytes) -> Option<u32> {
    const INITIAL_WINDOW_SIZE: u32 = 7;
    let count = payload.try_get_u32().ok()?;
    let mut window = None;
    for _ in 0..count {
        let (id, value) = (payload.try_get_u32().ok()? & 0x00ff_ffff, payload.try_get_u32().ok()?);
        if id == INITIAL_WINDOW_SIZE {
            window = Some(value);
        }
    }
    window
}

/// Writes one frame.
pub(crate) fn write(frame: &Frame, encoder: &mut HeaderEncoder, out: &mut BytesMut) {
    match frame {
        Frame::Data { stream, fin, data } => {
            out.put_u32(*stream);
            out.put_u32((u32::from(*fin) << 24) | data.len() as u32);
            out.put_slice(data);
        }
        Frame::SynStream { stream, fin, headers } => {
            let block = encoder.encode(headers);
            control_head(out, 1, *fin, block.len() + 10);
            out.put_u32(*stream);
            out.put_u32(0);
            out.put_u16(0);
            out.put_slice(&block);
        }
        Frame::SynReply { stream, fin, headers } => {
            let block = encoder.encode(headers);
            control_head(out, 2, *fin, block.len() + 4);
            out.put_u32(*stream);
            out.put_slice(&block);
        }
        Frame::Reset { stream, status } => pair(out, 3, *stream, *status),
        Frame::Ping { id } => {
            control_head(out, 6, false, 4);
            out.put_u32(*id);
        }
        Frame::GoAway { last } => pair(out, 7, *last, 0),
        Frame::WindowUpdate { stream, delta } => pair(out, 9, *stream, *delta),
        Frame::Settings { .. } | Frame::Other => {}
    }
}

fn pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    control_head(out, kind, false, 8);
    out.put_u32(first);
    out.put_u32(second);
}

fn control_head(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32((u32::from(fin) << 24) | length as u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn round_trip(frames: Vec<Frame>) {
        let (mut encoder, mut decoder, mut wire) = (HeaderEncoder::new(), HeaderDecoder::new(), BytesMut::new());
        for frame in &frames {
            write(frame, &mut encoder, &mut wire);
        }
        let mut io = &wire[..];
        for frame in frames {
            assert_eq!(read(&mut io, &mut decoder).await.ok(), Some(frame));
        }
        assert!(io.is_empty());
    }

    fn headers(kind: &str, n: usize) -> Headers {
        vec![("streamtype".into(), kind.into()), ("port".into(), "80".into()), ("requestid".into(), "x".repeat(n))]
    }

    #[tokio::test]
    async fn frames_survive_the_wire() {
        round_trip(vec![
            Frame::SynStream { stream: 1, fin: false, headers: headers("error", 1) },
            Frame::SynStream { stream: 3, fin: true, headers: headers("data", 5000) },
            Frame::SynReply { stream: 3, fin: false, headers: vec![] },
            Frame::Data { stream: 3, fin: true, data: Bytes::from_static(b"hello") },
            Frame::Reset { stream: 3, status: 5 },
            Frame::Ping { id: 7 },
            Frame::GoAway { last: 3 },
            Frame::WindowUpdate { stream: 1, delta: 70000 },
        ])
        .await;
    }

    #[tokio::test]
    async fn known_bytes() {
        let (mut encoder, mut wire) = (HeaderEncoder::new(), BytesMut::new());
        write(&Frame::Data { stream: 5, fin: true, data: Bytes::from_static(b"ab") }, &mut encoder, &mut wire);
        write(&Frame::Ping { id: 1 }, &mut encoder, &mut wire);
        assert_eq!(wire[..], [0, 0, 0, 5, 1, 0, 0, 2, b'a', b'b', 0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
        assert_eq!(DICTIONARY.len(), 1423);
        // zlib names the dictionary by its Adler-32 in the stream's head: draft 3 fixes it at 0xe3c6a7c2.
        let block = encoder.encode(&headers("stdin", 1));
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    /// A thousand bytes of name with a thousand values, all empty, would be a megabyte; the lengths are the sender's, and so is the square.
    #[tokio::test]
    async fn names_of_many_values_do_not_multiply() {
        for headers in [vec![("n".repeat(1000), "\0".repeat(1000))], vec![("n".into(), "v".repeat(MAX_HEADERS))]] {
            let (mut encoder, mut decoder, mut wire) = (HeaderEncoder::new(), HeaderDecoder::new(), BytesMut::new());
            write(&Frame::SynStream { stream: 1, fin: false, headers }, &mut encoder, &mut wire);
            let refused = read(&mut &wire[..], &mut decoder).await;
            assert!(matches!(refused, Err(FrameError::Headers("too long"))), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn rubbish_is_an_error_and_no_panic() {
        let mut decoder = HeaderDecoder::new();
        // Sixteen MiB are announced, and nothing comes.
        assert!(read(&mut &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..], &mut decoder).await.is_err());
        for wire in [&[0x80, 3, 0, 1, 0, 0, 0, 2, 9, 9][..], &[0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 9, 9, 9, 9][..], &[0x80, 3][..]] {
            assert!(read(&mut &wire[..], &mut decoder).await.is_err());
        }
    }
}
