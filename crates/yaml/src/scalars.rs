//! What a plain scalar is, as `resolve.go` of `go.yaml.in/yaml/v2` has it. Whoever reads asks for the value, and whoever prints whether there need be
//! quotes.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// As a key it takes in other mappings, unless it is quoted.
pub(crate) const MERGE: &str = "<<";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// Beyond the positive numbers of the former.
    Uint(u64),
    Float(f64),
    /// It stays a text.
    Time,
    Text,
}

pub(crate) fn resolve(text: &str) -> Scalar {
    match text.as_bytes().first() {
        None => Scalar::Null,
        Some(b'.') => word(text).or_else(|| dotted(text)).unwrap_or(Scalar::Text),
        Some(b'0'..=b'9' | b'+' | b'-') => word(text).or_else(|| number(text)).unwrap_or(Scalar::Text),
        Some(_) => word(text).unwrap_or(Scalar::Text),
    }
}

fn word(text: &str) -> Option<Scalar> {
    Some(match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Scalar::Bool(false),
        "~" | "null" | "Null" | "NULL" => Scalar::Null,
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Scalar::Float(f64::NEG_INFINITY),
        _ => return None,
    })
}

/// Behind a point Go's own floats are taken, which may have underlines between digits.
fn dotted(text: &str) -> Option<Scalar> {
    let digit = |c: Option<&u8>| c.is_some_and(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    let parts_digits = (1..bytes.len()).all(|i| bytes[i] != b'_' || (digit(bytes.get(i - 1)) && digit(bytes.get(i + 1))));
    if parts_digits { finite(&text.replace('_', "")) } else { None }
}

fn number(text: &str) -> Option<Scalar> {
    static FLOAT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$").ok());
    if is_time(text) {
        return Some(Scalar::Time);
    }
    let plain = text.replace('_', "");
    let float = || FLOAT.as_ref().filter(|shape| shape.is_match(&plain)).and_then(|_| finite(&plain));
    integer(&plain).or_else(float).or_else(|| signed_binary(&plain))
}

/// What overflows is a text.
fn finite(text: &str) -> Option<Scalar> {
    text.parse::<f64>().ok().filter(|f| f.is_finite()).map(Scalar::Float)
}

/// In any base that has a prefix, a nought alone among them (`strconv.ParseInt` and `ParseUint` with base 0).
fn integer(text: &str) -> Option<Scalar> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', _, ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', _, ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.starts_with(['-', '+']) {
        return None;
    }
    let amount = u64::from_str_radix(digits, base).ok()?;
    let small = i64::try_from(amount);
    match text.as_bytes()[0] {
        b'-' => small.map(|n| -n).ok().or((amount == 1 << 63).then_some(i64::MIN)).map(Scalar::Int),
        b'+' => small.ok().map(Scalar::Int),
        _ => Some(small.map_or(Scalar::Uint(amount), Scalar::Int)),
    }
}

/// `0b-1`: Go's library takes it.
fn signed_binary(text: &str) -> Option<Scalar> {
    i64::from_str_radix(text.strip_prefix("0b")?, 2).ok().map(Scalar::Int)
}

/// Numbers to the base of sixty, which other readers take for numbers; this one does not.
pub(crate) fn is_of_sixties(text: &str) -> bool {
    static SHAPE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$").ok());
    SHAPE.as_ref().is_some_and(|shape| shape.is_match(text))
}

/// A date, or a date and a time, as Go's parser takes them.
fn is_time(text: &str) -> bool {
    static SHAPE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let time = r"(\d{1,2}):(\d{1,2}):(\d{1,2})([.,]\d+)?";
        Regex::new(&format!(r"^(\d{{4}})-(\d{{1,2}})-(\d{{1,2}})(?:(?:[Tt]{time}(?:Z|[-+]\d\d:\d\d))|(?: {time}))?$")).ok()
    });
    let Some(found) = SHAPE.as_ref().and_then(|shape| shape.captures(text)) else { return false };
    let part = |i: usize| found.get(i).and_then(|m| m.as_str().parse::<u32>().ok());
    let (year, month, day) = (part(1).unwrap_or(0), part(2).unwrap_or(0), part(3).unwrap_or(0));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return false,
    };
    let within = |first: usize| part(first).is_none_or(|h| h < 24) && [1, 2].iter().all(|i| part(first + i).is_none_or(|n| n < 60));
    (1..=days).contains(&day) && within(4) && within(8)
}

/// A float as Go prints it in JSON: without a fraction where there is none.
#[must_use]
pub fn float(number: f64) -> Value {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    match number {
        n if n.fract() != 0.0 || n.is_sign_negative() && n == 0.0 => Value::from(n),
        n if (-TWO_TO_63..TWO_TO_63).contains(&n) => Value::from(n as i64),
        n if (TWO_TO_63..2.0 * TWO_TO_63).contains(&n) => Value::from(n as u64),
        n => Value::from(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_those_of_gos_library() {
        use Scalar::{Bool, Float, Int, Null, Text, Time, Uint};
        for (text, scalar) in [
            ("", Null),
            ("~", Null),
            ("nULL", Text),
            ("On", Bool(true)),
            ("nO", Text),
            ("0", Int(0)),
            ("-0", Int(0)),
            ("00", Int(0)),
            ("0644", Int(420)),
            ("0o17", Int(15)),
            ("089", Float(89.0)),
            ("0x1F", Int(31)),
            ("0x", Text),
            ("-0x1f", Int(-31)),
            ("+0b11", Int(3)),
            ("0b-1", Int(-1)),
            ("0b2", Text),
            ("0o8", Text),
            ("--1", Text),
            ("0-1", Text),
            ("1_000", Int(1000)),
            ("_1", Text),
            ("9223372036854775807", Int(i64::MAX)),
            ("9223372036854775808", Uint(1 << 63)),
            ("-9223372036854775808", Int(i64::MIN)),
            ("-9223372036854775809", Float(-9_223_372_036_854_775_809.0)),
            ("+9223372036854775808", Float(9_223_372_036_854_775_808.0)),
            ("99999999999999999999", Float(1e20)),
            ("0x1ffffffffffffffffffff", Text),
            ("1e3", Float(1000.0)),
            ("12e4567", Text),
            ("1e", Text),
            (".5", Float(0.5)),
            ("+.5", Float(0.5)),
            (".51_0", Float(0.51)),
            ("._5", Text),
            (".", Text),
            ("-.nan", Text),
            ("-.INF", Float(f64::NEG_INFINITY)),
            ("1:30", Text),
            ("2026-11-22", Time),
            ("2026-11-22T10:00:00Z", Time),
            ("2026-13-01", Text),
            ("1.2.3", Text),
            ("<<", Text),
        ] {
            assert_eq!(resolve(text), scalar, "{text}");
        }
    }

    #[test]
    fn whole_floats_are_integers() {
        for (number, value) in [
            (1e3, Value::from(1000)),
            (0.5, Value::from(0.5)),
            (-3e18, Value::from(-3_000_000_000_000_000_000_i64)),
            (1e19, Value::from(10_000_000_000_000_000_000_u64)),
            (1e20, Value::from(1e20)),
            (f64::NAN, Value::Null),
        ] {
            assert_eq!(float(number), value);
        }
    }
}
