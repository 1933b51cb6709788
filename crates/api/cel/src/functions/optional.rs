//! Optional values.

use crate::value::{Eval, List, Val, fail};

pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    Some(match (name, args) {
        ("optional.none", []) => Ok(Val::Optional(None)),
        ("optional.of", [v]) => Ok(Val::some(v.clone())),
        ("optional.ofNonZeroValue", [v]) => Ok(if v.is_zero() { Val::Optional(None) } else { Val::some(v.clone()) }),
        ("hasValue", [Val::Optional(v)]) => Ok(Val::Bool(v.is_some())),
        ("value", [Val::Optional(v)]) => v.as_ref().map_or_else(|| fail("optional.none() dereference"), |v| Ok((**v).clone())),
        ("or", [Val::Optional(None), other @ Val::Optional(_)]) => Ok(other.clone()),
        ("or", [first @ Val::Optional(_), Val::Optional(_)]) => Ok(first.clone()),
        ("orValue", [Val::Optional(v), other]) => Ok(v.as_ref().map_or_else(|| other.clone(), |v| (**v).clone())),
        ("first", [Val::List(list)]) => Ok(wrapped(list.get(0))),
        ("last", [Val::List(list)]) => Ok(wrapped(list.len().checked_sub(1).and_then(|i| list.get(i)))),
        ("optional.unwrap" | "unwrapOpt", [Val::List(list)]) => unwrap(list),
        _ => return None,
    })
}

pub(crate) fn wrapped(value: Option<Val<'_>>) -> Val<'_> {
    value.map_or(Val::Optional(None), Val::some)
}

fn unwrap<'a>(list: &List<'a>) -> Eval<Val<'a>> {
    let mut out = Vec::new();
    for item in list.iter() {
        match item {
            Val::Optional(Some(v)) => out.push((*v).clone()),
            Val::Optional(None) => {}
            other => return fail(format!("value {other:?} is not optional")),
        }
    }
    Ok(Val::list(out))
}
