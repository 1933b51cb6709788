//! Work on stored protobuf without decoding it: an object is stored without its `resourceVersion` (as upstream does), so a read only has to
//! put the number in. The envelope is `runtime.Unknown` behind the magic `k8s\0`.

use bytes::Bytes;

pub(crate) const MAGIC: &[u8; 4] = b"k8s\0";

const LENGTH_DELIMITED: u64 = 2;
/// `Unknown.typeMeta`, `Unknown.raw`; `TypeMeta.apiVersion`, `TypeMeta.kind`; `metadata` of every kind; `ObjectMeta.resourceVersion`.
const UNKNOWN_TYPE: u64 = 1;
const UNKNOWN_RAW: u64 = 2;
const TYPE_VERSION: u64 = 1;
const TYPE_KIND: u64 = 2;
const METADATA: u64 = 1;
const RESOURCE_VERSION: u64 = 6;

/// The message inside an envelope.
pub(crate) fn raw(envelope: &[u8]) -> Option<&[u8]> {
    let body = envelope.strip_prefix(MAGIC)?;
    Fields(body).find(|(field, _)| *field == UNKNOWN_RAW).map(|(_, raw)| raw)
}

/// Puts a message into an envelope. gogo's writer always prints the two last, empty strings.
pub(crate) fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 24);
    start_envelope(&mut out, api_version, kind, raw.len());
    out.extend_from_slice(raw);
    end_envelope(&mut out);
    out.into()
}

/// Everything before a message of `length` bytes.
pub(crate) fn start_envelope(out: &mut Vec<u8>, api_version: &str, kind: &str, length: usize) {
    out.extend_from_slice(MAGIC);
    let type_length = 2 + varint_length(api_version.len()) + api_version.len() + varint_length(kind.len()) + kind.len();
    write_head(out, UNKNOWN_TYPE, type_length);
    write_bytes(out, TYPE_VERSION, api_version.as_bytes());
    write_bytes(out, TYPE_KIND, kind.as_bytes());
    write_head(out, UNKNOWN_RAW, length);
}

pub(crate) const ENVELOPE_END: &[u8] = &[0x1a, 0x00, 0x22, 0x00];

fn end_envelope(out: &mut Vec<u8>) {
    out.extend_from_slice(ENVELOPE_END);
}

/// The message in an envelope, at a revision (0: at none).
pub(crate) fn envelope_at(api_version: &str, kind: &str, raw: &[u8], revision: i64) -> Bytes {
    let stamp = Stamp::new(revision);
    let length = stamp.length(raw);
    let mut out = Vec::with_capacity(length + api_version.len() + kind.len() + 24);
    start_envelope(&mut out, api_version, kind, length);
    stamp.write(raw, &mut out);
    end_envelope(&mut out);
    out.into()
}

/// Sets `metadata.resourceVersion` of stored messages.
pub(crate) struct Stamp {
    /// The field as it stands on the wire: a tag, a length, at most nineteen digits.
    field: [u8; 21],
    length: usize,
}

impl Stamp {
    pub(crate) fn new(revision: i64) -> Stamp {
        let mut stamp = Stamp { field: [0; 21], length: 0 };
        let mut at = stamp.field.len();
        let mut left = revision.unsigned_abs();
        while left > 0 {
            at -= 1;
            stamp.field[at] = b'0' + (left % 10) as u8;
            left /= 10;
        }
        let digits = stamp.field.len() - at;
        if digits > 0 {
            stamp.field.copy_within(at.., 2);
            stamp.field[..2].copy_from_slice(&[(RESOURCE_VERSION << 3 | LENGTH_DELIMITED) as u8, digits as u8]);
            stamp.length = 2 + digits;
        }
        stamp
    }

    fn field(&self) -> &[u8] {
        &self.field[..self.length]
    }

    /// How long the message becomes.
    pub(crate) fn length(&self, message: &[u8]) -> usize {
        let (metadata, rest) = split_metadata(message);
        let length = metadata.len() + self.length;
        1 + varint_length(length) + length + rest.len()
    }

    pub(crate) fn write(&self, message: &[u8], out: &mut Vec<u8>) {
        let (metadata, rest) = split_metadata(message);
        write_head(out, METADATA, metadata.len() + self.length);
        out.extend_from_slice(metadata);
        out.extend_from_slice(self.field());
        out.extend_from_slice(rest);
    }
}

/// The content of `metadata`, and everything else. Without metadata in front the whole message follows it: the order of fields is free.
fn split_metadata(message: &[u8]) -> (&[u8], &[u8]) {
    let mut fields = Fields(message);
    match fields.next() {
        Some((METADATA, metadata)) => (metadata, fields.0),
        _ => (&[], message),
    }
}

/// The first field, which is `metadata`, with its head: the whole of a `PartialObjectMetadata`.
pub(crate) fn metadata_only(message: &[u8]) -> &[u8] {
    let mut fields = Fields(message);
    match fields.next() {
        Some((METADATA, _)) => &message[..message.len() - fields.0.len()],
        _ => &[],
    }
}

pub(crate) fn write_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    write_head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

pub(crate) fn write_head(out: &mut Vec<u8>, field: u64, length: usize) {
    write_varint(out, field << 3 | LENGTH_DELIMITED);
    write_varint(out, length as u64);
}

pub(crate) fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn varint_length(number: usize) -> usize {
    (usize::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

/// Length-delimited fields from the front; ends at anything else.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = read_varint(self.0)?;
        if head & 7 != LENGTH_DELIMITED {
            return None;
        }
        let (length, rest) = read_varint(rest)?;
        let length = usize::try_from(length).ok()?;
        if length > rest.len() {
            return None;
        }
        let (content, rest) = rest.split_at(length);
        self.0 = rest;
        Some((head >> 3, content))
    }
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(i + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_gives_back_its_message() {
        let sealed = envelope("apps/v1", "Deployment", &[7; 300]);
        assert_eq!(raw(&sealed), Some(&[7u8; 300][..]));
        assert_eq!(raw(b"{}"), None);
    }

    #[test]
    fn a_revision_goes_into_metadata_and_the_rest_stays() {
        let mut message = Vec::new();
        write_bytes(&mut message, METADATA, b"\x0a\x01a");
        write_bytes(&mut message, 2, b"spec");
        let with_revision = |message: &[u8], revision| {
            let (stamp, mut out) = (Stamp::new(revision), Vec::new());
            stamp.write(message, &mut out);
            assert_eq!(stamp.length(message), out.len());
            out
        };
        let stamped = with_revision(&message, 1234);
        let fields: Vec<_> = Fields(&stamped).collect();
        assert_eq!(fields, [(1, &b"\x0a\x01a\x32\x041234"[..]), (2, &b"spec"[..])]);
        let bare = with_revision(b"\x12\x00", 5);
        assert_eq!(Fields(&bare).collect::<Vec<_>>(), [(1, &b"\x32\x015"[..]), (2, &b""[..])]);
        assert_eq!(with_revision(&message, 0), message);
        assert_eq!(Stamp::new(i64::MAX).field(), b"\x32\x139223372036854775807");
        let sealed = envelope_at("v1", "Pod", &message, 1234);
        assert_eq!(raw(&sealed), Some(&stamped[..]));
    }

    #[test]
    fn lengths_of_varints() {
        for number in [0, 1, 127, 128, 16383, 16384, 1 << 21, usize::MAX >> 1] {
            let mut out = Vec::new();
            write_varint(&mut out, number as u64);
            assert_eq!(out.len(), varint_length(number), "{number}");
        }
    }
}
