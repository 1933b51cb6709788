//! Conversions between kinds: `int('3')`, `string(1.5)`.

use crate::types::Type;
use crate::value::{Eval, Text, Val, fail, no_overload};
use crate::{functions, time};

pub(crate) fn convert<'a>(value: &Val<'a>, to: &Type) -> Eval<Val<'a>> {
    match to {
        Type::Bool => boolean(value),
        Type::Int => int(value),
        Type::Uint => uint(value),
        Type::Double => double(value),
        Type::String => match value {
            Val::Str(s) => Ok(Val::Str(s.clone())),
            other => text(other).map(Val::text),
        },
        Type::Bytes => match value {
            Val::Bytes(b) => Ok(Val::Bytes(b.clone())),
            Val::Str(s) => Ok(Val::Bytes(s.as_bytes().into())),
            _ => mismatch(value, to),
        },
        Type::Timestamp => timestamp(value),
        Type::Duration => duration(value),
        _ => no_overload(),
    }
}

fn mismatch<T>(value: &Val<'_>, to: &Type) -> Eval<T> {
    fail(format!("type conversion error from '{}' to '{}'", value.type_of().runtime_name(), to.runtime_name()))
}

fn boolean<'a>(value: &Val<'a>) -> Eval<Val<'a>> {
    match value {
        Val::Bool(b) => Ok(Val::Bool(*b)),
        Val::Str(s) => match &**s {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Val::Bool(false)),
            _ => mismatch(value, &Type::Bool),
        },
        _ => no_overload(),
    }
}

fn int<'a>(value: &Val<'a>) -> Eval<Val<'a>> {
    let overflow = || fail("integer overflow");
    Ok(Val::Int(match value {
        Val::Int(i) => *i,
        Val::Uint(u) => return i64::try_from(*u).map_or_else(|_| overflow(), |i| Ok(Val::Int(i))),
        // The bounds themselves are not whole numbers of 64 bits once rounded.
        Val::Double(d) if *d > -9_223_372_036_854_775_808.0 && *d < 9_223_372_036_854_775_808.0 => *d as i64,
        Val::Double(_) => return overflow(),
        Val::Str(s) => return s.parse().map_or_else(|_| mismatch(value, &Type::Int), |i| Ok(Val::Int(i))),
        Val::Timestamp(t) => t.seconds,
        Val::Duration(d) => *d,
        _ => return no_overload(),
    }))
}

fn uint<'a>(value: &Val<'a>) -> Eval<Val<'a>> {
    let overflow = || fail("unsigned integer overflow");
    Ok(Val::Uint(match value {
        Val::Uint(u) => *u,
        Val::Int(i) => return u64::try_from(*i).map_or_else(|_| overflow(), |u| Ok(Val::Uint(u))),
        Val::Double(d) if *d >= 0.0 && *d < 18_446_744_073_709_551_616.0 => *d as u64,
        Val::Double(_) => return overflow(),
        Val::Str(s) => return s.parse().map_or_else(|_| mismatch(value, &Type::Uint), |u| Ok(Val::Uint(u))),
        _ => return no_overload(),
    }))
}

fn double<'a>(value: &Val<'a>) -> Eval<Val<'a>> {
    Ok(Val::Double(match value {
        Val::Double(d) => *d,
        Val::Int(i) => *i as f64,
        Val::Uint(u) => *u as f64,
        Val::Str(s) => return s.parse().map_or_else(|_| mismatch(value, &Type::Double), |d| Ok(Val::Double(d))),
        _ => return no_overload(),
    }))
}

fn timestamp<'a>(value: &Val<'a>) -> Eval<Val<'a>> {
    let overflow = || fail("timestamp overflow");
    match value {
        Val::Timestamp(t) => Ok(Val::Timestamp(*t)),
        Val::Int(i) => time::Instant::of_nanos(i128::from(*i) * 1_000_000_000).map_or_else(overflow, |t| Ok(Val::Timestamp(t))),
        Val::Str(s) => time::parse(s).map_or_else(|| mismatch(value, &Type::Timestamp), |t| Ok(Val::Timestamp(t))),
        _ => no_overload(),
    }
}

fn duration<'a>(value: &Val<'a>) -> Eval<Val<'a>> {
    match value {
        Val::Duration(d) => Ok(Val::Duration(*d)),
        Val::Int(i) => Ok(Val::Duration(*i)),
        Val::Str(s) => tiphys_meta::duration::parse(s).map_or_else(|| mismatch(value, &Type::Duration), |d| Ok(Val::Duration(d))),
        _ => no_overload(),
    }
}

/// The text of a value of a kind that `string()` takes.
pub(crate) fn text(value: &Val<'_>) -> Eval<String> {
    Ok(match value {
        Val::Str(s) => s.to_string(),
        Val::Bool(b) => b.to_string(),
        Val::Int(i) => i.to_string(),
        Val::Uint(u) => u.to_string(),
        Val::Double(d) => float(*d),
        Val::Bytes(b) => match std::str::from_utf8(b) {
            Ok(text) => text.to_owned(),
            Err(_) => return fail("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Val::Timestamp(t) => t.format(),
        Val::Duration(d) => time::format_duration(*d),
        Val::Opaque(functions::opaque::Opaque::Ip(ip)) => ip.to_string(),
        Val::Opaque(functions::opaque::Opaque::Cidr(ip, bits)) => format!("{ip}/{bits}"),
        _ => return no_overload(),
    })
}

/// Go's `%g`: the shortest form, with an exponent where that is far from 1.
pub(crate) fn float(d: f64) -> String {
    if d.is_nan() {
        return "NaN".into();
    }
    if d.is_infinite() {
        return if d > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{d:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let power: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&power) {
        return format!("{d}");
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", power.abs())
}

/// An argument that must be a string.
pub(crate) fn string<'v>(value: &'v Val<'_>) -> Eval<&'v str> {
    match value {
        Val::Str(Text::Borrowed(text)) => Ok(text),
        Val::Str(Text::Shared(text)) => Ok(text),
        _ => no_overload(),
    }
}
