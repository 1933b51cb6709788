//! What claims and slices are checked for alike: names of drivers, pools, devices and their attributes, lists of a size, taints, binding conditions.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, names};

use crate::tree::{array, text};

const POOL_MAX: usize = 253;
const DRIVER_MAX: usize = 63;
const IDENTIFIER_MAX: usize = 32;
const CONDITIONS_MAX: usize = 4;
/// Of taints and of what tolerates them.
pub(super) const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// Every item of a list of at most `max`, whose `key` is its own. Of a longer list only the length is looked at.
pub(super) fn each(
    items: &[Value],
    max: usize,
    key: Option<&str>,
    list: &Path<'_>,
    errors: &mut ErrorList,
    check: impl Fn(&Value, &Path<'_>, &mut ErrorList),
) {
    if items.len() > max {
        return errors.too_many(list, items.len(), max);
    }
    for (i, item) in items.iter().enumerate() {
        check(item, &list.index(i), errors);
    }
    let Some(key) = key else { return };
    for (i, item) in items.iter().enumerate() {
        if items[..i].iter().any(|other| text(other, key) == text(item, key)) {
            errors.duplicate(&list.index(i), text(item, key));
        }
    }
}

pub(super) fn driver(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > DRIVER_MAX {
        errors.too_long(path, DRIVER_MAX);
    }
    errors.invalid_all(path, name, names::dns1123_subdomain(&name.to_lowercase()));
}

pub(super) fn pool(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > POOL_MAX {
        errors.too_long(path, POOL_MAX);
    }
    for part in name.split('/') {
        errors.invalid_all(path, part, names::dns1123_subdomain(part));
    }
}

pub(super) fn label(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    errors.invalid_all(path, name, names::dns1123_label(name));
}

/// `domain/name`, where the domain may be left out. Upstream takes names with more slashes for good.
pub(super) fn name_of_driver(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [local] => identifier(local, path, errors),
        [domain, local] => {
            if domain.is_empty() {
                errors.invalid(path, "", "the domain must not be empty");
            } else {
                driver(domain, path, errors);
            }
            if local.is_empty() {
                errors.invalid(path, "", "the name must not be empty");
            } else {
                identifier(local, path, errors);
            }
        }
        _ => {}
    }
}

/// The same with its domain.
pub(super) fn qualified(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    name_of_driver(name, path, errors);
    if !name.contains('/') {
        errors.invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

fn identifier(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if name.len() > IDENTIFIER_MAX {
        errors.too_long(path, IDENTIFIER_MAX);
    }
    errors.invalid_all(path, name, names::c_identifier(name));
}

/// An object that only a driver understands.
pub(super) fn json_object(value: &Value, max: usize, path: &Path<'_>, errors: &mut ErrorList) {
    if value.to_string().len() > max {
        errors.too_long(path, max);
    } else if !value.is_object() {
        errors.invalid(path, "<value omitted>", "must be a valid JSON object");
    }
}

pub(super) fn taint(taint: &Value, effect_is_new: bool, path: &Path<'_>, errors: &mut ErrorList) {
    let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
    errors.invalid_all(&path.child("key"), key, names::qualified_name(key));
    if !value.is_empty() {
        errors.invalid_all(&path.child("value"), value, names::label_value(value));
    }
    match effect {
        _ if !effect_is_new => {}
        "" => errors.required(&path.child("effect"), ""),
        known if EFFECTS.contains(&known) => {}
        other => errors.not_supported(&path.child("effect"), other, &EFFECTS),
    }
}

/// Conditions that must hold, or must not, before a pod is bound to a node with the device (KEP-5007): there are both or neither.
pub(super) fn binding(device: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    const KINDS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    let [good, bad] = KINDS.map(|kind| array(device, kind));
    for (kind, list) in KINDS.iter().zip([good, bad]) {
        let path = path.child(kind);
        each(list, CONDITIONS_MAX, None, &path, errors, |name, path, errors| {
            let name = name.as_str().unwrap_or("");
            errors.invalid_all(path, name, names::qualified_name(name));
        });
        for (i, name) in list.iter().enumerate().filter(|(i, name)| list[..*i].contains(name)) {
            errors.duplicate(&path.index(i), name.clone());
        }
    }
    for (i, name) in bad.iter().enumerate().filter(|(_, name)| good.contains(name)) {
        let why = "bindingFailureConditions must not overlap with bindingConditions";
        errors.invalid(&path.child(KINDS[1]).index(i), name.clone(), why);
    }
    for (lacking, other, missing) in [(0, 1, good.is_empty() && !bad.is_empty()), (1, 0, bad.is_empty() && !good.is_empty())] {
        if missing {
            let why = format!("{} are required to use {}", KINDS[lacking], KINDS[other]);
            errors.invalid(&path.child(KINDS[lacking]), Value::Null, why);
        }
    }
}
