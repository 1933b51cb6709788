//! What a call has cost: Kubernetes' own reckoning first, then cel-go's.

use crate::functions::opaque::Opaque;
use crate::value::Val;

pub(crate) const LIST: u64 = 10;
pub(crate) const MAP: u64 = 30;
pub(crate) const STRUCT: u64 = 40;
/// Looking at a character, and a character of a pattern.
pub(crate) const STRING_FACTOR: f64 = 0.1;
pub(crate) const REGEX_FACTOR: f64 = 0.25;
/// Two checks fit into one expression.
pub(crate) const CHECK: u64 = 350_000;

fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

fn size(args: &[Val<'_>], index: usize) -> u64 {
    args.get(index).map_or(1, Val::size)
}

pub(crate) fn call_cost(function: &str, overload: &str, args: &[Val<'_>], result: Option<&Val<'_>>) -> u64 {
    let result_size = result.map_or(0, Val::size);
    extension(overload, args, result_size)
        .or_else(|| kubernetes(function, overload, args, result_size))
        .unwrap_or_else(|| standard(function, overload, args))
}

/// cel-go's lists and sets.
fn extension(overload: &str, args: &[Val<'_>], result: u64) -> Option<u64> {
    let list = |factor: f64, size: u64| Some((size as f64 * factor).ceil() as u64 + 1 + LIST);
    match overload {
        "list_slice" | "lists_range" | "list_reverse" => list(1.0, result),
        "list_flatten" => list(1.0, size(args, 0)),
        "list_flatten_int" => match args.get(1) {
            Some(Val::Int(depth)) => list((*depth).max(0) as f64, size(args, 0)),
            _ => None,
        },
        "list_distinct" => self_compare(args.first()),
        o if o.ends_with("_sort") => self_compare(args.first()),
        o if o.ends_with("_sortByAssociatedKeys") => self_compare(args.get(1)),
        "list_sets_contains_list" | "list_sets_intersects_list" => Some(1 + size(args, 0) * size(args, 1)),
        "list_sets_equivalent_list" => Some(1 + 2 * size(args, 0) * size(args, 1)),
        _ => None,
    }
}

fn self_compare(list: Option<&Val<'_>>) -> Option<u64> {
    let Some(Val::List(list)) = list else { return None };
    let texts = matches!(list.get(0), Some(Val::Str(_) | Val::Bytes(_)));
    let factor = if texts { 2.0 + STRING_FACTOR } else { 2.0 };
    let square = (list.len() as u64).saturating_mul(list.len() as u64);
    Some((square as f64 * factor).ceil() as u64 + 1 + LIST)
}

/// Functions of Kubernetes' libraries that cost one, whatever they are given; the estimate says the same.
pub(crate) const COSTS_ONE: &[&str] = &[
    "masked",
    "prefixLength",
    "family",
    "isUnspecified",
    "isLoopback",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isGlobalUnicast",
    "format.named",
    "sign",
    "asInteger",
    "isInteger",
    "asApproximateFloat",
    "isGreaterThan",
    "isLessThan",
    "compareTo",
    "add",
    "sub",
    "major",
    "minor",
    "patch",
    "getScheme",
    "getHostname",
    "getHost",
    "getPort",
    "getEscapedPath",
    "getQuery",
];

fn kubernetes(function: &str, overload: &str, args: &[Val<'_>], result: u64) -> Option<u64> {
    let traversal = |times: f64| Some(scaled(size(args, 0), times * STRING_FACTOR));
    match function {
        "check" => Some(CHECK),
        "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name" | "allowed" | "reason" | "error"
        | "errored" => Some(1),
        "fieldSelector" | "labelSelector" if args.len() >= 2 => {
            let length = size(args, 1);
            Some(LIST + scaled(length, STRING_FACTOR) + scaled(scaled(length, 0.5), (LIST + STRUCT) as f64))
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Some(args.first().map_or(0, traverse)),
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => traversal(1.0),
        "replace" | "split" | "ip.isCanonical" => traversal(2.0),
        "join" => Some(scaled(result, 2.0 * STRING_FACTOR)),
        "find" | "findAll" if args.len() >= 2 => Some(search(size(args, 0), size(args, 1))),
        "ip" if overload == "cidr_ip" => Some(1),
        "ip" => traversal(1.0),
        "containsIP" | "containsCIDR" if args.len() >= 2 => {
            let mut cost = scaled(2 * size(args, 0), STRING_FACTOR);
            if function == "containsCIDR" {
                cost += scaled(size(args, 0), STRING_FACTOR) + 1;
            }
            let parsed = matches!(overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string");
            Some(cost + if parsed { scaled(size(args, 1), STRING_FACTOR) } else { 0 })
        }
        "validate" => match args {
            [Val::Opaque(Opaque::Format(format)), text] => Some(search(text.size(), format.max_regex)),
            _ => None,
        },
        _ if COSTS_ONE.contains(&function) => Some(1),
        "_==_" if matches!(args.first(), Some(Val::Opaque(_))) => Some(1),
        _ => None,
    }
}

/// A pattern over a text: an empty text counts too, for the pattern may be large.
fn search(text: u64, pattern: u64) -> u64 {
    scaled(text + 1, STRING_FACTOR) * scaled(pattern, REGEX_FACTOR)
}

fn traverse(value: &Val<'_>) -> u64 {
    match value {
        Val::Str(s) => (s.len() as f64 * STRING_FACTOR) as u64,
        Val::Bytes(b) => (b.len() as f64 * STRING_FACTOR) as u64,
        Val::List(list) => list.iter().map(|v| traverse(&v)).sum(),
        Val::Map(map) => map.keys().map(|k| traverse(&k) + map.get(&k).map_or(0, |v| traverse(&v))).sum(),
        _ => 1,
    }
}

fn standard(function: &str, overload: &str, args: &[Val<'_>]) -> u64 {
    match overload {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote" | "string_format" => {
            scaled(size(args, 0), STRING_FACTOR)
        }
        "in_list" => size(args, 1),
        "matches_string" => search(size(args, 0), size(args, 1)),
        "contains_string" => scaled(size(args, 0), STRING_FACTOR) * scaled(size(args, 1), STRING_FACTOR),
        "add_string" | "add_bytes" => scaled(size(args, 0) + size(args, 1), STRING_FACTOR),
        "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes" => compared(args),
        // Equality is one overload, whatever the types.
        _ if matches!(function, "_==_" | "_!=_") => compared(args),
        _ => 1,
    }
}

fn compared(args: &[Val<'_>]) -> u64 {
    scaled(size(args, 0).min(size(args, 1)), STRING_FACTOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::List;

    #[test]
    fn sizes() {
        let five = Val::list((0..5).map(Val::Int).collect());
        assert_eq!(call_cost("@in", "in_list", &[Val::Int(1), five.clone()], None), 5);
        assert_eq!(call_cost("_==_", "equals", &[five.clone(), five.clone()], None), 1);
        assert_eq!(call_cost("matches", "matches_string", &[Val::text("a".repeat(19)), Val::text("b".repeat(8))], None), 4);
        assert_eq!(call_cost("sum", "list_int_sum_int", &[five], None), 5);
        assert_eq!(call_cost("size", "", &[Val::List(List::Json(&[], None))], None), 1);
    }
}
