//! LimitRange: defaults and bounds for the resources of what a namespace holds. LimitRanger (admission) applies it.

use serde_json::{Map, Value};
use tiphys_meta::{ErrorList, Path, Quantity, names};

use super::pod::resources;
use super::resource_list;
use crate::strategy::Strategy;
use crate::tree::{array, array_mut, map_at, text};

pub(crate) static STRATEGY: Strategy = Strategy::new(true).create_on_update().defaults(defaults).checks(check, |_, _, _| {});

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// Of containers: the default limit is the maximum, the default request the default limit or else the minimum.
fn defaults(o: &mut Value) {
    let Some(spec) = o.get_mut("spec") else { return };
    for item in array_mut(spec, "limits") {
        if text(item, "type") == "Container" {
            let list = |item: &Value, name: &str| map_at(item, name).cloned().unwrap_or_else(Map::new);
            resource_list::add_missing(item, "default", list(item, "max"));
            resource_list::add_missing(item, "defaultRequest", list(item, "default"));
            resource_list::add_missing(item, "defaultRequest", list(item, "min"));
        }
        LISTS.iter().for_each(|name| resource_list::round(item.get_mut(*name)));
    }
}

fn check(o: &Value, errors: &mut ErrorList) {
    let limits = Path::new("spec.limits");
    let mut seen: Vec<&str> = Vec::new();
    for (i, item) in array(o, "spec.limits").iter().enumerate() {
        let path = limits.index(i);
        let kind = text(item, "type");
        let wrong = names::qualified_name(kind);
        if wrong.is_empty() && !kind.contains('/') && !TYPES.contains(&kind) {
            errors.invalid(&path.child("type"), kind, "must be a standard limit type or fully qualified");
        }
        errors.invalid_all(&path.child("type"), kind, wrong);
        if seen.contains(&kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        seen.push(kind);
        check_item(item, kind, &path, errors);
    }
}

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];

fn check_item(item: &Value, kind: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let mut names: Vec<&String> = LISTS.iter().filter_map(|l| map_at(item, l)).flat_map(|m| m.keys()).collect();
    for list in LISTS {
        for name in map_at(item, list).into_iter().flat_map(|m| m.keys()) {
            let list = path.child(list);
            let path = list.key(name);
            if matches!(kind, "Pod" | "Container") {
                resources::check_container_name(name, &path, errors);
            } else {
                resources::check_name(name, &path, errors);
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    if kind == "Pod" {
        for list in ["default", "defaultRequest"] {
            if map_at(item, list).is_some_and(|m| !m.is_empty()) {
                errors.forbidden(&path.child(list), "may not be specified when `type` is 'Pod'");
            }
        }
    }
    if kind == "PersistentVolumeClaim" {
        let has = |list: &str| map_at(item, list).is_some_and(|m| m.contains_key("storage"));
        if !has("min") && !has("max") {
            errors.required(&path.child("limits"), "either minimum or maximum storage value is required, but neither was provided");
        }
    }
    for name in names {
        check_bounds(item, name, path, errors);
    }
}

/// min ≤ defaultRequest ≤ default ≤ max.
fn check_bounds(item: &Value, name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let get = |list: &str| map_at(item, list).and_then(|m| m.get(name)).and_then(Value::as_str).and_then(|t| Quantity::parse(t).ok());
    let (min, max, default, request) = (get("min"), get("max"), get("default"), get("defaultRequest"));
    let label = |name: &'static str| if name == "defaultRequest" { "default request" } else { name };
    let mut ordered = |low: Option<Quantity>, low_name, high: Option<Quantity>, high_name, field: &str| {
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            let shown = if field == low_name { low } else { high };
            let why = format!("{} value {low} is greater than {} value {high}", label(low_name), label(high_name));
            errors.invalid(&path.child(field).key(name), shown.to_string(), why);
        }
    };
    ordered(min, "min", max, "max", "min");
    ordered(min, "min", request, "defaultRequest", "defaultRequest");
    ordered(request, "defaultRequest", max, "max", "defaultRequest");
    let default_path = path.child("default");
    if let (Some(request), Some(default)) = (request, default)
        && request > default
    {
        let why = format!("default request value {request} is greater than default limit value {default}");
        errors.invalid(&path.child("defaultRequest").key(name), request.to_string(), why);
    }
    if let (Some(min), Some(default)) = (min, default)
        && min > default
    {
        errors.invalid(&default_path.key(name), min.to_string(), format!("min value {min} is greater than default value {default}"));
    }
    if let (Some(default), Some(max)) = (default, max)
        && default > max
    {
        errors.invalid(&default_path.key(name), max.to_string(), format!("default value {default} is greater than max value {max}"));
    }
    check_ratio(get("maxLimitRequestRatio"), min, max, &path.child("maxLimitRequestRatio").key(name), errors);
    if let (Some(request), Some(default)) = (request, default)
        && !resources::may_overcommit(name)
        && request != default
    {
        let why = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        errors.invalid(&path.child("defaultRequest").key(name), request.to_string(), why);
    }
}

/// A limit may be so many times the request; more than max/min can never be reached.
fn check_ratio(ratio: Option<Quantity>, min: Option<Quantity>, max: Option<Quantity>, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(ratio) = ratio else { return };
    if ratio < Quantity::new(1, ratio.format()) {
        errors.invalid(path, ratio.to_string(), format!("ratio {ratio} is less than 1"));
    }
    let (Some(min), Some(max)) = (min, max) else { return };
    let most = max.as_f64() / min.as_f64();
    if ratio.as_f64() > most {
        errors.invalid(path, ratio.to_string(), format!("ratio {ratio} is greater than max/min = {most:.6}"));
    }
}
