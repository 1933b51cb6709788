//! Operators, conversions, sizes and times of the standard library.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::convert;
use crate::time::{self, Instant};
use crate::types::Type;
use crate::value::{Eval, Key, List, Map, Val, compare, equal, fail, no_overload};

pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    Some(match (name, args) {
        ("_==_", [a, b]) => Ok(Val::Bool(equal(a, b))),
        ("_!=_", [a, b]) => Ok(Val::Bool(!equal(a, b))),
        ("_<_", [a, b]) => compare(a, b).map(|o| Val::Bool(o == Ordering::Less)),
        ("_<=_", [a, b]) => compare(a, b).map(|o| Val::Bool(o != Ordering::Greater)),
        ("_>_", [a, b]) => compare(a, b).map(|o| Val::Bool(o == Ordering::Greater)),
        ("_>=_", [a, b]) => compare(a, b).map(|o| Val::Bool(o != Ordering::Less)),
        ("_+_", [a, b]) => add(a, b),
        ("_-_", [a, b]) => subtract(a, b),
        ("_*_", [a, b]) => multiply(a, b),
        ("_/_", [a, b]) => divide(a, b),
        ("_%_", [a, b]) => modulo(a, b),
        ("-_", [a]) => negate(a),
        ("!_", [Val::Bool(b)]) => Ok(Val::Bool(!b)),
        ("@in", [a, b]) => member(a, b),
        ("size", [v]) => size(v),
        ("type", [v]) => Ok(Val::Type(v.type_of())),
        ("dyn", [v]) => Ok(v.clone()),
        ("bool", [v]) => convert::convert(v, &Type::Bool),
        ("int", [v]) => convert::convert(v, &Type::Int),
        ("uint", [v]) => convert::convert(v, &Type::Uint),
        ("double", [v]) => convert::convert(v, &Type::Double),
        ("string", [v]) => convert::convert(v, &Type::String),
        ("bytes", [v]) => convert::convert(v, &Type::Bytes),
        ("timestamp", [v]) => convert::convert(v, &Type::Timestamp),
        ("duration", [v]) => convert::convert(v, &Type::Duration),
        ("contains", [Val::Str(a), Val::Str(b)]) => Ok(Val::Bool(a.contains(&**b))),
        ("startsWith", [Val::Str(a), Val::Str(b)]) => Ok(Val::Bool(a.starts_with(&**b))),
        ("endsWith", [Val::Str(a), Val::Str(b)]) => Ok(Val::Bool(a.ends_with(&**b))),
        ("cel.@mapInsert", [Val::Map(map), rest @ ..]) => insert(map, rest),
        (name, [Val::Duration(nanos)]) if name.starts_with("get") => return of_duration(name, *nanos),
        (name, [Val::Timestamp(t), zone @ ..]) if name.starts_with("get") => return of_timestamp(name, *t, zone),
        _ => return None,
    })
}

fn int<'a>(value: Option<i64>) -> Eval<Val<'a>> {
    value.map_or_else(|| fail("integer overflow"), |i| Ok(Val::Int(i)))
}

fn uint<'a>(value: Option<u64>) -> Eval<Val<'a>> {
    value.map_or_else(|| fail("unsigned integer overflow"), |u| Ok(Val::Uint(u)))
}

fn duration<'a>(value: Option<i64>) -> Eval<Val<'a>> {
    value.map_or_else(|| fail("duration overflow"), |d| Ok(Val::Duration(d)))
}

fn shifted<'a>(t: Instant, by: i64) -> Eval<Val<'a>> {
    Instant::of_nanos(t.total_nanos() + i128::from(by)).map_or_else(|| fail("timestamp overflow"), |t| Ok(Val::Timestamp(t)))
}

pub(crate) fn add<'a>(a: &Val<'a>, b: &Val<'a>) -> Eval<Val<'a>> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => int(a.checked_add(*b)),
        (Val::Uint(a), Val::Uint(b)) => uint(a.checked_add(*b)),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        (Val::Str(a), Val::Str(b)) => Ok(Val::text([&**a, &**b].concat())),
        (Val::Bytes(a), Val::Bytes(b)) => Ok(Val::Bytes([&**a, &**b].concat().into())),
        (Val::List(a), Val::List(b)) => Ok(concat(a, b)),
        (Val::Duration(a), Val::Duration(b)) => duration(a.checked_add(*b)),
        (Val::Timestamp(t), Val::Duration(d)) | (Val::Duration(d), Val::Timestamp(t)) => shifted(*t, *d),
        _ => no_overload(),
    }
}

/// Lists of type `set` and `map` keep their kind: what is there already is not added again.
fn concat<'a>(a: &List<'a>, b: &List<'a>) -> Val<'a> {
    if b.is_empty() {
        return Val::List(a.clone());
    }
    let set = matches!(a, List::Json(_, Some(schema)) if schema.is_unordered());
    let mut all: Vec<Val<'a>> = a.iter().collect();
    for item in b.iter() {
        if !set || !all.iter().any(|known| equal(known, &item)) {
            all.push(item);
        }
    }
    Val::list(all)
}

fn subtract<'a>(a: &Val<'a>, b: &Val<'a>) -> Eval<Val<'a>> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => int(a.checked_sub(*b)),
        (Val::Uint(a), Val::Uint(b)) => uint(a.checked_sub(*b)),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
        (Val::Duration(a), Val::Duration(b)) => duration(a.checked_sub(*b)),
        (Val::Timestamp(t), Val::Duration(d)) => match d.checked_neg() {
            Some(back) => shifted(*t, back),
            None => fail("timestamp overflow"),
        },
        (Val::Timestamp(a), Val::Timestamp(b)) => duration(i64::try_from(a.total_nanos() - b.total_nanos()).ok()),
        _ => no_overload(),
    }
}

fn multiply<'a>(a: &Val<'a>, b: &Val<'a>) -> Eval<Val<'a>> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => int(a.checked_mul(*b)),
        (Val::Uint(a), Val::Uint(b)) => uint(a.checked_mul(*b)),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
        _ => no_overload(),
    }
}

fn divide<'a>(a: &Val<'a>, b: &Val<'a>) -> Eval<Val<'a>> {
    match (a, b) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => fail("division by zero"),
        (Val::Int(a), Val::Int(b)) => int(a.checked_div(*b)),
        (Val::Uint(a), Val::Uint(b)) => uint(a.checked_div(*b)),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
        _ => no_overload(),
    }
}

fn modulo<'a>(a: &Val<'a>, b: &Val<'a>) -> Eval<Val<'a>> {
    match (a, b) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => fail("modulus by zero"),
        (Val::Int(a), Val::Int(b)) => int(a.checked_rem(*b)),
        (Val::Uint(a), Val::Uint(b)) => uint(a.checked_rem(*b)),
        _ => no_overload(),
    }
}

fn negate<'a>(a: &Val<'a>) -> Eval<Val<'a>> {
    match a {
        Val::Int(i) => int(i.checked_neg()),
        Val::Double(d) => Ok(Val::Double(-d)),
        Val::Duration(d) => duration(d.checked_neg()),
        _ => no_overload(),
    }
}

fn member<'a>(value: &Val<'a>, of: &Val<'a>) -> Eval<Val<'a>> {
    Ok(Val::Bool(match of {
        Val::List(list) => list.iter().any(|item| equal(&item, value)),
        Val::Map(map) => map.get(value).is_some(),
        Val::Object(..) | Val::Struct(_) => match value {
            Val::Str(name) => of.field(name)?.is_some(),
            _ => return no_overload(),
        },
        _ => return no_overload(),
    }))
}

fn size<'a>(value: &Val<'a>) -> Eval<Val<'a>> {
    match value {
        Val::Str(_) | Val::Bytes(_) | Val::List(_) | Val::Map(_) => Ok(Val::Int(value.size() as i64)),
        _ => no_overload(),
    }
}

fn insert<'a>(map: &Map<'a>, rest: &[Val<'a>]) -> Eval<Val<'a>> {
    let mut grown = match map {
        Map::Values(values) => (**values).clone(),
        json => json.keys().filter_map(|k| Some((Key::of(&k)?, json.get(&k)?))).collect(),
    };
    let mut put = |key: &Val<'a>, value: Val<'a>| match Key::of(key) {
        Some(k) if grown.contains_key(&k) => fail(format!("insert failed: key {} already exists", convert::text(key).unwrap_or_default())),
        Some(k) => {
            grown.insert(k, value);
            Ok(())
        }
        None => no_overload(),
    };
    match rest {
        [key, value] => put(key, value.clone())?,
        [Val::Map(more)] => more.keys().try_for_each(|key| more.get(&key).map_or(Ok(()), |value| put(&key, value)))?,
        _ => return no_overload(),
    }
    Ok(Val::Map(Map::Values(Arc::new(grown))))
}

fn of_duration<'a>(name: &str, nanos: i64) -> Option<Eval<Val<'a>>> {
    let seconds = nanos / 1_000_000_000;
    Some(Ok(Val::Int(match name {
        "getHours" => seconds / 3600,
        "getMinutes" => seconds / 60,
        "getSeconds" => seconds,
        "getMilliseconds" => nanos / 1_000_000,
        _ => return None,
    })))
}

fn of_timestamp<'a>(name: &str, t: Instant, zone: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    let offset = match zone {
        [] => 0,
        [Val::Str(zone)] => match time::zone(zone) {
            Some(offset) => offset,
            None => return Some(fail(format!("unknown time zone {}", &**zone))),
        },
        _ => return None,
    };
    let civil = t.civil(offset);
    Some(Ok(Val::Int(match name {
        "getFullYear" => civil.year,
        "getMonth" => civil.month - 1,
        "getDayOfYear" => t.day_of_year(offset),
        "getDayOfMonth" => civil.day - 1,
        "getDate" => civil.day,
        "getDayOfWeek" => t.day_of_week(offset),
        "getHours" => civil.hour,
        "getMinutes" => civil.minute,
        "getSeconds" => civil.second,
        "getMilliseconds" => i64::from(t.nanos / 1_000_000),
        _ => return None,
    })))
}
