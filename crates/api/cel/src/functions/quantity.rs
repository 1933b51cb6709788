//! Quantities: `quantity('1Gi').isLessThan(quantity('2G'))`.

use std::cmp::Ordering;

use tiphys_meta::Quantity;
use tiphys_meta::quantity::Format;

use super::opaque::Opaque;
use crate::value::{Eval, Val, fail};

pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    match (name, args) {
        ("quantity", [Val::Str(text)]) => return Some(Quantity::parse(text).map(val).or_else(|e| fail(e.to_string()))),
        ("isQuantity", [Val::Str(text)]) => return Some(Ok(Val::Bool(Quantity::parse(text).is_ok()))),
        _ => {}
    }
    let Val::Opaque(Opaque::Quantity(q)) = args.first()? else { return None };
    let other = match args.get(1) {
        Some(Val::Opaque(Opaque::Quantity(other))) => Some(*other),
        Some(Val::Int(i)) if matches!(name, "add" | "sub") => Some(Quantity::new(*i, Format::DecimalExponent)),
        _ => None,
    };
    Some(Ok(match (name, other) {
        ("isGreaterThan", Some(o)) => Val::Bool(*q > o),
        ("isLessThan", Some(o)) => Val::Bool(*q < o),
        ("compareTo", Some(o)) => Val::Int(sign(q.cmp(&o))),
        ("add", Some(o)) => val(*q + o),
        ("sub", Some(o)) => val(*q - o),
        ("sign", None) => Val::Int(sign(q.cmp(&Quantity::ZERO))),
        ("asApproximateFloat", None) => Val::Double(q.as_f64()),
        ("isInteger", None) => Val::Bool(q.is_integer()),
        ("asInteger", None) if q.is_integer() => Val::Int(q.value()),
        ("asInteger", None) => return Some(fail("cannot convert value to integer")),
        _ => return None,
    }))
}

fn val<'a>(quantity: Quantity) -> Val<'a> {
    Val::Opaque(Opaque::Quantity(quantity))
}

pub(super) fn sign(ordering: Ordering) -> i64 {
    match ordering {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}
