//! The canonical tree to protobuf.

use serde_json::{Map, Value};
use tiphys_meta::{Gvk, base64, duration};

use super::wire::{FIXED64, VARINT, put_bytes, put_int, put_nested, put_tag, put_varint};
use crate::codec::{EncodeError, go};
use crate::facts::{Field, MOST_FIELDS, Shape, Type};

type Result<T = ()> = std::result::Result<T, EncodeError>;
type Object = Map<String, Value>;

pub(super) fn envelope(out: &mut Vec<u8>, gvk: &Gvk, content: impl FnOnce(&mut Vec<u8>) -> Result) -> Result {
    put_nested(out, 1, |out| {
        put_bytes(out, 1, gvk.api_version().as_bytes());
        put_bytes(out, 2, gvk.kind.as_bytes());
        Ok(())
    })?;
    put_nested(out, 2, content)?;
    // Content encoding and content type are empty.
    put_bytes(out, 3, b"");
    put_bytes(out, 4, b"");
    Ok(())
}

pub(super) fn watch_event(event: &str, object: &[u8], out: &mut Vec<u8>) {
    put_bytes(out, 1, event.as_bytes());
    // The object is a RawExtension: a message with the bytes as field 1.
    let mut length = Vec::with_capacity(5);
    put_varint(&mut length, object.len() as u64);
    put_tag(out, 2, 2);
    put_varint(out, (1 + length.len() + object.len()) as u64);
    put_bytes(out, 1, object);
}

/// The fields of a message, in the order of their numbers. `None` is the zero value.
pub(super) fn message(ty: &'static Type, object: Option<&Object>, out: &mut Vec<u8>) -> Result {
    let index = ty.index();
    let mut values = [None; MOST_FIELDS];
    // An object has few of the fields that its type has: those are looked up, not these.
    for (name, value) in object.into_iter().flatten() {
        if let Some(slot) = index.position(name).and_then(|at| values.get_mut(at)) {
            *slot = Some(value).filter(|v| !v.is_null());
        }
    }
    let own = ty.fields();
    for wired in &index.wire {
        let field = &own[usize::from(wired.field)];
        match field.shape {
            Shape::Message(inner) if field.inline() => put_nested(out, field.number, |out| message(inner.get(), object, out))?,
            _ => write_field(field, values.get(usize::from(wired.name)).copied().flatten(), out)?,
        }
    }
    Ok(())
}

/// The items of a list, after everything else of it; upstream's lists have them as their last field.
pub(super) fn items<'a>(list: &'static Type, items: impl Iterator<Item = &'a Value>, out: &mut Vec<u8>) -> Result {
    let Some(flat) = list.field("items") else { return Ok(()) };
    let Shape::List(of) = flat.field.shape else { return Ok(()) };
    for item in items {
        write(flat.field, of, Some(item), out)?;
    }
    Ok(())
}

fn write_field(field: &'static Field, value: Option<&Value>, out: &mut Vec<u8>) -> Result {
    match (field.shape, value) {
        (Shape::List(_) | Shape::Map(_) | Shape::Items(_) | Shape::Bytes, None) => Ok(()),
        (_, None) if field.pointer() => Ok(()),
        (Shape::List(of), Some(Value::Array(list))) => list.iter().try_for_each(|item| write(field, of, Some(item), out)),
        (Shape::Map(of), Some(Value::Object(entries))) => entries.iter().try_for_each(|(key, value)| {
            put_nested(out, field.number, |out| {
                put_bytes(out, 1, key.as_bytes());
                write_numbered(field, 2, of, Some(value).filter(|v| !v.is_null()), out)
            })
        }),
        (Shape::List(_) | Shape::Map(_), Some(other)) => Err(unfit(field, field.shape, other)),
        (shape, value) => write(field, shape, value, out),
    }
}

fn write(field: &'static Field, shape: &'static Shape, value: Option<&Value>, out: &mut Vec<u8>) -> Result {
    write_numbered(field, field.number, shape, value.filter(|v| !v.is_null()), out)
}

/// One value with its tag. `None` writes the zero value.
fn write_numbered(field: &'static Field, number: u16, shape: &'static Shape, value: Option<&Value>, out: &mut Vec<u8>) -> Result {
    match (shape, value) {
        (Shape::Str, None) => put_bytes(out, number, b""),
        (Shape::Str, Some(Value::String(text))) => put_bytes(out, number, text.as_bytes()),
        (Shape::Bool, None) => put_int(out, number, 0),
        (Shape::Bool, Some(Value::Bool(b))) => put_int(out, number, i64::from(*b)),
        (Shape::I32 | Shape::I64 | Shape::U32 | Shape::U64, None) => put_int(out, number, 0),
        (Shape::I32 | Shape::I64 | Shape::U32 | Shape::U64, Some(Value::Number(n))) => {
            put_tag(out, number, VARINT);
            let bits = n.as_u64().or_else(|| n.as_i64().map(|n| n as u64));
            put_varint(out, bits.ok_or_else(|| unfit(field, shape, &Value::Number(n.clone())))?);
        }
        (Shape::F64, value) => {
            let float = value.map_or(Some(0.0), Value::as_f64).ok_or_else(|| unfit(field, shape, value.unwrap_or(&Value::Null)))?;
            put_tag(out, number, FIXED64);
            out.extend_from_slice(&float.to_bits().to_le_bytes());
        }
        (Shape::Bytes, None) => put_bytes(out, number, b""),
        (Shape::Bytes, Some(Value::String(text))) => {
            let bytes = base64::decode(text).map_err(|_| unfit(field, shape, &Value::String(text.clone())))?;
            put_bytes(out, number, &bytes);
        }
        (Shape::Message(ty), None) => put_nested(out, number, |out| message(ty.get(), None, out))?,
        (Shape::Message(ty), Some(Value::Object(object))) => put_nested(out, number, |out| message(ty.get(), Some(object), out))?,
        (Shape::Items(_), None) => put_bytes(out, number, b""),
        (Shape::Items(of), Some(Value::Array(list))) => put_nested(out, number, |out| {
            list.iter().try_for_each(|item| write_numbered(field, 1, of, Some(item).filter(|v| !v.is_null()), out))
        })?,
        (Shape::Any, _) => {}
        (special, value) => put_nested(out, number, |out| write_special(field, special, value, out))?,
    }
    Ok(())
}

/// Messages that JSON knows in another form.
fn write_special(field: &'static Field, shape: &'static Shape, value: Option<&Value>, out: &mut Vec<u8>) -> Result {
    match (shape, value) {
        (Shape::Time | Shape::MicroTime | Shape::Raw | Shape::FieldsV1 | Shape::Json | Shape::OrArray(_) | Shape::OrStrings(_), None) => {}
        (Shape::Time | Shape::MicroTime, Some(Value::String(text))) => {
            let micro = *shape == Shape::MicroTime;
            // Micro times are read by RFC 3339 here: whatever is in the tree has been through `parse_micro_time` or is ours.
            let time = go::parse_time(text).map_err(|_| unfit(field, shape, &Value::String(text.clone())))?;
            put_int(out, 1, time.seconds);
            put_int(out, 2, if micro { i64::from(time.nanos / 1000 * 1000) } else { 0 });
        }
        (Shape::Duration, None) => put_int(out, 1, 0),
        (Shape::Duration, Some(Value::String(text))) => {
            put_int(out, 1, duration::parse(text).ok_or_else(|| unfit(field, shape, &Value::String(text.clone())))?);
        }
        (Shape::Quantity, None) => put_bytes(out, 1, b"0"),
        (Shape::Quantity, Some(Value::String(text))) => put_bytes(out, 1, text.as_bytes()),
        (Shape::IntOrString, value) => write_int_or_string(field, value, out)?,
        (Shape::Raw | Shape::FieldsV1 | Shape::Json, Some(value)) => put_bytes(out, 1, &crate::codec::json::encode_bare(value)),
        (Shape::OrBool(_) | Shape::OrArray(_) | Shape::OrStrings(_), value) => write_union(field, shape, value, out)?,
        (shape, Some(value)) => return Err(unfit(field, shape, value)),
        (_, None) => {}
    }
    Ok(())
}

fn write_int_or_string(field: &'static Field, value: Option<&Value>, out: &mut Vec<u8>) -> Result {
    let (int, text) = match value {
        None => (Some(0), None),
        Some(Value::Number(n)) => (n.as_i64(), None),
        Some(Value::String(text)) => (Some(0), Some(text)),
        Some(other) => return Err(unfit(field, &Shape::IntOrString, other)),
    };
    put_int(out, 1, i64::from(text.is_some()));
    put_int(out, 2, int.ok_or_else(|| unfit(field, &Shape::IntOrString, value.unwrap_or(&Value::Null)))?);
    put_bytes(out, 3, text.map_or("", |t| t).as_bytes());
    Ok(())
}

fn write_union(field: &'static Field, shape: &'static Shape, value: Option<&Value>, out: &mut Vec<u8>) -> Result {
    match (shape, value) {
        (Shape::OrBool(_), None) => put_int(out, 1, 0),
        (Shape::OrBool(_), Some(Value::Bool(allows))) => put_int(out, 1, i64::from(*allows)),
        (Shape::OrBool(ty), Some(Value::Object(schema))) => {
            put_int(out, 1, 1);
            put_nested(out, 2, |out| message(ty.get(), Some(schema), out))?;
        }
        (Shape::OrArray(ty) | Shape::OrStrings(ty), Some(Value::Object(schema))) => {
            put_nested(out, 1, |out| message(ty.get(), Some(schema), out))?;
        }
        (Shape::OrArray(ty), Some(Value::Array(list))) => {
            for item in list {
                put_nested(out, 2, |out| message(ty.get(), item.as_object(), out))?;
            }
        }
        (Shape::OrStrings(_), Some(Value::Array(list))) => {
            list.iter().for_each(|item| put_bytes(out, 2, item.as_str().unwrap_or("").as_bytes()));
        }
        (shape, value) => return Err(unfit(field, shape, value.unwrap_or(&Value::Null))),
    }
    Ok(())
}

fn unfit(field: &Field, wanted: &Shape, found: &Value) -> EncodeError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    EncodeError::Shape { field: field.name.to_owned(), wanted: wanted.go_name(), found: found.to_owned() }
}
