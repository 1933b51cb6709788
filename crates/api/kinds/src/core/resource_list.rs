//! Lists of resource amounts (`requests`, `limits`, `capacity`): nothing finer than a thousandth is kept.

use serde_json::{Map, Value};
use tiphys_meta::quantity::Format;
use tiphys_meta::{Quantity, object};

/// Rounds every amount up to a thousandth.
pub(crate) fn round(list: Option<&mut Value>) {
    let Some(map) = list.and_then(Value::as_object_mut) else { return };
    for amount in map.values_mut() {
        let Some(quantity) = amount.as_str().and_then(|t| Quantity::parse(t).ok()) else { continue };
        if !quantity.is_milli() {
            let rounded = Quantity::from_milli(quantity.milli());
            // A sum with a binary zero keeps the binary form.
            let rounded = if quantity.format() == Format::BinarySi { Quantity::new(0, Format::BinarySi) + rounded } else { rounded };
            *amount = rounded.to_string().into();
        }
    }
}

/// `limits` and `requests` of a `resources` field.
pub(crate) fn round_requirements(resources: Option<&mut Value>) {
    let Some(resources) = resources else { return };
    for side in ["limits", "requests"] {
        round(resources.get_mut(side));
    }
}

/// A container that limits a resource without requesting it requests what it limits.
pub(crate) fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.get_mut("resources") else { return };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    add_missing(resources, "requests", limits);
}

/// Adds to the list `field` the amounts that it does not have.
pub(crate) fn add_missing(parent: &mut Value, field: &str, amounts: Map<String, Value>) {
    if amounts.is_empty() {
        return;
    }
    let list = object::as_map(crate::tree::child(parent, field));
    for (name, amount) in amounts {
        list.entry(name).or_insert(amount);
    }
}
