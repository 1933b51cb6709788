//! Plain, gzip or zstd: told apart by the first bytes, since media types lie.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Skippable frames have sixteen numbers, of which this is the first (RFC 8878, 3.1.2); zstd:chunked layers carry them.
const ZSTD_SKIPPABLE: u32 = 0x184d_2a50;

/// A reader whose next bytes can be looked at.
struct Peek<R> {
    head: Vec<u8>,
    inner: R,
}

impl<R: Read> Peek<R> {
    fn new(inner: R) -> Self {
        Peek { head: Vec::new(), inner }
    }

    /// The next `count` bytes, or fewer at the end.
    fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        let missing = count.saturating_sub(self.head.len());
        self.inner.by_ref().take(missing as u64).read_to_end(&mut self.head)?;
        Ok(&self.head[..count.min(self.head.len())])
    }
}

impl<R: Read> Read for Peek<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            return self.inner.read(buffer);
        }
        let count = self.head.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.head[..count]);
        self.head.drain(..count);
        Ok(count)
    }
}

pub(crate) fn decompress(source: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut source = Peek::new(BufReader::with_capacity(128 << 10, source));
    let magic = source.peek(4)?;
    if magic.starts_with(&GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(BufReader::with_capacity(64 << 10, source))));
    }
    if magic == ZSTD || skippable(magic) {
        return Ok(Box::new(Zstd { frame: None, source: Some(source) }));
    }
    Ok(Box::new(source))
}

fn skippable(magic: &[u8]) -> bool {
    let magic: Result<[u8; 4], _> = magic.try_into();
    magic.is_ok_and(|magic| u32::from_le_bytes(magic) & !0xf == ZSTD_SKIPPABLE)
}

/// All frames of a zstd stream; exactly one of the two is there.
struct Zstd<R: Read> {
    frame: Option<StreamingDecoder<Peek<R>, FrameDecoder>>,
    source: Option<Peek<R>>,
}

impl<R: Read> Zstd<R> {
    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        let Some(mut source) = self.source.take() else { return Ok(true) };
        while skippable(source.peek(4)?) {
            let mut header = [0; 8];
            source.read_exact(&mut header)?;
            let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
            io::copy(&mut source.by_ref().take(u64::from(length)), &mut io::sink())?;
        }
        if source.peek(1)?.is_empty() {
            self.source = Some(source);
            return Ok(false);
        }
        self.frame =
            Some(StreamingDecoder::new(source).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}")))?);
        Ok(true)
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.begin()? {
            let Some(frame) = &mut self.frame else { break };
            let count = frame.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.source = self.frame.take().map(StreamingDecoder::into_inner);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        decompress(io::Cursor::new(bytes)).and_then(|mut reader| reader.read_to_end(&mut out)).expect("readable");
        out
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("written");
        encoder.finish().expect("compressed")
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn every_form_reads_the_same() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let skip = [&0x184d_2a53u32.to_le_bytes()[..], &3u32.to_le_bytes(), b"abc"].concat();
        let half = text.len() / 2;
        let forms = [
            text.clone(),
            gzip(&text),
            [gzip(&text[..half]), gzip(&text[half..])].concat(),
            zstd(&text),
            [skip.clone(), zstd(&text[..half]), skip, zstd(&text[half..])].concat(),
        ];
        for (at, form) in forms.into_iter().enumerate() {
            assert!(read(form) == text, "form {at}");
        }
        assert_eq!(read(b"ab".to_vec()), b"ab");
        assert_eq!(read(Vec::new()), b"");
    }
}
