//! Lists and sets: Kubernetes' own functions and cel-go's extensions.

use std::cmp::Ordering;

use super::standard::add;
use crate::value::{Eval, List, Val, comparable, compare, equal, fail, no_overload};

/// `lists.range` makes no more than this: its cost would be refused before.
const MAX_RANGE: i64 = 10_000_000;

pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    if let ("lists.range", [Val::Int(n)]) = (name, args) {
        if *n > MAX_RANGE {
            return Some(Err(crate::value::EvalError::CostLimit));
        }
        return Some(Ok(Val::list((0..*n).map(Val::Int).collect())));
    }
    let list = match args.first()? {
        Val::List(list) => list,
        _ => return None,
    };
    Some(match (name, &args[1..]) {
        ("isSorted", []) => is_sorted(list),
        ("sum", []) => sum(list),
        ("min", []) => extreme(list, name, Ordering::Greater),
        ("max", []) => extreme(list, name, Ordering::Less),
        ("indexOf", [item]) => Ok(Val::Int(list.iter().position(|v| equal(&v, item)).map_or(-1, |i| i as i64))),
        ("lastIndexOf", [item]) => {
            let found = (0..list.len()).rev().find(|i| list.get(*i).is_some_and(|v| equal(&v, item)));
            Ok(Val::Int(found.map_or(-1, |i| i as i64)))
        }
        ("sets.contains", [Val::List(part)]) => Ok(Val::Bool(contains(list, part))),
        ("sets.equivalent", [Val::List(other)]) => Ok(Val::Bool(contains(list, other) && contains(other, list))),
        ("sets.intersects", [Val::List(other)]) => Ok(Val::Bool(other.iter().any(|v| list.iter().any(|w| equal(&v, &w))))),
        ("slice", [Val::Int(start), Val::Int(end)]) => slice(list, *start, *end),
        ("flatten", []) => flatten(list, 1).map(Val::list),
        ("flatten", [Val::Int(depth)]) if *depth < 0 => fail("level must be non-negative"),
        ("flatten", [Val::Int(depth)]) => flatten(list, *depth).map(Val::list),
        ("reverse", []) => Ok(Val::list((0..list.len()).rev().filter_map(|i| list.get(i)).collect())),
        ("distinct", []) => Ok(distinct(list)),
        ("sort", []) => sort(list, list),
        ("@sortByAssociatedKeys", [Val::List(keys)]) => sort(list, keys),
        _ => return None,
    })
}

fn is_sorted<'a>(list: &List<'a>) -> Eval<Val<'a>> {
    let mut before: Option<Val<'a>> = None;
    for item in list.iter() {
        if let Some(before) = &before
            && compare(before, &item)? == Ordering::Greater
        {
            return Ok(Val::Bool(false));
        }
        before = Some(item);
    }
    Ok(Val::Bool(true))
}

fn sum<'a>(list: &List<'a>) -> Eval<Val<'a>> {
    let Some(first) = list.get(0) else { return Ok(Val::Int(0)) };
    list.iter().skip(1).try_fold(first, |total, item| add(&total, &item))
}

fn extreme<'a>(list: &List<'a>, name: &str, replaced: Ordering) -> Eval<Val<'a>> {
    let mut best: Option<Val<'a>> = None;
    for item in list.iter() {
        best = Some(match best {
            Some(best) if compare(&best, &item)? != replaced => best,
            _ => item,
        });
    }
    best.map_or_else(|| fail(format!("{name} called on empty list")), Ok)
}

fn contains(all: &List<'_>, part: &List<'_>) -> bool {
    part.iter().all(|v| all.iter().any(|w| equal(&v, &w)))
}

fn slice<'a>(list: &List<'a>, start: i64, end: i64) -> Eval<Val<'a>> {
    let at = format!("cannot slice({start}, {end})");
    let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
        return fail(format!("{at}, negative indexes not supported"));
    };
    if from > to {
        return fail(format!("{at}, start index must be less than or equal to end index"));
    }
    if to > list.len() {
        return fail(format!("{at}, list is length {}", list.len()));
    }
    Ok(Val::list((from..to).filter_map(|i| list.get(i)).collect()))
}

/// Lists are no deeper than the expressions and objects that they come from.
fn flatten<'a>(list: &List<'a>, depth: i64) -> Eval<Vec<Val<'a>>> {
    let mut out = Vec::new();
    for item in list.iter() {
        match item {
            Val::List(inner) if depth > 0 => out.extend(flatten(&inner, depth - 1)?),
            other => out.push(other),
        }
    }
    Ok(out)
}

fn distinct<'a>(list: &List<'a>) -> Val<'a> {
    let mut out: Vec<Val<'a>> = Vec::new();
    for item in list.iter() {
        if !out.iter().any(|known| equal(known, &item)) {
            out.push(item);
        }
    }
    Val::list(out)
}

fn sort<'a>(list: &List<'a>, keys: &List<'a>) -> Eval<Val<'a>> {
    if list.len() != keys.len() {
        return fail(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            list.len(),
            keys.len()
        ));
    }
    let mut pairs: Vec<(Val<'a>, Val<'a>)> = keys.iter().zip(list.iter()).collect();
    let Some((first, _)) = pairs.first() else { return Ok(Val::List(list.clone())) };
    if !comparable(first) {
        return fail("list elements must be comparable");
    }
    let kind = first.type_of();
    if pairs.iter().any(|(key, _)| key.type_of() != kind) {
        return fail("list elements must have the same type");
    }
    let mut failed = Ok(());
    pairs.sort_by(|(a, _), (b, _)| {
        compare(a, b).unwrap_or_else(|error| {
            failed = no_overload::<()>().or(Err(error));
            Ordering::Equal
        })
    });
    failed.map(|()| Val::list(pairs.into_iter().map(|(_, item)| item).collect()))
}
