//! Base64 (RFC 4648 §4) as Go's `encoding/base64` and `encoding/json` read it: line breaks count for nothing, padding must be there, and the bits of the
//! last character that belong to no byte may be any.

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};

const READ: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Where in the text what is no base64 begins, in bytes from 0; Go's `CorruptInputError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("illegal base64 data at input byte {0}")]
pub struct Corrupt(pub usize);

#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub fn decode(text: &str) -> Result<Vec<u8>, Corrupt> {
    let decoded = if text.contains(['\r', '\n']) { READ.decode(text.replace(['\r', '\n'], "")) } else { READ.decode(text) };
    decoded.map_err(|_| Corrupt(corrupt_at(text.as_bytes())))
}

/// Where Go stops reading what is no base64: at what does not belong there, or where four characters begin that are not all there.
fn corrupt_at(text: &[u8]) -> usize {
    let mut rest = text.iter().enumerate().filter(|(_, c)| !matches!(c, b'\r' | b'\n')).map(|(at, c)| (at, *c));
    let mut read = 0;
    while let Some((at, c)) = rest.next() {
        match (c, read % 4) {
            (b'=', 2) => {
                return match rest.next() {
                    Some((_, b'=')) => rest.next().map_or(text.len(), |(at, _)| at),
                    other => other.map_or(text.len(), |(at, _)| at),
                };
            }
            (b'=', 3) => return rest.next().map_or(text.len(), |(at, _)| at),
            (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/', _) => read += 1,
            _ => return at,
        }
    }
    text.len() - read % 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_reads_it() {
        for (text, bytes) in [("", ""), ("YQ==", "a"), ("YR==", "a"), ("YWJ=", "ab"), ("Y\nW\r\nJj\n", "abc")] {
            assert_eq!(decode(text).as_deref(), Ok(bytes.as_bytes()), "{text:?}");
        }
        for (text, at) in
            [("YQ", 0), ("YQ=", 3), ("Y", 0), ("Y*==", 1), ("YQ==YQ==", 4), ("YWJj!", 4), ("=", 0), ("Y-Q=", 1), ("YQ=\n", 4), ("Y\n=", 2)]
        {
            assert_eq!(decode(text), Err(Corrupt(at)), "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(["", "f", "fo", "foo", "foob"].map(|t| encode(t.as_bytes())), ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }
}
