//! Frames of a WebSocket (RFC 6455, section 5.2) on their way to a client through a tunnel, each written by itself and so in a TLS record of its own.
//!
//! Some clients, Python's among them, wait until their socket is readable before they read one frame. Where two came in one record, the second lies
//! in the client's TLS already, the socket stays silent, and they wait for good. Upstream's frames come one by one, so such clients work there.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const BUFFER: usize = 16 * 1024;
const LONGEST_HEADER: usize = 14;

/// Where frames end in what passes by.
#[derive(Default)]
struct Frames {
    header: [u8; LONGEST_HEADER],
    /// How much of the header has come; nothing while a payload passes.
    have: usize,
    /// How much of the payload is still to come.
    left: u64,
}

impl Frames {
    /// How many of these bytes belong to the frame that they begin or go on with.
    fn first(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        if self.left == 0 {
            while self.have < self.header_length() {
                let Some(byte) = bytes.get(taken) else { return taken };
                self.header[self.have] = *byte;
                self.have += 1;
                taken += 1;
            }
            self.left = self.payload_length();
            self.have = 0;
        }
        let payload = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - taken);
        self.left -= payload as u64;
        taken + payload
    }

    /// As far as what has come of it tells.
    fn header_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + mask
    }

    fn payload_length(&self) -> u64 {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        match self.header[1] & 0x7f {
            126 => number(&self.header[2..4]),
            127 => number(&self.header[2..10]),
            short => u64::from(short),
        }
    }
}

pub(super) async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let (frame, more) = rest.split_at(frames.first(rest));
            to.write_all(frame).await?;
            rest = more;
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: usize) -> Vec<u8> {
        let mut frame = vec![0x82];
        match payload {
            0..126 => frame.push(payload as u8),
            126..65536 => frame.extend([126, (payload >> 8) as u8, payload as u8]),
            _ => frame.extend([&[127][..], &(payload as u64).to_be_bytes()].concat()),
        }
        frame.extend(std::iter::repeat_n(0x82, payload));
        frame
    }

    /// Each chunk begins a frame or goes on with one, however the bytes came.
    #[test]
    fn no_chunk_holds_two_frames() {
        let sizes = [0, 1, 125, 126, 300, 70_000, 2];
        let whole: Vec<u8> = sizes.iter().flat_map(|s| frame(*s)).collect();
        let mut ends: Vec<usize> = Vec::new();
        sizes.iter().for_each(|s| ends.push(ends.last().unwrap_or(&0) + frame(*s).len()));
        for piece in [1, 2, 3, 7, 100, 4096, usize::MAX] {
            let (mut frames, mut at, mut cuts) = (Frames::default(), 0, Vec::new());
            for bytes in whole.chunks(piece.min(whole.len())) {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let taken = frames.first(rest);
                    at += taken;
                    cuts.push(at);
                    rest = &rest[taken..];
                }
            }
            assert!(ends.iter().all(|end| cuts.contains(end)), "in pieces of {piece}");
        }
    }

    #[test]
    fn masks_belong_to_the_header() {
        let masked = [0x81, 0x82, 1, 2, 3, 4, b'a', b'b', 0x88, 0];
        assert_eq!(Frames::default().first(&masked), 8);
    }
}
