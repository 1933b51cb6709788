//! Protobuf to the canonical tree.

use serde::de::DeserializeSeed;
use serde_json::{Map, Value};
use tiphys_meta::base64;

use super::Envelope;
use super::wire::{Raw, Reader};
use crate::codec::budget::Budget;
use crate::codec::json::Raw as RawJson;
use crate::codec::{DecodeError, canon, go};
use crate::facts::{Field, Kind, Shape, Type};

/// Deeper than any object; a hostile one must not run out of stack.
const MAX_DEPTH: u32 = 200;

/// How much deeper, and how much larger, the tree may become.
#[derive(Clone, Copy)]
struct Room<'a> {
    depth: u32,
    budget: &'a Budget,
}

pub(super) fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let mut envelope = Envelope::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        let Raw::Bytes(content) = raw else { continue };
        match number {
            1 => {
                let mut meta = Reader::new(content);
                while let Some((number, raw)) = meta.next()? {
                    match (number, raw) {
                        (1, Raw::Bytes(text)) => envelope.api_version = utf8(text)?.to_owned(),
                        (2, Raw::Bytes(text)) => envelope.kind = utf8(text)?.to_owned(),
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = content,
            3 => envelope.content_encoding = utf8(content)?.to_owned(),
            4 => envelope.content_type = utf8(content)?.to_owned(),
            _ => {}
        }
    }
    Ok(envelope)
}

pub(super) fn watch_event(frame: &[u8]) -> Result<(String, &[u8]), DecodeError> {
    let (mut event, mut object) = (String::new(), &[][..]);
    let mut reader = Reader::new(frame);
    while let Some((number, raw)) = reader.next()? {
        match (number, raw) {
            (1, Raw::Bytes(text)) => event = utf8(text)?.to_owned(),
            (2, Raw::Bytes(extension)) => object = raw_content(extension)?.unwrap_or(&[]),
            _ => {}
        }
    }
    Ok((event, object))
}

/// The message in an envelope as the kind, with the envelope's type meta.
pub(super) fn object(kind: &Kind, envelope: &Envelope<'_>) -> Result<Value, DecodeError> {
    object_in(kind, envelope, Room { depth: MAX_DEPTH, budget: &Budget::default() })
}

fn object_in(kind: &Kind, envelope: &Envelope<'_>, room: Room<'_>) -> Result<Value, DecodeError> {
    let mut map = nested(kind.ty(), envelope.raw, room)?;
    for (field, text) in [("apiVersion", &envelope.api_version), ("kind", &envelope.kind)] {
        if !text.is_empty() {
            map.insert(field.to_owned(), Value::from(text.as_str()));
        }
    }
    Ok(Value::Object(map))
}

fn nested(ty: &'static Type, bytes: &[u8], room: Room<'_>) -> Result<Map<String, Value>, DecodeError> {
    let mut map = Map::new();
    fields(ty, bytes, &mut map, room)?;
    canon::finish(ty, &mut map, room.budget)?;
    Ok(map)
}

/// Reads the fields of a message into the map; an inlined message shares the map of its owner.
fn fields(ty: &'static Type, bytes: &[u8], map: &mut Map<String, Value>, room: Room<'_>) -> Result<(), DecodeError> {
    let depth = room.depth.checked_sub(1).ok_or_else(|| DecodeError::Syntax("proto: nested too deeply".into()))?;
    let room = Room { depth, ..room };
    let wire = &ty.index().wire;
    let own = ty.fields();
    let mut reader = Reader::new(bytes);
    // Fields come in the order of their numbers, mostly: look from where the last one was found.
    let mut hint = 0;
    while let Some((number, raw)) = reader.next()? {
        let found = (hint..wire.len()).chain(0..hint).find(|i| u64::from(own[usize::from(wire[*i].field)].number) == number);
        let Some(position) = found else { continue };
        hint = position;
        field(&own[usize::from(wire[position].field)], raw, map, room)?;
    }
    Ok(())
}

fn field(field: &'static Field, raw: Raw<'_>, map: &mut Map<String, Value>, room: Room<'_>) -> Result<(), DecodeError> {
    match field.shape {
        Shape::Message(ty) if field.inline() => fields(ty.get(), bytes_of(raw)?, map, room),
        Shape::List(of) => {
            let list = collection(map, field, || Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Ok(()) };
            match (of.is_packable(), raw) {
                (true, Raw::Bytes(packed)) => {
                    let mut reader = Reader::new(packed);
                    while !reader.is_empty() {
                        room.budget.item(list.len())?;
                        list.push(value(of, Raw::Varint(reader.varint()?), room)?);
                    }
                }
                _ => push(list, value(of, raw, room)?, room)?,
            }
            Ok(())
        }
        Shape::Map(of) => {
            let (key, value) = entry(of, bytes_of(raw)?, room)?;
            if let Value::Object(entries) = collection(map, field, || Value::Object(Map::new())) {
                room.budget.entry(entries.len(), &key)?;
                entries.insert(key, value);
            }
            Ok(())
        }
        shape => {
            let value = value(shape, raw, room)?;
            canon::put(map, field, value);
            Ok(())
        }
    }
}

fn push(list: &mut Vec<Value>, item: Value, room: Room<'_>) -> Result<(), DecodeError> {
    room.budget.item(list.len())?;
    if let Value::String(text) = &item {
        room.budget.text(text)?;
    }
    list.push(item);
    Ok(())
}

fn collection<'a>(map: &'a mut Map<String, Value>, field: &Field, new: fn() -> Value) -> &'a mut Value {
    if !map.contains_key(field.name) {
        map.insert(field.name.to_owned(), Value::Null);
    }
    let slot = &mut map[field.name];
    if slot.is_null() {
        *slot = new();
    }
    slot
}

fn entry(of: &'static Shape, bytes: &[u8], room: Room<'_>) -> Result<(String, Value), DecodeError> {
    let (mut key, mut content) = (String::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        match number {
            1 => key = utf8(bytes_of(raw)?)?.to_owned(),
            2 => content = Some(value(of, raw, room)?),
            _ => {}
        }
    }
    let content = match content {
        Some(content) => content,
        None => room.budget.zero(canon::zero_in_map(of))?,
    };
    Ok((key, content))
}

fn value(shape: &'static Shape, raw: Raw<'_>, room: Room<'_>) -> Result<Value, DecodeError> {
    Ok(match shape {
        Shape::Str => Value::from(utf8(bytes_of(raw)?)?),
        Shape::Bool => Value::Bool(varint_of(raw)? != 0),
        // As in Go: what does not fit is cut.
        Shape::I32 => Value::from(varint_of(raw)? as i32),
        Shape::I64 => Value::from(varint_of(raw)? as i64),
        Shape::U32 => Value::from(varint_of(raw)? as u32),
        Shape::U64 => Value::from(varint_of(raw)?),
        Shape::F64 => match raw {
            Raw::Fixed64(bits) => tiphys_yaml::float(f64::from_bits(bits)),
            Raw::Fixed32(bits) => tiphys_yaml::float(f32::from_bits(bits).into()),
            _ => return Err(wrong_wire()),
        },
        Shape::Bytes => Value::String(base64::encode(bytes_of(raw)?)),
        Shape::Message(ty) => Value::Object(nested(ty.get(), bytes_of(raw)?, room)?),
        Shape::Items(of) => items(of, bytes_of(raw)?, room)?,
        Shape::List(_) | Shape::Map(_) | Shape::Any => return Err(wrong_wire()),
        special => special_value(special, bytes_of(raw)?, room)?,
    })
}

fn items(of: &'static Shape, bytes: &[u8], room: Room<'_>) -> Result<Value, DecodeError> {
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        if number == 1 {
            push(&mut list, value(of, raw, room)?, room)?;
        }
    }
    Ok(Value::Array(list))
}

/// Messages that JSON knows in another form.
fn special_value(shape: &'static Shape, bytes: &[u8], room: Room<'_>) -> Result<Value, DecodeError> {
    match shape {
        Shape::Time | Shape::MicroTime => time(*shape == Shape::MicroTime, bytes),
        Shape::Duration => Ok(Value::from(tiphys_meta::duration::go_string(single_varint(bytes)? as i64))),
        Shape::Quantity => match raw_content(bytes)? {
            Some(text) if !text.is_empty() => canon::quantity(utf8(text)?).map(Value::from).map_err(DecodeError::Type),
            _ => Ok(Value::from("0")),
        },
        Shape::IntOrString => int_or_string(bytes),
        Shape::Raw | Shape::FieldsV1 | Shape::Json => embedded(bytes, room),
        Shape::OrBool(ty) | Shape::OrArray(ty) | Shape::OrStrings(ty) => union(shape, ty.get(), bytes, room),
        _ => Err(wrong_wire()),
    }
}

fn time(micro: bool, bytes: &[u8]) -> Result<Value, DecodeError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        match number {
            1 => seconds = varint_of(raw)? as i64,
            2 => nanos = u32::try_from(varint_of(raw)? as i32).unwrap_or(0),
            _ => {}
        }
    }
    let time = go::Instant { seconds, nanos: if micro { nanos / 1000 * 1000 } else { 0 } };
    // Years beyond 9999 or before 0 print no RFC 3339 in Go either.
    if !(-62_167_219_200..253_402_300_800).contains(&seconds) {
        return Err(DecodeError::Type("Time.MarshalJSON: year outside of range [0,9999]".into()));
    }
    Ok(match (time.is_zero(), micro) {
        (true, _) => Value::Null,
        (_, true) => Value::String(time.text_micro()),
        (_, false) => Value::String(time.text()),
    })
}

fn int_or_string(bytes: &[u8]) -> Result<Value, DecodeError> {
    let (mut is_string, mut int, mut text) = (false, 0, "");
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        match number {
            1 => is_string = varint_of(raw)? != 0,
            2 => int = varint_of(raw)? as i32,
            3 => text = utf8(bytes_of(raw)?)?,
            _ => {}
        }
    }
    Ok(if is_string { Value::from(text) } else { Value::from(int) })
}

/// JSON within protobuf; or an object in protobuf within protobuf, as in watch events and lists of anything.
fn embedded(bytes: &[u8], room: Room<'_>) -> Result<Value, DecodeError> {
    let content = match raw_content(bytes)? {
        None | Some([]) => return Ok(Value::Null),
        Some(content) => content,
    };
    if super::is_proto(content) {
        // Counted on: objects within objects are as deep as their sender likes.
        let envelope = super::open(content)?;
        return object_in(super::kind_of(&envelope)?, &envelope, room);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(content);
    let value = RawJson(room.budget).deserialize(&mut deserializer).and_then(|v| deserializer.end().map(|()| v));
    value.map_err(|e| if room.budget.is_overdrawn() { DecodeError::TooLarge } else { DecodeError::Syntax(go::syntax_error(&e, content)) })
}

fn union(shape: &Shape, ty: &'static Type, bytes: &[u8], room: Room<'_>) -> Result<Value, DecodeError> {
    let (mut allows, mut schema, mut list) = (false, None, Vec::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        match (shape, number) {
            (Shape::OrBool(_), 1) => allows = varint_of(raw)? != 0,
            (Shape::OrBool(_), 2) | (Shape::OrArray(_) | Shape::OrStrings(_), 1) => {
                schema = Some(Value::Object(nested(ty, bytes_of(raw)?, room)?));
            }
            (Shape::OrArray(_), 2) => push(&mut list, Value::Object(nested(ty, bytes_of(raw)?, room)?), room)?,
            (Shape::OrStrings(_), 2) => push(&mut list, Value::from(utf8(bytes_of(raw)?)?), room)?,
            _ => {}
        }
    }
    Ok(match (shape, schema) {
        (Shape::OrArray(_) | Shape::OrStrings(_), _) if !list.is_empty() => Value::Array(list),
        (_, Some(schema)) => schema,
        (Shape::OrBool(_), None) => Value::Bool(allows),
        _ => Value::Null,
    })
}

/// Field 1 of a message that is nothing but bytes or text.
fn raw_content(bytes: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    let mut content = None;
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        if let (1, Raw::Bytes(bytes)) = (number, raw) {
            content = Some(bytes);
        }
    }
    Ok(content)
}

fn single_varint(bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0;
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        if number == 1 {
            value = varint_of(raw)?;
        }
    }
    Ok(value)
}

fn wrong_wire() -> DecodeError {
    DecodeError::Syntax("proto: wrong wireType".into())
}

fn varint_of(raw: Raw<'_>) -> Result<u64, DecodeError> {
    match raw {
        Raw::Varint(value) => Ok(value),
        _ => Err(wrong_wire()),
    }
}

fn bytes_of(raw: Raw<'_>) -> Result<&[u8], DecodeError> {
    match raw {
        Raw::Bytes(bytes) => Ok(bytes),
        _ => Err(wrong_wire()),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Syntax("proto: string field contains invalid UTF-8".into()))
}
