//! Printer columns, subresources and selectable fields of the versions of a definition.
//!
//! What all versions have in common is the definition's own inside upstream; the paths of errors say so.

use std::collections::BTreeSet;

use serde_json::Value;
use tiphys_meta::{ErrorList, Path};

use crate::tree::{array, at, text};
use crate::workloads::SPEC;

const MOST_SELECTABLE: usize = 8;
const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

pub(super) fn check(versions: &[Value], errors: &mut ErrorList) {
    let list = SPEC.child("versions");
    for (field, check) in [("additionalPrinterColumns", columns as fn(&Value, &Path<'_>, &mut ErrorList)), ("subresources", subresources)] {
        let shared = versions.iter().all(|v| at(v, field) == versions.first().and_then(|first| at(first, field)));
        for (i, version) in versions.iter().enumerate() {
            let Some(part) = at(version, field) else { continue };
            if !shared {
                check(part, &list.index(i).child(field), errors);
            } else if i == 0 {
                check(part, &SPEC.child(field), errors);
            }
        }
    }
    for (i, version) in versions.iter().enumerate() {
        let shared = versions.iter().all(|v| at(v, "selectableFields") == at(version, "selectableFields"));
        let of_version = list.index(i);
        let path = if shared { SPEC.child("selectableFields") } else { of_version.child("selectableFields") };
        if !shared || i == 0 {
            selectable(version, &path, errors);
        }
    }
}

fn columns(columns: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for (i, column) in columns.as_array().into_iter().flatten().enumerate() {
        let path = path.index(i);
        if text(column, "name").is_empty() {
            errors.required(&path.child("name"), "");
        }
        let types = format!("must be one of {}", TYPES.join(","));
        match text(column, "type") {
            "" => errors.required(&path.child("type"), types),
            kind if !TYPES.contains(&kind) => errors.invalid(&path.child("type"), kind, types),
            _ => {}
        }
        let format = text(column, "format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            errors.invalid(&path.child("format"), format, format!("must be one of {}", FORMATS.join(",")));
        }
        simple_path(text(column, "jsonPath"), &path.child("JSONPath"), errors);
    }
}

/// Whether the path is there and begins with a dot.
fn simple_path(json_path: &str, path: &Path<'_>, errors: &mut ErrorList) -> bool {
    if json_path.is_empty() {
        errors.required(path, "");
    } else if !json_path.starts_with('.') {
        errors.invalid(path, json_path, "must be a simple json path starting with .");
    } else {
        return true;
    }
    false
}

fn subresources(subresources: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(scale) = at(subresources, "scale") else { return };
    for (field, below, why) in [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ] {
        let (given, place) = (text(scale, field), format!("scale.{field}"));
        if field == "labelSelectorPath" && given.is_empty() {
            continue;
        }
        if simple_path(given, &path.child(&place), errors) && !below.iter().any(|b| given.starts_with(b)) {
            errors.invalid(&path.child(&place), given, why);
        }
    }
}

fn selectable(version: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let Some(schema) = at(version, "schema.openAPIV3Schema") else {
        if !array(version, "selectableFields").is_empty() {
            errors.invalid(path, "", "may only be set when `version.schema.openAPIV3Schema` is not included");
        }
        return;
    };
    let mut seen = BTreeSet::new();
    for (i, field) in array(version, "selectableFields").iter().enumerate() {
        let item = path.index(i);
        let (path, given) = (item.child("jsonPath"), text(field, "jsonPath"));
        if given.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let found = match schema_of(schema, given) {
            Ok(found) => found,
            Err(why) => {
                errors.invalid(&path, given, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if given.trim_start_matches('.').split('.').next() == Some("metadata") {
            errors.invalid(&path, given, "must not point to fields in metadata");
        }
        if !matches!(text(found, "type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.invalid(&path, given, why);
        }
        if !seen.insert(given) {
            errors.duplicate(&path, given);
        }
    }
    if seen.len() > MOST_SELECTABLE {
        errors.too_many(path, seen.len(), MOST_SELECTABLE);
    }
}

/// The schema of the field that a path of names leads to.
fn schema_of<'s>(schema: &'s Value, json_path: &str) -> Result<&'s Value, String> {
    const NOWHERE: &str = "does not refer to a valid field";
    let (mut at, mut rest) = (schema, json_path);
    while !rest.is_empty() {
        if rest.starts_with('[') {
            return Err("array notation is not allowed".into());
        }
        let token = &rest[..rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(1)];
        rest = rest.strip_prefix('.').ok_or_else(|| format!("expected [ or . but got: {token}"))?;
        let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
        let (step, after) = rest.split_at(end);
        if step.is_empty() {
            return Err("unexpected end of JSON path".into());
        }
        at = match at.get("properties").filter(|p| p.is_object()) {
            Some(properties) => properties.get(step).ok_or(NOWHERE)?,
            None => at.get("additionalProperties").filter(|a| a.is_object()).ok_or(NOWHERE)?,
        };
        rest = after;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(version: Value) -> Vec<String> {
        let mut errors = ErrorList::new();
        check(&[version], &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn parts_of_a_version() {
        assert_eq!(
            told(json!({"additionalPrinterColumns": [{"name": "a", "type": "text", "jsonPath": "spec"}]})),
            [
                "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
                "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"spec\": must be a simple json path starting with .",
            ]
        );
        assert_eq!(
            told(json!({"subresources": {"scale": {"specReplicasPath": ".status.n"}}})),
            [
                "spec.subresources.scale.specReplicasPath: Invalid value: \".status.n\": should be a json path under .spec",
                "spec.subresources.scale.statusReplicasPath: Required value",
            ]
        );
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "color": {"type": "string"}, "list": {"type": "array"}}}}}});
        let fields = |paths: &[&str]| json!({"schema": schema, "selectableFields": paths.iter().map(|p| json!({"jsonPath": p})).collect::<Vec<_>>()});
        assert!(told(fields(&[".spec.color"])).is_empty());
        assert_eq!(told(fields(&[".spec.list", ".spec.none"])).len(), 2);
        assert_eq!(told(fields(&[".spec.color", ".spec.color"])), ["spec.selectableFields[1].jsonPath: Duplicate value: \".spec.color\""]);
    }
}
