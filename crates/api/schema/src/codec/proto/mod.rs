//! Protobuf, as upstream's generated code writes it, to and from the canonical tree.
//!
//! An object travels as `k8s\0` and a `runtime.Unknown` around the message: type meta, raw bytes, encoding, content type. Fields are written in the
//! order of their numbers; scalars that are no pointers are always written, zero or not. Unknown fields are skipped, as gogo's code skips them.

mod decode;
mod encode;
pub mod wire;

use serde_json::{Map, Value};
use tiphys_meta::Gvk;

use super::{DecodeError, EncodeError};
use crate::facts::{Facts, Kind};

/// The first bytes of every object in protobuf.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Whether the bytes are an object in protobuf.
pub fn is_proto(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// An opened envelope.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
    pub content_encoding: String,
    pub content_type: String,
}

/// Opens the envelope without reading what is in it.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let Some(unknown) = bytes.strip_prefix(MAGIC) else {
        return Err(DecodeError::Syntax("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".into()));
    };
    decode::envelope(unknown)
}

/// Reads an object in its envelope.
pub fn decode(bytes: &[u8]) -> Result<(Gvk, Value), DecodeError> {
    let envelope = open(bytes)?;
    let kind = kind_of(&envelope)?;
    Ok((kind.gvk.clone(), decode::object(kind, &envelope)?))
}

fn kind_of(envelope: &Envelope<'_>) -> Result<&'static Kind, DecodeError> {
    let gvk = Gvk::from_api_version(&envelope.api_version, &envelope.kind);
    let unknown = || DecodeError::UnknownKind { api_version: envelope.api_version.clone(), kind: envelope.kind.clone() };
    Facts::builtin().kind(&gvk).ok_or_else(unknown)
}

/// Reads the message in an opened envelope as the kind, whatever the envelope calls it. Its type meta is kept.
pub fn decode_raw(kind: &Kind, envelope: &Envelope<'_>) -> Result<Value, DecodeError> {
    decode::object(kind, envelope)
}

/// Writes an object in its envelope. The type meta is the kind's; what the tree says of it is not looked at.
pub fn encode(gvk: &Gvk, object: &Value) -> Result<Vec<u8>, EncodeError> {
    let kind = known(gvk)?;
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(MAGIC);
    encode::envelope(&mut out, gvk, |out| encode::message(kind.ty(), object.as_object(), out))?;
    Ok(out)
}

/// Writes the message alone, without an envelope.
pub fn encode_message(kind: &Kind, object: &Value) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(256);
    encode::message(kind.ty(), object.as_object(), &mut out)?;
    Ok(out)
}

/// Writes a list in its envelope, from the objects one by one.
pub fn encode_list<'a>(list: &Gvk, list_meta: &Value, items: impl Iterator<Item = &'a Value>) -> Result<Vec<u8>, EncodeError> {
    let kind = known(list)?;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(MAGIC);
    let mut head = Map::new();
    head.insert("metadata".to_owned(), list_meta.clone());
    encode::envelope(&mut out, list, |out| {
        encode::message(kind.ty(), Some(&head), out)?;
        encode::items(kind.ty(), items, out)
    })?;
    Ok(out)
}

/// One frame of a watch in protobuf: its length in four bytes, then `WatchEvent` with the object in its own envelope.
pub fn encode_watch_event(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    encode::watch_event(event, object, &mut out);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX).to_be_bytes();
    out[..4].copy_from_slice(&length);
    out
}

/// Reads the body of one frame of a watch: the event's type and the object's envelope.
pub fn decode_watch_event(frame: &[u8]) -> Result<(String, &[u8]), DecodeError> {
    decode::watch_event(frame)
}

fn known(gvk: &Gvk) -> Result<&'static Kind, EncodeError> {
    let unknown = || EncodeError::UnknownKind { api_version: gvk.api_version(), kind: gvk.kind.to_string() };
    Facts::builtin().kind(gvk).ok_or_else(unknown)
}
