//! The three patches: JSON merge patch (RFC 7386), JSON patch (RFC 6902) and strategic merge patch, in upstream's error words.
//!
//! They work on trees in place and know nothing of kinds except the last, which reads merge keys from the facts. The result is not canonical: the
//! caller brings it into form with [`crate::codec::json::canonicalize`], which also finds unknown fields. Server-side apply is [`crate::apply`].

mod json;
mod strategic;

use serde_json::{Map, Value};
use tiphys_meta::{ApiError, Reason};

pub use json::{MAX_OPERATIONS, Operation, parse as parse_json_patch};

use crate::codec::{DecodeError, json as json_codec};
use crate::facts::Kind;

/// Why a patch does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is no patch: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object: 422.
    #[error("{0}")]
    Unprocessable(String),
    /// More operations than are allowed: 413.
    #[error("{0}")]
    TooLarge(String),
    /// What upstream answers with 500, for it does not expect it.
    #[error("{0}")]
    Unexpected(String),
}

impl PatchError {
    /// A `test` of a JSON patch that did not hold.
    pub fn is_failed_test(&self) -> bool {
        matches!(self, PatchError::Unprocessable(why) if why.ends_with(": test failed"))
    }

    pub fn to_api_error(&self) -> ApiError {
        match self {
            PatchError::Malformed(m) => ApiError::bad_request(m),
            // As upstream: the reason is not told.
            PatchError::Unprocessable(_) => {
                ApiError::new(Reason::Invalid, "the server rejected our request due to an error in our request")
            }
            PatchError::TooLarge(m) => ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity is too large: {m}")),
            PatchError::Unexpected(m) => ApiError::new(Reason::Unknown, m),
        }
    }
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        error.to_api_error()
    }
}

/// Reads a merge patch or a strategic one: an object, with a list of the fields that it gives twice.
pub fn parse_document(bytes: &[u8]) -> Result<(Value, Vec<String>), PatchError> {
    let read = json_codec::decode_untyped(bytes).map_err(|e| match e {
        DecodeError::TooLarge => PatchError::TooLarge(e.to_string()),
        e => PatchError::Malformed(e.to_string()),
    })?;
    let found = match &read.object {
        Value::Object(_) | Value::Null => return Ok((read.object, read.problems)),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
    };
    Err(PatchError::Malformed(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")))
}

/// JSON merge patch: objects are merged, `null` removes, everything else replaces.
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("Invalid JSON Patch".into()));
    }
    merge_value(target, patch);
    Ok(())
}

fn merge_value(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge_value(target.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// JSON patch. All operations apply, or none.
pub fn json(target: &mut Value, operations: &[Operation]) -> Result<(), PatchError> {
    json::apply(target, operations)
}

/// Strategic merge patch with all its directives. On an error the target may be half patched: patch a copy.
pub fn strategic(kind: &Kind, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    strategic::apply(kind, target, patch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patch_is_rfc_7386() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut target, patch, result) in cases {
            merge(&mut target, &patch).unwrap();
            assert_eq!(target, result, "{patch}");
        }
        assert_eq!(merge(&mut json!({}), &json!([1])), Err(PatchError::Malformed("Invalid JSON Patch".into())));
    }
}
