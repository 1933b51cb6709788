//! Checks of what a ResourceClaim asks for (KEP-4381): requests, constraints between them, and their configuration.

use std::collections::BTreeSet;

use serde_json::Value;
use tiphys_cel::devices;
use tiphys_meta::{ErrorList, Path, names};

use crate::tree::{array, at, int, said, text};

const MAX: usize = 32;
const DEVICES_MAX: usize = 128;
const EXPRESSION_MAX: usize = 10 * 1024;
const SUBREQUESTS_MAX: usize = 8;
const NO_SUCH_REQUEST: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

pub(super) fn check(spec: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(devices) = spec.and_then(|s| at(s, "devices")) else { return };
    let known = request_names(devices);
    let list = path.child("devices.requests");
    each(array(devices, "requests"), MAX, Some("name"), &list, errors, request);
    let list = path.child("devices.constraints");
    each(array(devices, "constraints"), MAX, None, &list, errors, |constraint, path, errors| {
        references(constraint, &known, path, errors);
        match (at(constraint, "matchAttribute"), at(constraint, "distinctAttribute")) {
            (Some(name), _) => qualified(name.as_str().unwrap_or(""), &path.child("matchAttribute"), errors),
            (None, Some(name)) => qualified(name.as_str().unwrap_or(""), &path.child("distinctAttribute"), errors),
            (None, None) => {
                let why = r#"exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set"#;
                errors.required(path, why);
            }
        }
    });
    let list = path.child("devices.config");
    each(array(devices, "config"), MAX, None, &list, errors, |config, path, errors| {
        references(config, &known, path, errors);
        opaque(config, path, errors);
    });
}

/// The configuration of a driver, of which only the form is known here.
fn opaque(config: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let path = path.child("opaque");
    let Some(opaque) = at(config, "opaque") else { return errors.required(&path, "") };
    driver(text(opaque, "driver"), &path.child("driver"), errors);
    match at(opaque, "parameters") {
        None => errors.required(&path.child("parameters"), ""),
        Some(Value::Object(_)) => {}
        Some(_) => errors.invalid(&path.child("parameters"), "<value omitted>", "must be a valid JSON object"),
    }
}

pub(super) fn check_class(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    selectors(spec, path, errors);
    each(array(spec, "config"), MAX, None, &path.child("config"), errors, opaque);
    if let Some(name) = said(spec, "extendedResourceName")
        && !crate::core::pod::resources::is_extended(name)
    {
        errors.invalid(&path.child("extendedResourceName"), name, "must be a valid extended resource name");
    }
}

/// A device of a slice: its name, and attributes of one value each.
pub(super) fn check_devices(devices: &[Value], list: &Path<'_>, errors: &mut ErrorList) {
    each(devices, DEVICES_MAX, Some("name"), list, errors, |device, path, errors| {
        let name = text(device, "name");
        errors.invalid_all(&path.child("name"), name, names::dns1123_label(name));
        for (key, attribute) in device.get("attributes").and_then(Value::as_object).into_iter().flatten() {
            let values = attribute.as_object().map_or(0, |a| a.values().filter(|v| !v.is_null()).count());
            match values {
                1 => {}
                0 => errors.invalid(&path.child("attributes").key(key), "", "exactly one value must be specified"),
                _ => errors.invalid(&path.child("attributes").key(key), attribute.clone(), "exactly one value must be specified"),
            }
        }
    });
}

/// Every item of a list of at most `max`, whose `key` is its own.
fn each(
    items: &[Value],
    max: usize,
    key: Option<&str>,
    list: &Path<'_>,
    errors: &mut ErrorList,
    check: impl Fn(&Value, &Path<'_>, &mut ErrorList),
) {
    for (i, item) in items.iter().enumerate() {
        let path = list.index(i);
        check(item, &path, errors);
        if let Some(key) = key
            && items[..i].iter().any(|other| text(other, key) == text(item, key))
        {
            errors.duplicate(&path, text(item, key));
        }
    }
    if items.len() > max {
        errors.too_many(list, items.len(), max);
    }
}

/// `request`, and `request/subrequest`.
fn request_names(devices: &Value) -> BTreeSet<String> {
    let requests = array(devices, "requests").iter();
    requests
        .flat_map(|r| {
            let name = text(r, "name");
            let parts = array(r, "firstAvailable").iter().map(move |s| format!("{name}/{}", text(s, "name")));
            std::iter::once(name.to_owned()).chain(parts)
        })
        .collect()
}

fn request(request: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let name = text(request, "name");
    errors.invalid_all(&path.child("name"), name, names::dns1123_label(name));
    let alternatives = array(request, "firstAvailable");
    match (at(request, "exactly"), alternatives.is_empty()) {
        (None, true) => errors.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(_), false) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.invalid(path, Value::Null, why);
        }
        (Some(exactly), true) => device(exactly, &path.child("exactly"), errors),
        (None, false) => {
            let list = path.child("firstAvailable");
            each(alternatives, SUBREQUESTS_MAX, Some("name"), &list, errors, |part, path, errors| {
                let name = text(part, "name");
                errors.invalid_all(&path.child("name"), name, names::dns1123_label(name));
                device(part, path, errors);
            });
        }
    }
}

fn device(device: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match text(device, "deviceClassName") {
        "" => errors.required(&path.child("deviceClassName"), ""),
        class => errors.invalid_all(&path.child("deviceClassName"), class, names::dns1123_subdomain(class)),
    }
    selectors(device, path, errors);
    let (mode, count) = (text(device, "allocationMode"), int(device, "count"));
    match mode {
        "All" if count != 0 => {
            errors.invalid(&path.child("count"), count, format!("must not be specified when allocationMode is '{mode}'"));
        }
        "ExactCount" if count <= 0 => errors.invalid(&path.child("count"), count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => errors.not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    for (i, one) in array(device, "tolerations").iter().enumerate() {
        toleration(one, &path.child("tolerations").index(i), errors);
    }
}

/// Shared with device classes.
fn selectors(owner: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let list = path.child("selectors");
    each(array(owner, "selectors"), MAX, None, &list, errors, |selector, path, errors| match at(selector, "cel") {
        None => errors.required(&path.child("cel"), ""),
        Some(cel) => expression(text(cel, "expression"), &path.child("cel.expression"), errors),
    });
}

fn expression(expression: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if expression.len() > EXPRESSION_MAX {
        return errors.too_long(path, EXPRESSION_MAX);
    }
    match devices::compile(expression) {
        Err(why) => errors.invalid(path, expression, why),
        Ok(program) if program.estimate().max > devices::COST_LIMIT => errors.forbidden(path, "too complex, exceeds cost limit"),
        Ok(_) => {}
    }
}

fn toleration(toleration: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (key, value) = (text(toleration, "key"), text(toleration, "value"));
    if !key.is_empty() {
        errors.invalid_all(&path.child("key"), key, names::qualified_name(key));
    }
    match text(toleration, "operator") {
        "Exists" if !value.is_empty() => errors.invalid(&path.child("value"), value, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => errors.invalid_all(&path.child("value"), value, names::label_value(value)),
        "" => errors.required(&path.child("operator"), ""),
        other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    let effect = text(toleration, "effect");
    if !matches!(effect, "" | "NoSchedule" | "NoExecute" | "None") {
        errors.not_supported(&path.child("effect"), effect, &["NoExecute", "NoSchedule", "None"]);
    }
}

fn references(owner: &Value, known: &BTreeSet<String>, path: &Path<'_>, errors: &mut ErrorList) {
    let list = path.child("requests");
    let requests = array(owner, "requests");
    for (i, name) in requests.iter().enumerate() {
        let (path, text) = (list.index(i), name.as_str().unwrap_or(""));
        let segments: Vec<&str> = text.split('/').collect();
        if segments.len() <= 2 {
            for segment in &segments {
                errors.invalid_all(&path, segment, names::dns1123_label(segment));
            }
        }
        if segments.len() > 2 || !known.contains(text) {
            errors.invalid(&path, text, NO_SUCH_REQUEST);
        }
        if requests[..i].contains(name) {
            errors.duplicate(&path, text);
        }
    }
}

pub(super) fn driver(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > 63 {
        errors.too_long(path, 63);
    }
    errors.invalid_all(path, name, names::dns1123_subdomain(&name.to_lowercase()));
}

/// `domain/name`, the name an identifier of C. Upstream takes names with more slashes for good.
fn qualified(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if name.matches('/').count() > 1 {
        return;
    }
    let Some((domain, local)) = name.split_once('/') else {
        errors.invalid_all(path, name, names::c_identifier(name));
        return errors.invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash");
    };
    if domain.is_empty() {
        errors.invalid(path, "", "the domain must not be empty");
    } else {
        driver(domain, path, errors);
    }
    if local.is_empty() {
        errors.invalid(path, "", "the name must not be empty");
    } else {
        errors.invalid_all(path, local, names::c_identifier(local));
    }
}
