//! `'…%s…'.format([…])`: cel-go's formatting (`ext/formatting.go`). Numbers are printed as in English, without grouping.

use crate::convert;
use crate::types::Type;
use crate::value::{Eval, List, Map, Val, fail};

const PRECISION: usize = 6;

pub(crate) fn format(pattern: &str, values: &List<'_>) -> Eval<String> {
    let mut out = String::new();
    let (mut chars, mut used) = (pattern.chars().peekable(), 0);
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let digits: String = std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
            precision =
                Some(digits.parse::<usize>().ok().filter(|p| *p <= 1000).map_or_else(|| fail("could not parse precision clause"), Ok)?);
        }
        let Some(verb) = chars.next() else { return fail("unexpected end of string") };
        let Some(value) = values.get(used) else { return fail(format!("index {used} out of range")) };
        used += 1;
        out.push_str(&clause(verb, precision, &value)?);
    }
    Ok(out)
}

fn clause(verb: char, precision: Option<usize>, value: &Val<'_>) -> Eval<String> {
    match verb {
        's' => plain(value),
        'd' => match value {
            Val::Int(_) | Val::Uint(_) => convert::text(value),
            other => wrong("decimal clause can only be used on integers", other),
        },
        'f' => Ok(format!("{:.*}", precision.unwrap_or(PRECISION), double(value, "fixed-point clause can only be used on doubles")?)),
        'e' => Ok(scientific(double(value, "scientific clause can only be used on doubles")?, precision.unwrap_or(PRECISION))),
        'b' => match value {
            Val::Int(i) if *i < 0 => Ok(format!("-{:b}", i.unsigned_abs())),
            Val::Int(i) => Ok(format!("{i:b}")),
            Val::Uint(u) => Ok(format!("{u:b}")),
            Val::Bool(b) => Ok(u8::from(*b).to_string()),
            other => wrong("only integers and bools can be formatted as binary", other),
        },
        'x' => hex(value),
        'X' => Ok(hex(value)?.to_uppercase()),
        'o' => match value {
            Val::Int(i) if *i < 0 => Ok(format!("-{:o}", i.unsigned_abs())),
            Val::Int(i) => Ok(format!("{i:o}")),
            Val::Uint(u) => Ok(format!("{u:o}")),
            other => wrong("octal clause can only be used on integers", other),
        },
        other => fail(format!("could not parse formatting clause: unrecognized formatting clause \"{other}\"")),
    }
}

fn wrong<T>(why: &str, value: &Val<'_>) -> Eval<T> {
    fail(format!("error during formatting: {why}, was given {}", value.type_of().runtime_name()))
}

fn double(value: &Val<'_>, why: &str) -> Eval<f64> {
    match value {
        Val::Double(d) => Ok(*d),
        Val::Str(s) if matches!(&**s, "NaN" | "Infinity" | "-Infinity") => Ok(s.parse().unwrap_or(f64::NAN)),
        other => wrong(why, other),
    }
}

fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    match text.split_once('e') {
        Some((mantissa, power)) => {
            let power: i32 = power.parse().unwrap_or(0);
            format!("{mantissa}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
        }
        None => text,
    }
}

fn hex(value: &Val<'_>) -> Eval<String> {
    let bytes = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match value {
        Val::Int(i) if *i < 0 => Ok(format!("-{:x}", i.unsigned_abs())),
        Val::Int(i) => Ok(format!("{i:x}")),
        Val::Uint(u) => Ok(format!("{u:x}")),
        Val::Str(s) => Ok(bytes(s.as_bytes())),
        Val::Bytes(b) => Ok(bytes(b)),
        other => wrong("only integers, byte buffers, and strings can be formatted as hex", other),
    }
}

fn plain(value: &Val<'_>) -> Eval<String> {
    match value {
        Val::List(list) => self::list(list),
        Val::Map(map) => self::map(map),
        Val::Type(t) => Ok(t.runtime_name()),
        Val::Null => Ok("null".into()),
        Val::Str(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Bool(_) | Val::Bytes(_) | Val::Timestamp(_) | Val::Duration(_) => {
            convert::text(value)
        }
        other => wrong(
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps",
            other,
        ),
    }
}

/// A value inside a list or a map: as a literal.
fn nested(value: &Val<'_>) -> Eval<String> {
    Ok(match value {
        Val::Str(s) => super::strings::quote(s),
        Val::Bytes(_) => format!("b{}", super::strings::quote(&convert::text(value)?)),
        Val::Double(d) => format!("{d:.PRECISION$}"),
        Val::Timestamp(_) => format!("timestamp(\"{}\")", convert::text(value)?),
        Val::Duration(_) => format!("duration(\"{}\")", convert::text(value)?),
        Val::Opaque(_) | Val::Struct(_) | Val::Object(..) | Val::Optional(_) => {
            let name = match value.type_of() {
                Type::Struct(name) => name.to_string(),
                other => other.runtime_name(),
            };
            return fail(format!("no formatting function for {name}"));
        }
        other => plain(other)?,
    })
}

fn list(list: &List<'_>) -> Eval<String> {
    let items: Vec<String> = list.iter().map(|v| nested(&v)).collect::<Eval<_>>()?;
    Ok(format!("[{}]", items.join(", ")))
}

fn map(map: &Map<'_>) -> Eval<String> {
    let mut items = Vec::new();
    for key in map.keys() {
        let value = map.get(&key).unwrap_or(Val::Null);
        items.push((nested(&key)?, nested(&value)?));
    }
    items.sort();
    let items: Vec<String> = items.into_iter().map(|(k, v)| format!("{k}: {v}")).collect();
    Ok(format!("{{{}}}", items.join(", ")))
}
