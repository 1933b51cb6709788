//! Validation of a custom resource by its schema, by `kube-openapi/pkg/validation/validate` and `apiextensions-apiserver/pkg/apiserver/schema/listtype`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tiphys_meta::{ErrorList, ErrorType, FieldError};

use super::{flag, formats, patterns};

/// Everything in which the object does not fit the schema.
pub fn validate(schema: &Value, object: &Value) -> ErrorList {
    let mut errors = validate_at(schema, object, None, "");
    errors.append(validate_items(schema, object));
    errors
}

/// Everything in which a part of an object, at `path`, does not fit its schema. What is as it was before is let through (KEP-4008).
pub fn validate_at(schema: &Value, value: &Value, old: Option<&Value>, path: &str) -> ErrorList {
    let mut found = Found::default();
    check(schema, value, old, path, &mut found);
    found.into()
}

/// What comes twice in sets and in lists that are maps.
pub fn validate_items(schema: &Value, object: &Value) -> ErrorList {
    let mut found = Found::default();
    unique_items(schema, object, "", &mut found);
    found.into()
}

#[derive(Default)]
struct Found {
    errors: Vec<FieldError>,
}

impl Found {
    fn push(&mut self, kind: ErrorType, path: &str, value: Option<Value>, detail: String) {
        self.errors.push(FieldError { kind, field: path.trim_start_matches('.').to_owned(), value, detail });
    }

    fn invalid(&mut self, path: &str, value: &Value, detail: String) {
        self.push(ErrorType::Invalid, path, Some(value.clone()), detail);
    }
}

impl From<Found> for ErrorList {
    fn from(found: Found) -> ErrorList {
        let mut errors = ErrorList::new();
        found.errors.into_iter().for_each(|e| errors.push(e));
        errors
    }
}

/// As the path is named in messages: from the root on, without a dot in front.
fn named(path: &str) -> &str {
    path.trim_start_matches('.')
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check(schema: &Value, value: &Value, old: Option<&Value>, path: &str, found: &mut Found) {
    let before = found.errors.len();
    check_new(schema, value, old, path, found);
    if found.errors.len() > before && old == Some(value) {
        found.errors.truncate(before);
    }
}

fn check_new(schema: &Value, value: &Value, old: Option<&Value>, path: &str, found: &mut Found) {
    if !check_type(schema, value, path, found) {
        return;
    }
    combined(schema, value, path, found);
    match value {
        Value::String(text) => check_text(schema, text, path, found),
        Value::Number(_) => check_number(schema, value, path, found),
        Value::Array(items) => check_list(schema, items, old, path, found),
        Value::Object(map) => check_map(schema, map, old, path, found),
        _ => {}
    }
    check_enum(schema, value, path, found);
}

fn check_type(schema: &Value, value: &Value, path: &str, found: &mut Found) -> bool {
    let wanted: &[&str] = match (flag(schema, "x-kubernetes-int-or-string"), schema.get("type").and_then(Value::as_str)) {
        (true, _) => &["integer", "string"],
        (false, Some(one)) => &[one],
        (false, None) => return true,
    };
    let is = type_of(value);
    let whole = value.as_f64().is_some_and(|f| f.fract() == 0.0);
    let fits = match is {
        "null" => flag(schema, "nullable"),
        "integer" => wanted.contains(&"integer") || wanted.contains(&"number"),
        "number" => wanted.contains(&"number") || (whole && wanted.contains(&"integer")),
        other => wanted.contains(&other),
    };
    if !fits {
        let wanted = wanted.join(",");
        let detail = format!("{} in body must be of type {wanted}: {is:?}", named(path));
        found.push(ErrorType::TypeInvalid, path, Some(Value::from(is)), detail);
    }
    fits
}

fn number_of(schema: &Value, name: &str) -> Option<f64> {
    schema.get(name).and_then(Value::as_f64)
}

fn length_of(schema: &Value, name: &str) -> Option<u64> {
    schema.get(name).and_then(Value::as_u64)
}

fn check_text(schema: &Value, text: &str, path: &str, found: &mut Found) {
    let length = text.chars().count() as u64;
    let value = Value::from(text);
    if let Some(most) = length_of(schema, "maxLength").filter(|m| length > *m) {
        found.push(ErrorType::TooLong, path, None, format!("may not be more than {most} bytes"));
    }
    if let Some(least) = length_of(schema, "minLength").filter(|m| length < *m) {
        found.invalid(path, &value, format!("{} in body should be at least {least} chars long", named(path)));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && !patterns::fits(pattern, text)
    {
        found.invalid(path, &value, format!("{} in body should match '{pattern}'", named(path)));
    }
    if let Some(format) = schema.get("format").and_then(Value::as_str)
        && !formats::fits(format, text)
    {
        let detail = format!("{} in body must be of type {format}: {text:?}", named(path));
        found.push(ErrorType::TypeInvalid, path, Some(value), detail);
    }
}

fn check_number(schema: &Value, value: &Value, path: &str, found: &mut Found) {
    let Some(number) = value.as_f64() else { return };
    let name = named(path);
    if let Some(most) = number_of(schema, "maximum") {
        let exclusive = flag(schema, "exclusiveMaximum");
        if number > most || (exclusive && number == most) {
            let words = if exclusive { "less than" } else { "less than or equal to" };
            found.invalid(path, value, format!("{name} in body should be {words} {most}"));
        }
    }
    if let Some(least) = number_of(schema, "minimum") {
        let exclusive = flag(schema, "exclusiveMinimum");
        if number < least || (exclusive && number == least) {
            let words = if exclusive { "greater than" } else { "greater than or equal to" };
            found.invalid(path, value, format!("{name} in body should be {words} {least}"));
        }
    }
    if let Some(factor) = number_of(schema, "multipleOf").filter(|f| *f > 0.0)
        && (number / factor).fract() != 0.0
    {
        found.invalid(path, value, format!("{name} in body should be a multiple of {factor}"));
    }
    let beyond = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => number.fract() == 0.0 && i32::try_from(number as i64).is_err(),
        _ => false,
    };
    if beyond {
        found.invalid(path, value, format!("Checked value must be of type integer with format int32 in {name}"));
    }
}

fn check_list(schema: &Value, items: &[Value], old: Option<&Value>, path: &str, found: &mut Found) {
    if let Some(of) = schema.get("items") {
        for (i, item) in items.iter().enumerate() {
            check(of, item, counterpart(schema, item, old), &format!("{path}[{i}]"), found);
        }
    }
    let length = items.len() as u64;
    if let Some(least) = length_of(schema, "minItems").filter(|m| length < *m) {
        found.invalid(path, &Value::from(length), format!("{} in body should have at least {least} items", named(path)));
    }
    if let Some(most) = length_of(schema, "maxItems").filter(|m| length > *m) {
        found.push(ErrorType::TooMany, path, Some(Value::from(length)), format!("must have at most {most} items"));
    }
    if flag(schema, "uniqueItems") && items.iter().enumerate().any(|(i, a)| items[..i].contains(a)) {
        found.invalid(path, &Value::from(""), format!("{} in body shouldn't contain duplicates", named(path)));
    }
}

/// The item that an item of a list was before: only lists that are maps can tell.
fn counterpart<'o>(schema: &Value, item: &Value, old: Option<&'o Value>) -> Option<&'o Value> {
    if schema.get("x-kubernetes-list-type").and_then(Value::as_str) != Some("map") {
        return None;
    }
    let keys = schema.get("x-kubernetes-list-map-keys")?.as_array()?;
    let same = |o: &&Value| keys.iter().filter_map(Value::as_str).all(|k| o.get(k) == item.get(k));
    old?.as_array()?.iter().find(same)
}

fn check_map(schema: &Value, map: &Map<String, Value>, old: Option<&Value>, path: &str, found: &mut Found) {
    let atomic = schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
    let old = old.filter(|_| !atomic);
    let length = map.len() as u64;
    if let Some(least) = length_of(schema, "minProperties").filter(|m| length < *m) {
        found.invalid(path, &Value::from(length), format!("{} in body should have at least {least} properties", named(path)));
    }
    if let Some(most) = length_of(schema, "maxProperties").filter(|m| length > *m) {
        found.push(ErrorType::TooMany, path, Some(Value::from(length)), format!("must have at most {most} items"));
    }
    let properties = super::properties(schema);
    for (name, value) in map {
        let below = format!("{path}.{name}");
        match properties.and_then(|p| p.get(name)) {
            Some(property) => check(property, value, old.and_then(|o| o.get(name)), &below, found),
            None => match schema.get("additionalProperties") {
                Some(of @ Value::Object(_)) => check(of, value, old.and_then(|o| o.get(name)), &below, found),
                Some(Value::Bool(false)) => {
                    found.invalid(path, &Value::from(name.as_str()), format!("{}.{name} in body is a forbidden property", named(path)));
                }
                _ => {}
            },
        }
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(name) {
            found.push(ErrorType::Required, &format!("{path}.{name}"), None, String::new());
        }
    }
}

fn check_enum(schema: &Value, value: &Value, path: &str, found: &mut Found) {
    let Some(allowed) = schema.get("enum").and_then(Value::as_array) else { return };
    if allowed.contains(value) {
        return;
    }
    let shown = |v: &Value| v.as_str().map_or_else(|| format!("{:?}", v.to_string()), |s| format!("{s:?}"));
    let list: Vec<String> = allowed.iter().map(shown).collect();
    found.push(ErrorType::NotSupported, path, Some(value.clone()), format!("supported values: {}", list.join(", ")));
}

/// `allOf`, `anyOf`, `oneOf`, `not`. Of alternatives that all fail, the errors of the one with the fewest are told.
fn combined(schema: &Value, value: &Value, path: &str, found: &mut Found) {
    let tries = |name: &str| -> Option<Vec<Found>> {
        let list = schema.get(name)?.as_array()?;
        Some(list.iter().map(|s| attempt(s, value, path)).collect())
    };
    let mut composite = |message: String| found.push(ErrorType::Invalid, "", Some(Value::from("")), message);
    let name = named(path);
    let mut failures = Vec::new();
    if let Some(all) = tries("anyOf").filter(|a| !a.is_empty() && !a.iter().any(|f| f.errors.is_empty())) {
        composite(format!("{name:?} must validate at least one schema (anyOf)"));
        failures.extend(fewest(all));
    }
    if let Some(all) = tries("oneOf").filter(|a| !a.is_empty()) {
        match all.iter().filter(|f| f.errors.is_empty()).count() {
            1 => {}
            0 => {
                composite(format!("{name:?} must validate one and only one schema (oneOf). Found none valid"));
                failures.extend(fewest(all));
            }
            n => composite(format!("{name:?} must validate one and only one schema (oneOf). Found {n} valid alternatives")),
        }
    }
    if let Some(all) = tries("allOf") {
        let valid = all.iter().filter(|f| f.errors.is_empty()).count();
        let count = all.len();
        failures.extend(all.into_iter().flat_map(|f| f.errors));
        if valid != count {
            let none = if valid == 0 { ". None validated" } else { "" };
            composite(format!("{name:?} must validate all the schemas (allOf){none}"));
        }
    }
    if let Some(not) = schema.get("not")
        && attempt(not, value, path).errors.is_empty()
    {
        composite(format!("{name:?} must not validate the schema (not)"));
    }
    found.errors.extend(failures);
}

fn attempt(schema: &Value, value: &Value, path: &str) -> Found {
    let mut found = Found::default();
    check(schema, value, None, path, &mut found);
    found
}

fn fewest(all: Vec<Found>) -> Vec<FieldError> {
    all.into_iter().map(|f| f.errors).min_by_key(Vec::len).unwrap_or_default()
}

/// Sets hold nothing twice, and maps no key twice.
fn unique_items(schema: &Value, value: &Value, path: &str, found: &mut Found) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let known = super::properties(schema).and_then(|p| p.get(name));
                let (of, below) = match (known, super::additional(schema).flatten()) {
                    (Some(of), _) => (of, format!("{path}.{name}")),
                    (None, Some(of)) => (of, format!("{path}[{name}]")),
                    _ => continue,
                };
                unique_items(of, value, &below, found);
            }
        }
        Value::Array(items) => {
            match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => duplicates(items, path, found, |item| Some(item.clone())),
                Some("map") => unique_keys(schema, items, path, found),
                _ => {}
            }
            if let Some(of) = schema.get("items") {
                items.iter().enumerate().for_each(|(i, item)| unique_items(of, item, &format!("{path}[{i}]"), found));
            }
        }
        _ => {}
    }
}

fn unique_keys(schema: &Value, items: &[Value], path: &str, found: &mut Found) {
    if let Some((i, item)) = items.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null()) {
        return found.invalid(&format!("{path}[{i}]"), item, "must be an object for an array of list-type map".into());
    }
    let keys: Vec<&str> =
        schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    duplicates(items, path, found, |item| {
        let map = item.as_object()?;
        Some(keys.iter().filter_map(|k| Some(((*k).to_owned(), map.get(*k)?.clone()))).collect::<Map<_, _>>().into())
    });
}

/// Each value that comes again is told once, at its second place.
fn duplicates(items: &[Value], path: &str, found: &mut Found, key: impl Fn(&Value) -> Option<Value>) {
    let (mut seen, mut told) = (BTreeSet::new(), BTreeSet::new());
    for (i, item) in items.iter().enumerate() {
        let Some(key) = key(item) else { continue };
        let text = key.to_string();
        if !seen.insert(text.clone()) && told.insert(text) {
            found.push(ErrorType::Duplicate, &format!("{path}[{i}]"), Some(key), String::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(schema: &Value, object: &Value) -> Vec<String> {
        validate(schema, object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn words_are_upstreams() {
        let property = |schema: Value| json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": schema}}}});
        let cases = [
            (
                json!({"type": "integer"}),
                json!("x"),
                r#"spec.a: Invalid value: "string": spec.a in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "spec.a: Invalid value: 0: spec.a in body should be greater than or equal to 1",
            ),
            (
                json!({"type": "integer", "maximum": 5}),
                json!(6),
                "spec.a: Invalid value: 6: spec.a in body should be less than or equal to 5",
            ),
            (json!({"type": "string", "pattern": "^a+$"}), json!("b"), r#"spec.a: Invalid value: "b": spec.a in body should match '^a+$'"#),
            (json!({"type": "string", "enum": ["x", "y"]}), json!("z"), r#"spec.a: Unsupported value: "z": supported values: "x", "y""#),
            (json!({"type": "string", "maxLength": 1}), json!("zz"), "spec.a: Too long: may not be more than 1 bytes"),
            (json!({"type": "array", "maxItems": 1}), json!([1, 2]), "spec.a: Too many: 2: must have at most 1 items"),
            (json!({"type": "object", "required": ["b"]}), json!({}), "spec.a.b: Required value"),
            (
                json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
                json!(["x", "x"]),
                r#"spec.a[1]: Duplicate value: "x""#,
            ),
        ];
        for (schema, value, words) in cases {
            assert_eq!(errors(&property(schema.clone()), &json!({"spec": {"a": value}})), [words], "{schema}");
        }
    }

    #[test]
    fn what_was_wrong_before_may_stay() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1},
            "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object",
                "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}}},
        }});
        let old = json!({"a": "long", "b": "x", "l": [{"k": "x", "v": 5}, {"k": "y", "v": 1}]});
        let new = json!({"a": "long", "b": "long", "l": [{"k": "y", "v": 5}, {"k": "x", "v": 5}]});
        let fields: Vec<String> = validate_at(&schema, &new, Some(&old), "").iter().map(|e| e.field.clone()).collect();
        assert_eq!(fields, ["b", "l[0].v"]);
        assert!(validate_at(&schema, &old, Some(&old), "").is_empty());
    }

    #[test]
    fn what_fits() {
        let schema = json!({"type": "object", "properties": {
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "n": {"type": "string", "nullable": true},
            "f": {"type": "number"},
        }});
        assert_eq!(errors(&schema, &json!({"port": 1, "n": null, "f": 1})), Vec::<String>::new());
        assert_eq!(errors(&schema, &json!({"port": "http"})), Vec::<String>::new());
        assert_eq!(errors(&schema, &json!({"port": true})).len(), 1);
    }
}
