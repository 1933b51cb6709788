//! Checks of what a ResourceClaim asks for (KEP-4381): requests, constraints between them, and their configuration.

use std::collections::BTreeSet;

use serde_json::Value;
use tiphys_cel::devices;
use tiphys_meta::{ErrorList, Path, names};

use super::common::{EFFECTS, driver, each, json_object, qualified};
use crate::tree::{array, at, int, said, text};

const MAX: usize = 32;
const EXPRESSION_MAX: usize = 10 * 1024;
const PARAMETERS_MAX: usize = 10 * 1024;
const SUBREQUESTS_MAX: usize = 8;
const TOLERATIONS_MAX: usize = 16;
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
pub(super) fn opaque(config: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let path = path.child("opaque");
    let Some(opaque) = at(config, "opaque") else { return errors.required(&path, "") };
    driver(text(opaque, "driver"), &path.child("driver"), errors);
    match at(opaque, "parameters") {
        None => errors.required(&path.child("parameters"), ""),
        Some(parameters) => json_object(parameters, PARAMETERS_MAX, &path.child("parameters"), errors),
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

/// `request`, and `request/subrequest`.
pub(super) fn request_names(devices: &Value) -> BTreeSet<String> {
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
    each(array(device, "tolerations"), TOLERATIONS_MAX, None, &path.child("tolerations"), errors, toleration);
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
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.not_supported(&path.child("effect"), effect, &EFFECTS);
    }
}

pub(super) fn references(owner: &Value, known: &BTreeSet<String>, path: &Path<'_>, errors: &mut ErrorList) {
    let list = path.child("requests");
    let requests = array(owner, "requests");
    for (i, name) in requests.iter().enumerate() {
        let (path, text) = (list.index(i), name.as_str().unwrap_or(""));
        reference(text, known, &path, errors);
        if requests[..i].contains(name) {
            errors.duplicate(&path, text);
        }
    }
}

/// `request` or `request/subrequest`, of those that there are.
pub(super) fn reference(text: &str, known: &BTreeSet<String>, path: &Path<'_>, errors: &mut ErrorList) {
    let segments: Vec<&str> = text.split('/').collect();
    if segments.len() <= 2 {
        for segment in &segments {
            errors.invalid_all(path, segment, names::dns1123_label(segment));
        }
    }
    if segments.len() > 2 || !known.contains(text) {
        errors.invalid(path, text, NO_SUCH_REQUEST);
    }
}
