//! Checks of what a driver publishes (KEP-4381): the devices of a pool, where they can be used, what they share and what is wrong with them.

use serde_json::{Map, Value};
use tiphys_meta::{ErrorList, Path, Quantity, names};

use super::common::{binding, driver, each, label, name_of_driver, pool, taint};
use crate::core::pod::scheduling::node_selector;
use crate::tree::{array, at, int, is_true, map_at, text};
use crate::workloads::SPEC;

const DEVICES_MAX: usize = 128;
/// With taints or counters, which take more of whoever allocates.
const DEVICES_MAX_ADVANCED: usize = 64;
const TAINTS_MAX: usize = 16;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const CONSUMED_SETS_MAX: usize = 2;
const ATTRIBUTES_AND_CAPACITIES_MAX: usize = 32;
const VALUE_MAX: usize = 64;
const CHOICES_MAX: usize = 10;
/// A domain, a slash and an identifier; longer keys are not shown whole.
const KEY_MAX: usize = 63 + 1 + 32;
/// Behind feature gates that are off: lists as values of attributes, and devices that take from what a node has to give.
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];
const MAPPINGS: &str = "nodeAllocatableResourceMappings";

/// Fields of features that are off are not kept.
pub(super) fn drop_disabled(o: &mut Value) {
    for device in crate::tree::at_mut(o, "spec").map(|spec| crate::tree::array_mut(spec, "devices")).into_iter().flatten() {
        crate::tree::remove(device, MAPPINGS);
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
        for attribute in attributes.into_iter().flat_map(|all| all.values_mut()) {
            LISTS.iter().for_each(|list| crate::tree::remove(attribute, list));
        }
    }
}

/// `old`: what it was, of an update.
pub(super) fn check(o: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    driver(text(o, "spec.driver"), &SPEC.child("driver"), errors);
    pool(text(o, "spec.pool.name"), &SPEC.child("pool.name"), errors);
    let (count, generation) = (int(o, "spec.pool.resourceSliceCount"), int(o, "spec.pool.generation"));
    if count <= 0 {
        errors.invalid(&SPEC.child("pool.resourceSliceCount"), count, "must be greater than zero");
    }
    if generation < 0 {
        errors.invalid(&SPEC.child("pool.generation"), generation, "must be greater than or equal to zero");
    }
    for field in ["pool.name", "driver", "nodeName"].into_iter().filter(|_| old.is_some()) {
        let of = |o: &Value| at(o, "spec").and_then(|s| at(s, field)).cloned();
        crate::meta::immutable(of(o).as_ref(), old.and_then(of).as_ref(), &SPEC.child(field), errors);
    }
    let Some(spec) = o.get("spec") else { return };
    check_place(spec, errors);
    let (devices, sets) = (array(spec, "devices"), array(spec, "sharedCounters"));
    if !devices.is_empty() && !sets.is_empty() {
        errors.invalid(&SPEC, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let advanced = devices.iter().any(|d| !array(d, "taints").is_empty() || !array(d, "consumesCounters").is_empty());
    let before = old.map(|o| array(o, "spec.devices")).unwrap_or_default();
    let most = if advanced { DEVICES_MAX_ADVANCED } else { DEVICES_MAX };
    each(devices, most, Some("name"), &SPEC.child("devices"), errors, |device, path, errors| {
        let old = before.iter().find(|d| text(d, "name") == text(device, "name"));
        check_device(device, old, is_true(spec, "perDeviceNodeSelection"), path, errors);
    });
    each(sets, COUNTER_SETS_MAX, Some("name"), &SPEC.child("sharedCounters"), errors, |set, path, errors| {
        counters(set, "name", path, errors)
    });
}

/// Exactly one of the four ways to say where the devices are.
fn check_place(spec: &Value, errors: &mut ErrorList) {
    let mut ways = places(spec, "must be either unset or set to a non-empty string", &SPEC, errors);
    let terms = array(spec, "nodeSelector.nodeSelectorTerms");
    if at(spec, "nodeSelector").is_some() && terms.len() != 1 {
        let why = "must have exactly one node selector term";
        errors.invalid(&SPEC.child("nodeSelector.nodeSelectorTerms"), terms.to_vec(), why);
    }
    ways.extend(switched_on(spec, "perDeviceNodeSelection", "`perDeviceNodeSelection`", &SPEC, errors));
    let why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    exactly_one(&ways, [why, &format!("{why}, but multiple fields are set")], &SPEC, errors);
}

/// The ways that a slice and a device alike say where devices are; `empty`: what is wrong with an empty name of a node.
fn places(holder: &Value, empty: &str, path: &Path<'_>, errors: &mut ErrorList) -> Vec<&'static str> {
    let mut ways = Vec::new();
    match at(holder, "nodeName").and_then(Value::as_str) {
        Some("") => errors.invalid(&path.child("nodeName"), "", empty),
        Some(node) => {
            ways.push("`nodeName`");
            errors.invalid_all(&path.child("nodeName"), node, names::dns1123_subdomain(node));
        }
        None => {}
    }
    if let Some(selector) = at(holder, "nodeSelector") {
        ways.push("`nodeSelector`");
        node_selector(selector, &path.child("nodeSelector"), errors);
    }
    ways.extend(switched_on(holder, "allNodes", "`allNodes`", path, errors));
    ways
}

/// A field that is true or not there.
fn switched_on(holder: &Value, field: &'static str, shown: &'static str, path: &Path<'_>, errors: &mut ErrorList) -> Option<&'static str> {
    match at(holder, field) {
        Some(Value::Bool(false)) => errors.invalid(&path.child(field), false, "must be either unset or set to true"),
        Some(_) => return Some(shown),
        None => {}
    }
    None
}

/// `why`: where there is none, and where there are several.
fn exactly_one(ways: &[&str], why: [&str; 2], path: &Path<'_>, errors: &mut ErrorList) {
    match ways.len() {
        0 => errors.required(path, why[0]),
        1 => {}
        _ => errors.invalid(path, format!("{{{}}}", ways.join(", ")), why[1]),
    }
}

fn check_device(device: &Value, old: Option<&Value>, per_device: bool, path: &Path<'_>, errors: &mut ErrorList) {
    label(text(device, "name"), &path.child("name"), errors);
    let none = Map::new();
    let [attributes, capacity] = ["attributes", "capacity"].map(|field| map_at(device, field).unwrap_or(&none));
    let count = attributes.len() + capacity.len();
    if count > ATTRIBUTES_AND_CAPACITIES_MAX {
        let why = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_AND_CAPACITIES_MAX}");
        errors.invalid(path, count, why);
    }
    entries(attributes, &path.child("attributes"), errors, attribute);
    let several = is_true(device, "allowMultipleAllocations");
    entries(capacity, &path.child("capacity"), errors, |capacity, path, errors| match at(capacity, "requestPolicy") {
        Some(policy) if several => request_policy(text(capacity, "value"), policy, &path.child("requestPolicy"), errors),
        Some(_) => errors.forbidden(&path.child("requestPolicy"), "allowMultipleAllocations must be true"),
        None => {}
    });
    let taints = array(device, "taints");
    if old.is_none_or(|old| array(old, "taints") != taints) {
        each(taints, TAINTS_MAX, None, &path.child("taints"), errors, |one, path, errors| taint(one, true, path, errors));
    }
    each(
        array(device, "consumesCounters"),
        CONSUMED_SETS_MAX,
        Some("counterSet"),
        &path.child("consumesCounters"),
        errors,
        |set, path, errors| {
            counters(set, "counterSet", path, errors);
        },
    );
    check_device_place(device, per_device, path, errors);
    binding(device, path, errors);
}

fn check_device_place(device: &Value, per_device: bool, path: &Path<'_>, errors: &mut ErrorList) {
    if !per_device {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| at(device, field).is_some()) {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.invalid(path, Value::Null, why);
        }
        return;
    }
    let ways = places(device, "must not be empty", path, errors);
    let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    exactly_one(&ways, [why, why], path, errors);
}

/// Entries of a map whose keys are names of attributes; a key is told of at the map, as upstream does.
fn entries(map: &Map<String, Value>, path: &Path<'_>, errors: &mut ErrorList, check: impl Fn(&Value, &Path<'_>, &mut ErrorList)) {
    for (key, value) in map {
        name_of_driver(key, path, errors);
        check(value, &path.key(&shortened(key, KEY_MAX)), errors);
    }
}

/// The middle of what is too long is left out.
fn shortened(text: &str, max: usize) -> String {
    const LEFT_OUT: &str = "...";
    let rest = max - LEFT_OUT.len();
    match (text.get(..rest.div_ceil(2)), text.get(text.len().saturating_sub(rest / 2)..)) {
        (Some(head), Some(tail)) if text.len() > max => format!("{head}{LEFT_OUT}{tail}"),
        _ => text.to_owned(),
    }
}

fn attribute(attribute: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let long = |value: &str, path: &Path<'_>, errors: &mut ErrorList| {
        if value.len() > VALUE_MAX {
            errors.too_long(path, VALUE_MAX);
        }
    };
    if let Some(value) = at(attribute, "string").and_then(Value::as_str) {
        long(value, &path.child("string"), errors);
    }
    if let Some(version) = at(attribute, "version").and_then(Value::as_str) {
        let path = path.child("version");
        if !is_semver(version) {
            errors.invalid(&path, version, "must be a string compatible with semver.org spec 2.0.0");
        }
        long(version, &path, errors);
    }
    match attribute.as_object().map_or(0, |a| a.values().filter(|v| !v.is_null()).count()) {
        1 => {}
        0 => errors.invalid(path, "", "exactly one value must be specified"),
        _ => errors.invalid(path, attribute.clone(), "exactly one value must be specified"),
    }
}

/// Semantic Versioning 2.0.0 §2, §9, §10.
fn is_semver(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let known = |part: &str| word(part) && (number(part) || !part.bytes().all(|b| b.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(known))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// A set of counters, and how much a device takes of one: `name_field` names it.
fn counters(set: &Value, name_field: &'static str, path: &Path<'_>, errors: &mut ErrorList) {
    match text(set, name_field) {
        "" => errors.required(&path.child(name_field), ""),
        name => label(name, &path.child(name_field), errors),
    }
    let path = path.child("counters");
    match map_at(set, "counters") {
        Some(map) if map.len() > COUNTERS_MAX => errors.too_many(&path, map.len(), COUNTERS_MAX),
        Some(map) if !map.is_empty() => map.keys().for_each(|name| label(name, &path, errors)),
        _ => errors.required(&path, ""),
    }
}

/// Which parts of a capacity may be asked for (KEP-5075).
fn request_policy(capacity: &str, policy: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let quantity = |text: &str| Quantity::parse(text).unwrap_or_else(|_| Quantity::from(0));
    let given = |value: &Value, field: &str| at(value, field).and_then(Value::as_str).map(quantity);
    let (choices, range) = (array(policy, "validValues"), at(policy, "validRange"));
    let (all, default) = (quantity(capacity), given(policy, "default"));
    let named = if choices.is_empty() { "validRange" } else { "validValues" };
    match (choices.is_empty(), range, default) {
        (true, None, _) => {}
        (false, Some(_), _) => {
            errors
                .forbidden(path, r#"exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time"#);
        }
        (_, _, None) => errors.required(&path.child("default"), format!("required when {named} is defined")),
        (false, None, Some(default)) => {
            let choices: Vec<Quantity> = choices.iter().filter_map(Value::as_str).map(quantity).collect();
            policy_choices(&choices, &default, &all, &path.child("validValues"), errors);
        }
        (true, Some(range), Some(default)) => {
            let [min, max, step] = ["min", "max", "step"].map(|field| given(range, field));
            policy_range((min, max, step), &default, &all, &path.child("validRange"), errors);
        }
    }
}

fn policy_choices(choices: &[Quantity], default: &Quantity, all: &Quantity, path: &Path<'_>, errors: &mut ErrorList) {
    for (i, pair) in choices.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        errors.invalid(&path.index(i + 1), pair[1].to_string(), "values must be sorted in ascending order");
    }
    // Whether the default is among more than are allowed is not looked at.
    let mut found = false;
    if choices.len() > CHOICES_MAX {
        errors.too_many(path, choices.len(), CHOICES_MAX);
    } else {
        for (i, choice) in choices.iter().enumerate() {
            if choice > all {
                errors.invalid(&path.index(i), choice.to_string(), format!("option is larger than capacity value: {all}"));
            }
            found |= choice == default;
        }
        for (i, choice) in choices.iter().enumerate().filter(|(i, choice)| choices[..*i].iter().any(|c| c.value() == choice.value())) {
            errors.duplicate(&path.index(i), choice.value().to_string());
        }
    }
    if !found {
        errors.invalid(path, default.to_string(), "default value is not valid according to the requestPolicy");
    }
}

type Range = (Option<Quantity>, Option<Quantity>, Option<Quantity>);

fn policy_range((min, max, step): Range, default: &Quantity, all: &Quantity, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(min) = min else { return errors.required(&path.child("min"), "required when validRange is defined") };
    if min > *all {
        errors.invalid(&path.child("min"), min.to_string(), format!("min is larger than capacity value: {all}"));
    }
    if *default < min {
        errors.invalid(&path.child("min"), default.to_string(), format!("default is less than min: {min}"));
    }
    if let Some(max) = &max {
        let path = path.child("max");
        if min > *max {
            errors.invalid(&path, min.to_string(), format!("min is larger than max: {max}"));
        }
        if max > all {
            errors.invalid(&path, max.to_string(), format!("max is larger than capacity value: {all}"));
        }
        if default > max {
            errors.invalid(&path, default.to_string(), format!("default is more than max: {max}"));
        }
    }
    let Some(step) = step else { return };
    let (path, first) = (path.child("step"), min.clone() + step.clone());
    if first > *all {
        errors.invalid(&path, step.to_string(), format!("one step {first} is larger than capacity value: {all}"));
    }
    for value in std::iter::once(default).chain(&max) {
        // Upstream divides by a step of nothing, and ends the connection.
        let over = value.value().wrapping_sub(min.value()).checked_rem(step.value());
        if over != Some(0) {
            errors.invalid(&path, value.to_string(), format!("value is not a multiple of a given step ({step}) from ({min})"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(spec: Value) -> String {
        let mut slice = json!({"spec": {"driver": "d", "nodeName": "n", "pool": {"name": "p", "resourceSliceCount": 1}}});
        if let (Some(all), Value::Object(more)) = (slice["spec"].as_object_mut(), spec) {
            all.extend(more);
        }
        let mut errors = ErrorList::new();
        check(&slice, None, &mut errors);
        if errors.is_empty() { String::new() } else { errors.message() }
    }

    fn of_device(device: Value) -> String {
        faults(json!({"devices": [device]}))
    }

    #[test]
    fn what_a_device_says_is_checked() {
        assert_eq!(of_device(json!({"name": "d", "attributes": {"a": {"int": 1}, "x.y/b": {"version": "1.2.3-rc.1+7"}}})), "");
        for (device, fault) in [
            (
                json!({"name": "d", "attributes": {"1": {"int": 1}}}),
                "spec.devices[0].attributes: Invalid value: \"1\": a valid C identifier",
            ),
            (
                json!({"name": "d", "attributes": {"a": {}}}),
                "spec.devices[0].attributes[a]: Invalid value: \"\": exactly one value must be specified",
            ),
            (
                json!({"name": "d", "attributes": {"a": {"version": "1.2"}}}),
                "attributes[a].version: Invalid value: \"1.2\": must be a string compatible with semver.org spec 2.0.0",
            ),
            (json!({"name": "d", "taints": [{"key": "a"}]}), "spec.devices[0].taints[0].effect: Required value"),
            (json!({"name": "d", "nodeName": "n"}), "can only be set if `perDeviceNodeSelection` is set to true"),
            (json!({"name": "d", "bindingConditions": ["a"]}), "bindingFailureConditions are required to use bindingConditions"),
            (
                json!({"name": "d", "consumesCounters": [{"counterSet": "s"}]}),
                "spec.devices[0].consumesCounters[0].counters: Required value",
            ),
            (json!({"name": "d", "capacity": {"m": {"value": "1", "requestPolicy": {}}}}), "allowMultipleAllocations must be true"),
        ] {
            let told = of_device(device);
            assert!(told.contains(fault), "{told}\nwanted: {fault}");
        }
        assert!(faults(json!({"allNodes": true})).contains("but multiple fields are set"));
    }

    #[test]
    fn parts_of_a_capacity_fit_it() {
        let of_policy = |policy: Value| {
            of_device(json!({"name": "d", "allowMultipleAllocations": true, "capacity": {"m": {"value": "10", "requestPolicy": policy}}}))
        };
        for good in [
            json!({}),
            json!({"default": "2", "validValues": ["1", "2"]}),
            json!({"default": "4", "validRange": {"min": "2", "max": "8", "step": "2"}}),
        ] {
            assert_eq!(of_policy(good.clone()), "", "{good}");
        }
        for (policy, fault) in [
            (json!({"validValues": ["1"]}), "default: Required value: required when validValues is defined"),
            (
                json!({"default": "1", "validValues": ["2", "1"]}),
                "validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
            ),
            (json!({"default": "3", "validRange": {"min": "1", "step": "0"}}), "value is not a multiple of a given step (0) from (1)"),
            (json!({"default": "3", "validRange": {"min": "1", "step": "10"}}), "one step 11 is larger than capacity value: 10"),
            (json!({"default": "1", "validRange": {"min": "2"}}), "default is less than min: 2"),
        ] {
            let told = of_policy(policy);
            assert!(told.contains(fault), "{told}\nwanted: {fault}");
        }
    }

    #[test]
    fn fields_of_features_that_are_off_go() {
        let mut slice = json!({"spec": {"devices": [{"name": "d", "attributes": {"a": {"ints": [1], "int": 2}}, MAPPINGS: {"cpu": {}}}]}});
        drop_disabled(&mut slice);
        assert_eq!(slice, json!({"spec": {"devices": [{"name": "d", "attributes": {"a": {"int": 2}}}]}}));
    }

    #[test]
    fn long_keys_are_shown_by_their_ends() {
        assert_eq!(shortened("0123456789abcdefghij", 16), "0123456...efghij");
        assert_eq!(shortened("short", 16), "short");
    }
}
