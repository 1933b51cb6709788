//! How changes are written: operations packed into frames, each with a length, a sequence number and a CRC.
//!
//! A frame is what one sync makes durable. So a broken frame with nothing valid after it was never acknowledged (the machine
//! stopped in the middle of writing it), while a broken frame before a valid one is damage: the later was only begun once the
//! earlier was safe.

use crate::types::{LeaseId, Revision};

const MAGIC: [u8; 4] = *b"tFr1";
pub(crate) const HEADER: usize = 20;
/// Longer frames are not written, so a longer length is damage.
const LONGEST: usize = 1 << 30;

/// One durable change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// The operations that follow belong to this revision.
    Revision(Revision),
    Put {
        key: &'a [u8],
        value: &'a [u8],
        lease: LeaseId,
    },
    Delete {
        key: &'a [u8],
    },
    Grant {
        id: LeaseId,
        ttl: i64,
    },
    Revoke {
        id: LeaseId,
    },
    Compact(Revision),
    /// A pair of a snapshot, with all its counters.
    Pair {
        key: &'a [u8],
        value: &'a [u8],
        create_revision: Revision,
        mod_revision: Revision,
        version: i64,
        lease: LeaseId,
    },
    /// The end of a snapshot: how many pairs it holds.
    End {
        pairs: u64,
    },
}

/// A frame being put together. Room for the header is kept at the front.
#[derive(Debug)]
pub(crate) struct FrameBuilder {
    bytes: Vec<u8>,
}

impl FrameBuilder {
    pub(crate) fn new() -> Self {
        FrameBuilder { bytes: vec![0; HEADER] }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(HEADER);
        // One large batch must not hold its memory for good.
        self.bytes.shrink_to(1 << 20);
    }

    pub(crate) fn add(&mut self, entry: &Entry<'_>) {
        match *entry {
            Entry::Revision(revision) => self.tag(1).number(revision),
            Entry::Put { key, value, lease } => self.tag(2).text(key).text(value).number(lease),
            Entry::Delete { key } => self.tag(3).text(key),
            Entry::Grant { id, ttl } => self.tag(4).number(id).number(ttl),
            Entry::Revoke { id } => self.tag(5).number(id),
            Entry::Compact(revision) => self.tag(6).number(revision),
            Entry::Pair { key, value, create_revision, mod_revision, version, lease } => {
                self.tag(7).text(key).text(value).number(create_revision).number(mod_revision).number(version).number(lease)
            }
            Entry::End { pairs } => self.tag(8).number(pairs as i64),
        };
    }

    fn tag(&mut self, tag: u8) -> &mut Self {
        self.bytes.push(tag);
        self
    }

    fn number(&mut self, number: i64) -> &mut Self {
        let mut rest = number as u64;
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
        self
    }

    fn text(&mut self, text: &[u8]) -> &mut Self {
        self.number(text.len() as i64).bytes.extend_from_slice(text);
        self
    }

    /// The whole frame, ready to be written.
    pub(crate) fn seal(&mut self, sequence: u64) -> &[u8] {
        let length = (self.bytes.len() - HEADER) as u32;
        self.bytes[0..4].copy_from_slice(&MAGIC);
        self.bytes[4..8].copy_from_slice(&length.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        let sum = checksum(&self.bytes[4..16], &self.bytes[HEADER..]);
        self.bytes[16..20].copy_from_slice(&sum.to_le_bytes());
        &self.bytes
    }
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn long(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A frame found in a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) sequence: u64,
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    pub(crate) fn size(&self) -> usize {
        HEADER + self.payload.len()
    }
}

/// How long the payload is that this header announces; 0 if it is no header.
pub(crate) fn payload_length(header: &[u8]) -> u64 {
    if header.len() == HEADER { u64::from(word(&header[4..8])) } else { 0 }
}

/// The frame at the start of `bytes`, if it is whole and sound.
pub(crate) fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
    let header = bytes.get(..HEADER)?;
    let length = word(&header[4..8]) as usize;
    if header[..4] != MAGIC || length > LONGEST {
        return None;
    }
    let payload = bytes.get(HEADER..HEADER + length)?;
    (checksum(&header[4..16], payload) == word(&header[16..20])).then_some(Frame { sequence: long(&header[8..16]), payload })
}

/// Whether a sound frame with a number of at least `sequence` stands anywhere in `bytes`.
pub(crate) fn any_later(bytes: &[u8], sequence: u64) -> bool {
    let candidates = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
    candidates.into_iter().any(|(at, _)| parse(&bytes[at..]).is_some_and(|frame| frame.sequence >= sequence))
}

/// Reads the entries of a frame's payload.
#[derive(Debug)]
pub(crate) struct Entries<'a>(pub(crate) &'a [u8]);

impl<'a> Entries<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<i64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number as i64);
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    fn entry(&mut self) -> Option<Entry<'a>> {
        Some(match self.byte()? {
            1 => Entry::Revision(self.number()?),
            2 => Entry::Put { key: self.text()?, value: self.text()?, lease: self.number()? },
            3 => Entry::Delete { key: self.text()? },
            4 => Entry::Grant { id: self.number()?, ttl: self.number()? },
            5 => Entry::Revoke { id: self.number()? },
            6 => Entry::Compact(self.number()?),
            7 => Entry::Pair {
                key: self.text()?,
                value: self.text()?,
                create_revision: self.number()?,
                mod_revision: self.number()?,
                version: self.number()?,
                lease: self.number()?,
            },
            8 => Entry::End { pairs: self.number()? as u64 },
            _ => return None,
        })
    }
}

/// Ends with `Err` where the payload makes no sense, which a sound CRC rules out short of a bug or another version's log.
impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.entry().ok_or(());
        if entry.is_err() {
            self.0 = &[];
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry<'static>> {
        vec![
            Entry::Revision(i64::MAX),
            Entry::Put { key: b"key", value: &[7; 300], lease: -5 },
            Entry::Delete { key: b"" },
            Entry::Grant { id: 128, ttl: 3600 },
            Entry::Revoke { id: 127 },
            Entry::Compact(1),
            Entry::Pair { key: b"k", value: b"v", create_revision: 2, mod_revision: 300, version: 4, lease: 0 },
            Entry::End { pairs: 1 },
        ]
    }

    #[test]
    fn entries_survive_the_journey() {
        let mut builder = FrameBuilder::new();
        entries().iter().for_each(|entry| builder.add(entry));
        let bytes = builder.seal(42).to_vec();
        let frame = parse(&bytes).expect("a sound frame");
        assert_eq!((frame.sequence, frame.size()), (42, bytes.len()));
        let read: Result<Vec<_>, ()> = Entries(frame.payload).collect();
        assert_eq!(read, Ok(entries()));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unnoticed() {
        let mut builder = FrameBuilder::new();
        entries().iter().for_each(|entry| builder.add(entry));
        let bytes = builder.seal(42).to_vec();
        for at in 0..bytes.len() {
            assert_eq!(parse(&bytes[..at]), None, "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert_eq!(parse(&flipped), None, "flipped at {at}");
        }
    }

    #[test]
    fn a_later_frame_is_found_behind_garbage() {
        let mut builder = FrameBuilder::new();
        builder.add(&Entry::Compact(3));
        let mut bytes = b"garbage tFr1 tFr1".to_vec();
        bytes.extend_from_slice(builder.seal(9));
        assert!(any_later(&bytes, 9));
        assert!(!any_later(&bytes, 10));
        assert!(!any_later(&bytes[..bytes.len() - 1], 9));
    }
}
