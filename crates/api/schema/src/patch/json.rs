//! JSON patch (RFC 6902) as upstream's library reads it: an index may be negative, counting from the end, and the words of its errors are its own.

use serde_json::{Map, Value};

use super::PatchError;
use crate::codec::DecodeError;

/// Upstream's limit of operations in one patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// One operation, as it stands in the patch.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub op: String,
    pub path: Option<String>,
    pub from: Option<String>,
    /// `null` and absent are not the same for `test` and `add`, yet upstream takes both for null.
    pub value: Value,
}

/// Reads a patch, and reports unknown and duplicate fields of operations as upstream does (`json patch unknown field "[0].foo"`).
pub fn parse(bytes: &[u8]) -> Result<(Vec<Operation>, Vec<String>), PatchError> {
    let malformed = |words: String| PatchError::Malformed(format!("error decoding patch: {words}"));
    let read = crate::codec::json::decode_raw(bytes).map_err(|e| match e {
        DecodeError::TooLarge => PatchError::TooLarge(e.to_string()),
        e => malformed(e.to_string()),
    })?;
    let list: Vec<Map<String, Value>> = serde_json::from_value(read).map_err(|_| malformed(MISFIT.into()))?;
    if list.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            list.len()
        )));
    }
    let mut problems = Vec::new();
    let operations = list.into_iter().enumerate().map(|(i, map)| operation(i, map, &mut problems)).collect();
    Ok((operations, problems))
}

const MISFIT: &str = "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp";

fn operation(i: usize, mut map: Map<String, Value>, problems: &mut Vec<String>) -> Operation {
    let mut text = |key: &str| match map.remove(key) {
        Some(Value::String(s)) => Some(s),
        _ => None,
    };
    let (op, path, from) = (text("op"), text("path"), text("from"));
    let value = map.remove("value").unwrap_or(Value::Null);
    problems.extend(map.keys().map(|key| format!("json patch unknown field \"[{i}].{key}\"")));
    Operation { op: op.unwrap_or_else(|| "unknown".into()), path, from, value }
}

/// What `copy` may add to an object in all; upstream's limit and words (`AccumulatedCopySizeLimit`), counted in nearly the same bytes.
const MOST_COPIED: usize = 3 << 20;
/// What `move` may walk through in all. Upstream has no such limit; an ordinary patch moves a few small things.
const MOST_MOVED: usize = 16 << 20;
/// No object that is read is deeper (serde_json's limit), and what works on trees takes stack for each level: operations must not build one that is.
const MAX_DEPTH: usize = 128;

pub(super) fn apply(target: &mut Value, operations: &[Operation]) -> Result<(), PatchError> {
    let mut patched = target.clone();
    let mut done = Done::default();
    for operation in operations {
        apply_one(&mut patched, operation, &mut done).map_err(PatchError::Unprocessable)?;
    }
    *target = patched;
    Ok(())
}

/// What the operations so far have put elsewhere.
#[derive(Default)]
struct Done {
    copied: usize,
    moved: usize,
}

impl Done {
    fn copy(&mut self, value: &Value, path: &str) -> Result<(), String> {
        self.copied += measured(value, path)?;
        if self.copied > MOST_COPIED {
            let copied = self.copied;
            return Err(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MOST_COPIED}"
            ));
        }
        Ok(())
    }

    fn r#move(&mut self, value: &Value, path: &str) -> Result<(), String> {
        self.moved += measured(value, path)?;
        if self.moved > MOST_MOVED {
            return Err(format!("Unable to complete the move, what was moved in all exceeds the limit {MOST_MOVED}"));
        }
        Ok(())
    }
}

/// The length of the value as JSON, about. The value must not become too deep at its new place.
fn measured(value: &Value, path: &str) -> Result<usize, String> {
    fn walk(value: &Value, room: usize) -> Option<usize> {
        let room = room.checked_sub(1)?;
        Some(match value {
            Value::String(text) => text.len() + 3,
            Value::Array(list) => 3 + list.iter().try_fold(0, |sum, item| Some(sum + walk(item, room)?))?,
            Value::Object(map) => 3 + map.iter().try_fold(0, |sum, (key, value)| Some(sum + key.len() + 3 + walk(value, room)?))?,
            Value::Null | Value::Bool(_) | Value::Number(_) => 5,
        })
    }
    let steps = path.bytes().filter(|b| *b == b'/').count();
    MAX_DEPTH.checked_sub(steps).and_then(|room| walk(value, room)).ok_or_else(|| format!("{path}: the object would be nested too deeply"))
}

const MISSING: &str = "missing value";

fn apply_one(doc: &mut Value, operation: &Operation, done: &mut Done) -> Result<(), String> {
    let path = operation.path.as_deref();
    let path = |what: &str| path.ok_or_else(|| format!("{what} operation failed to decode path: {MISSING}"));
    let from = |what: &str| {
        let from = operation.from.as_deref();
        from.ok_or_else(|| format!("{what} operation failed to decode from: operation, missing from field: {MISSING}"))
    };
    match operation.op.as_str() {
        "add" => add(doc, path("add")?, fresh(operation, path("add")?)?),
        "remove" => {
            let path = path("remove")?;
            let (container, key) =
                find(doc, path).ok_or_else(|| format!("remove operation does not apply: doc is missing path: \"{path}\": {MISSING}"))?;
            take(container, &key).map(drop).map_err(|e| format!("error in remove for path: '{path}': {e}"))
        }
        "replace" => replace(doc, path("replace")?, fresh(operation, path("replace")?)?),
        "move" => {
            let from = from("move")?;
            let (container, key) =
                find(doc, from).ok_or_else(|| format!("move operation does not apply: doc is missing from path: {from}: {MISSING}"))?;
            let value = take(container, &key).map_err(|e| format!("error in move for path: '{key}': {e}"))?;
            done.r#move(&value, path("move")?)?;
            put(doc, "move", path("move")?, value)
        }
        "copy" => {
            let from = from("copy")?;
            let (container, key) =
                find(doc, from).ok_or_else(|| format!("copy operation does not apply: doc is missing from path: {from}: {MISSING}"))?;
            let value = get(container, &key).map_err(|e| format!("error in copy for from: '{from}': {e}"))?.unwrap_or(&Value::Null);
            done.copy(value, path("copy")?)?;
            let value = value.clone();
            put(doc, "copy", path("copy")?, value)
        }
        "test" => test(doc, path("test")?, &operation.value),
        other => Err(format!("Unexpected kind: {other}")),
    }
}

/// A copy of the operation's value, which is no deeper than its place allows.
fn fresh(operation: &Operation, path: &str) -> Result<Value, String> {
    measured(&operation.value, path)?;
    Ok(operation.value.clone())
}

fn add(doc: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let (container, key) =
        find(doc, path).ok_or_else(|| format!("add operation does not apply: doc is missing path: \"{path}\": {MISSING}"))?;
    insert(container, &key, value).map_err(|e| format!("error in add for path: '{path}': {e}"))
}

fn put(doc: &mut Value, what: &str, path: &str, value: Value) -> Result<(), String> {
    let (container, key) =
        find(doc, path).ok_or_else(|| format!("{what} operation does not apply: doc is missing destination path: {path}: {MISSING}"))?;
    insert(container, &key, value).map_err(|e| format!("error in {what} for path: '{path}': {e}"))
}

fn replace(doc: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        if !value.is_object() && !value.is_array() {
            return Err("replace operation value must be object or array: %!w(<nil>)".into());
        }
        *doc = value;
        return Ok(());
    }
    let (container, key) =
        find(doc, path).ok_or_else(|| format!("replace operation does not apply: doc is missing path: {path}: {MISSING}"))?;
    let slot = match container {
        // Upstream's library lets a field be replaced that is not there.
        Value::Object(map) => Some(map.entry(key).or_insert(Value::Null)),
        Value::Array(list) => index(&key, list.len()).ok().and_then(|i| list.get_mut(i)),
        _ => None,
    };
    *slot.ok_or_else(|| format!("replace operation does not apply: doc is missing key: {path}: {MISSING}"))? = value;
    Ok(())
}

fn test(doc: &mut Value, path: &str, value: &Value) -> Result<(), String> {
    let failed = || format!("testing value {path} failed: test failed");
    if path.is_empty() {
        return if doc == value { Ok(()) } else { Err(failed()) };
    }
    let (container, key) = find(doc, path).ok_or_else(|| format!("test operation does not apply: is missing path: {path}: {MISSING}"))?;
    match get(container, &key) {
        Ok(Some(found)) if found == value => Ok(()),
        // A field that is not there equals null.
        Ok(None) if value.is_null() => Ok(()),
        Err(e) if !value.is_null() => Err(format!("error in test for path: '{path}': {e}")),
        Err(_) => Ok(()),
        _ => Err(failed()),
    }
}

/// What holds the value that the path points to, and the last step.
fn find<'a>(doc: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut steps: Vec<String> = path.split('/').map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
    if steps.len() < 2 {
        return None;
    }
    let last = steps.pop()?;
    let mut at = doc;
    for step in &steps[1..] {
        at = match at {
            Value::Object(map) => map.get_mut(step)?,
            Value::Array(list) => {
                let i = index(step, list.len()).ok()?;
                list.get_mut(i)?
            }
            _ => return None,
        };
    }
    (at.is_object() || at.is_array()).then_some((at, last))
}

fn get<'a>(container: &'a Value, key: &str) -> Result<Option<&'a Value>, String> {
    match container {
        Value::Object(map) => Ok(map.get(key)),
        Value::Array(list) => index(key, list.len()).and_then(|i| list.get(i).map(Some).ok_or_else(|| out_of_bounds(i))),
        _ => Ok(None),
    }
}

fn take(container: &mut Value, key: &str) -> Result<Value, String> {
    match container {
        Value::Object(map) => map.remove(key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: {MISSING}")),
        Value::Array(list) => {
            let i = index(key, list.len())?;
            if i < list.len() { Ok(list.remove(i)) } else { Err(out_of_bounds(i)) }
        }
        _ => Err(MISSING.into()),
    }
}

fn insert(container: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match container {
        Value::Object(map) => drop(map.insert(key.to_owned(), value)),
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => {
            let i = index(key, list.len() + 1)?;
            if i > list.len() {
                return Err(out_of_bounds(i));
            }
            list.insert(i, value);
        }
        _ => return Err(MISSING.into()),
    }
    Ok(())
}

fn out_of_bounds(i: impl std::fmt::Display) -> String {
    format!("Unable to access invalid index: {i}: invalid index referenced")
}

fn index(key: &str, length: usize) -> Result<usize, String> {
    let bad = || format!("value was not a proper array index: '{key}': strconv.Atoi: parsing \"{key}\": invalid syntax");
    let i: i64 = key.parse().map_err(|_| bad())?;
    if i >= 0 {
        return usize::try_from(i).map_err(|_| bad());
    }
    i64::try_from(length).ok().and_then(|n| usize::try_from(n + i).ok()).ok_or_else(|| out_of_bounds(i))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(doc: Value, patch: Value) -> Result<Value, String> {
        let mut doc = doc;
        let (operations, _) = parse(patch.to_string().as_bytes()).map_err(|e| e.to_string())?;
        apply(&mut doc, &operations).map(|()| doc).map_err(|e| e.to_string())
    }

    #[test]
    fn operations() {
        let doc = || json!({"a": {"b": [1, 2, 3]}, "c/d": 1});
        let cases = [
            (json!([{"op": "add", "path": "/a/b/-", "value": 4}]), json!({"a": {"b": [1, 2, 3, 4]}, "c/d": 1})),
            (json!([{"op": "add", "path": "/a/b/0", "value": 0}]), json!({"a": {"b": [0, 1, 2, 3]}, "c/d": 1})),
            (json!([{"op": "remove", "path": "/a/b/-1"}]), json!({"a": {"b": [1, 2]}, "c/d": 1})),
            (json!([{"op": "replace", "path": "/c~1d", "value": null}]), json!({"a": {"b": [1, 2, 3]}, "c/d": null})),
            (json!([{"op": "move", "from": "/a/b", "path": "/e"}]), json!({"a": {}, "c/d": 1, "e": [1, 2, 3]})),
            (json!([{"op": "copy", "from": "/a/b/1", "path": "/e"}]), json!({"a": {"b": [1, 2, 3]}, "c/d": 1, "e": 2})),
            (json!([{"op": "test", "path": "/a/b/1", "value": 2}]), doc()),
            (json!([{"op": "test", "path": "/x", "value": null}]), doc()),
            (json!([{"op": "replace", "path": "/x", "value": 1}]), json!({"a": {"b": [1, 2, 3]}, "c/d": 1, "x": 1})),
        ];
        for (patch, result) in cases {
            assert_eq!(run(doc(), patch.clone()), Ok(result), "{patch}");
        }
    }

    /// Forty of these would be 2⁴⁰ objects, which upstream stops at 3 MiB too.
    #[test]
    fn copies_do_not_double_for_ever() {
        let double = |i: usize| json!({"op": "copy", "from": "/a", "path": format!("/a/{i}")});
        let error = run(json!({"a": {"text": "some"}}), (0..40).map(double).collect()).unwrap_err();
        assert!(error.starts_with("Unable to complete the copy, the accumulated size increase of copy is "), "{error}");
        assert!(error.ends_with(", exceeding the limit 3145728"), "{error}");
    }

    /// A tree of a million levels ends the program when it is dropped, by its stack.
    #[test]
    fn no_operation_builds_what_is_too_deep() {
        let into_itself = |_| json!({"op": "copy", "from": "/a", "path": "/a/a"});
        let error = run(json!({"a": {}}), (0..1000).map(into_itself).collect()).unwrap_err();
        assert!(error.ends_with("nested too deeply"), "{error}");
        let deeper = [
            json!({"op": "add", "path": "/b", "value": {}}),
            json!({"op": "move", "from": "/a", "path": "/b/x"}),
            json!({"op": "move", "from": "/b", "path": "/a"}),
        ];
        let error = run(json!({"a": {}}), (0..1000).flat_map(|_| deeper.clone()).collect()).unwrap_err();
        assert!(error.ends_with("nested too deeply"), "{error}");
        let nest = |value: &str| format!("{}{value}{}", "[".repeat(100), "]".repeat(100));
        let add = |at: String| json!({"op": "add", "path": at, "value": serde_json::from_str::<Value>(&nest("")).expect("JSON")});
        let error = run(json!({"a": {}}), json!([add("/a/x".into()), add(format!("/a/x{}", "/0".repeat(99)))])).unwrap_err();
        assert!(error.ends_with("nested too deeply"), "{error}");
    }

    #[test]
    fn errors_are_upstreams_and_nothing_is_done() {
        let doc = json!({"a": [1]});
        let cases = [
            (json!([{"op": "remove", "path": "/b"}]), "error in remove for path: '/b': Unable to remove nonexistent key: b: missing value"),
            (
                json!([{"op": "replace", "path": "/a/7", "value": 1}]),
                "replace operation does not apply: doc is missing key: /a/7: missing value",
            ),
            (
                json!([{"op": "add", "path": "/b/c", "value": 1}]),
                "add operation does not apply: doc is missing path: \"/b/c\": missing value",
            ),
            (json!([{"op": "test", "path": "/a/0", "value": 2}]), "testing value /a/0 failed: test failed"),
            (json!([{"op": "jump", "path": "/a"}]), "Unexpected kind: jump"),
            (
                json!([{"op": "add", "path": "/a/5", "value": 2}]),
                "error in add for path: '/a/5': Unable to access invalid index: 5: invalid index referenced",
            ),
        ];
        for (patch, words) in cases {
            assert_eq!(run(doc.clone(), patch.clone()), Err(words.to_owned()), "{patch}");
        }
        let mut target = doc.clone();
        let (operations, problems) = parse(br#"[{"op":"remove","path":"/a","x":1},{"op":"remove","path":"/a"}]"#).unwrap();
        assert!(apply(&mut target, &operations).is_err());
        assert_eq!(target, doc);
        assert_eq!(problems, [r#"json patch unknown field "[0].x""#]);
    }
}
