//! Work on stored protobuf without decoding it: an object is stored without its `resourceVersion` (as upstream does), so a read only has to
//! put the number in. The envelope is `runtime.Unknown` behind the magic `k8s\0`.

use bytes::Bytes;
use tiphys_schema::codec::proto::wire::{BYTES, Raw, Reader, put_bytes, put_tag, put_varint, varint_length};

pub(crate) const MAGIC: &[u8; 4] = b"k8s\0";

/// `Unknown.typeMeta`, `Unknown.raw`; `TypeMeta.apiVersion`, `TypeMeta.kind`; `metadata` of every kind; `ObjectMeta.resourceVersion`.
const UNKNOWN_TYPE: u16 = 1;
const UNKNOWN_RAW: u16 = 2;
const TYPE_VERSION: u16 = 1;
const TYPE_KIND: u16 = 2;
const METADATA: u16 = 1;
const RESOURCE_VERSION: u16 = 6;

/// The message inside an envelope.
pub(crate) fn raw(envelope: &[u8]) -> Option<&[u8]> {
    let body = envelope.strip_prefix(MAGIC)?;
    Fields::new(body).find(|(field, _)| *field == UNKNOWN_RAW).map(|(_, raw)| raw)
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
    let type_length = 2 + varint_length(api_version.len() as u64) + api_version.len() + varint_length(kind.len() as u64) + kind.len();
    write_head(out, UNKNOWN_TYPE, type_length);
    put_bytes(out, TYPE_VERSION, api_version.as_bytes());
    put_bytes(out, TYPE_KIND, kind.as_bytes());
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
            stamp.field[..2].copy_from_slice(&[(RESOURCE_VERSION << 3) as u8 | BYTES, digits as u8]);
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
        1 + varint_length(length as u64) + length + rest.len()
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
    let mut fields = Fields::new(message);
    match fields.next() {
        Some((METADATA, metadata)) => (metadata, fields.rest()),
        _ => (&[], message),
    }
}

/// The first field, which is `metadata`, with its head: the whole of a `PartialObjectMetadata`.
pub(crate) fn metadata_only(message: &[u8]) -> &[u8] {
    let mut fields = Fields::new(message);
    match fields.next() {
        Some((METADATA, _)) => &message[..message.len() - fields.rest().len()],
        _ => &[],
    }
}

pub(crate) fn write_head(out: &mut Vec<u8>, field: u16, length: usize) {
    put_tag(out, field, BYTES);
    put_varint(out, length as u64);
}

/// Length-delimited fields from the front; ends at anything else.
struct Fields<'a>(Reader<'a>);

impl<'a> Fields<'a> {
    fn new(message: &'a [u8]) -> Self {
        Fields(Reader::new(message))
    }

    fn rest(&self) -> &'a [u8] {
        self.0.rest()
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.next() {
            Ok(Some((field, Raw::Bytes(content)))) => Some((u16::try_from(field).ok()?, content)),
            _ => None,
        }
    }
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
        put_bytes(&mut message, METADATA, b"\x0a\x01a");
        put_bytes(&mut message, 2, b"spec");
        let with_revision = |message: &[u8], revision| {
            let (stamp, mut out) = (Stamp::new(revision), Vec::new());
            stamp.write(message, &mut out);
            assert_eq!(stamp.length(message), out.len());
            out
        };
        let stamped = with_revision(&message, 1234);
        let fields: Vec<_> = Fields::new(&stamped).collect();
        assert_eq!(fields, [(1, &b"\x0a\x01a\x32\x041234"[..]), (2, &b"spec"[..])]);
        let bare = with_revision(b"\x12\x00", 5);
        assert_eq!(Fields::new(&bare).collect::<Vec<_>>(), [(1, &b"\x32\x015"[..]), (2, &b""[..])]);
        assert_eq!(with_revision(&message, 0), message);
        assert_eq!(Stamp::new(i64::MAX).field(), b"\x32\x139223372036854775807");
        let sealed = envelope_at("v1", "Pod", &message, 1234);
        assert_eq!(raw(&sealed), Some(&stamped[..]));
    }
}
