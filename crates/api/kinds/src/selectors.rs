//! Checks of `LabelSelector` fields.

use serde_json::Value;
use tiphys_meta::{ErrorList, Path, names};

use crate::tree::{array, text};

pub(crate) fn check(selector: Option<&Value>, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(selector) = selector else { return };
    crate::meta::labels(selector.get("matchLabels"), &path.child("matchLabels"), errors);
    let list = path.child("matchExpressions");
    for (i, expression) in array(selector, "matchExpressions").iter().enumerate() {
        requirement(expression, &list.index(i), errors);
    }
}

fn requirement(expression: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let values = array(expression, "values");
    match text(expression, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&path.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    let key = text(expression, "key");
    errors.invalid_all(&path.child("key"), key, names::qualified_name(key));
    let list = path.child("values");
    for (i, value) in values.iter().filter_map(Value::as_str).enumerate() {
        errors.invalid_all(&list.index(i), value, names::label_value(value));
    }
}

/// No requirements at all.
pub(crate) fn is_empty(selector: &Value) -> bool {
    let labels = selector.get("matchLabels").and_then(Value::as_object).is_none_or(serde_json::Map::is_empty);
    labels && array(selector, "matchExpressions").is_empty()
}
