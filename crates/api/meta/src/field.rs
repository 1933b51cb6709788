//! Field paths and validation errors in upstream's words: clients and tests match on them.
//!
//! A `Path` borrows its parent, so a path that no error needs costs no allocation.

use std::fmt::{self, Write};

use serde_json::Value;

use crate::{ApiError, Cause, Reason};

/// The way to a field: `spec.containers[0].name`. Names may hold several steps (`child("spec.template")`).
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The object itself, printed as nothing.
    pub const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    pub const fn new(name: &'a str) -> Path<'a> {
        Path { parent: None, step: Step::Name(name) }
    }

    pub const fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Name(name) }
    }

    pub const fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Name(name) if self.parent.is_some_and(|p| !p.is_root()) => write!(f, ".{name}"),
            Step::Name(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TooFew,
    Internal,
    TypeInvalid,
    TooShort,
}

impl ErrorType {
    /// The `reason` of a cause in `Status`.
    pub fn cause(self) -> &'static str {
        match self {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::TooFew => "FieldValueTooFew",
            ErrorType::Internal => "InternalError",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
            ErrorType::TooShort => "FieldValueTooShort",
        }
    }

    fn text(self) -> &'static str {
        match self {
            ErrorType::NotFound => "Not found",
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::TypeInvalid => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooMany => "Too many",
            ErrorType::TooFew => "Too few",
            ErrorType::Internal => "Internal error",
            ErrorType::TooShort => "Too short",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, ErrorType::Required | ErrorType::Forbidden | ErrorType::TooLong | ErrorType::TooShort | ErrorType::Internal)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    pub kind: ErrorType,
    pub field: String,
    /// `None`: not shown.
    pub value: Option<Value>,
    pub detail: String,
}

impl FieldError {
    pub fn new(kind: ErrorType, path: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        // Upstream prints a missing path as <nil>.
        let field = if path.is_root() { "<nil>".to_owned() } else { path.to_string() };
        FieldError { kind, field, value: Some(value.into()), detail: detail.into() }
    }

    pub fn required(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Required, path, "", detail)
    }

    pub fn invalid(path: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, path, value, detail)
    }

    /// `Invalid value: why`, for values too large to show.
    pub fn invalid_unshown(path: &Path<'_>, detail: impl Into<String>) -> Self {
        FieldError { value: None, ..Self::new(ErrorType::Invalid, path, "", detail) }
    }

    pub fn not_supported(path: &Path<'_>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| go_quote(s)).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self::new(ErrorType::NotSupported, path, value, detail)
    }

    pub fn forbidden(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Forbidden, path, "", detail)
    }

    pub fn duplicate(path: &Path<'_>, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::Duplicate, path, value, "")
    }

    pub fn not_found(path: &Path<'_>, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::NotFound, path, value, "")
    }

    pub fn too_long(path: &Path<'_>, max: usize) -> Self {
        let bytes = if max == 1 { "byte" } else { "bytes" };
        Self::new(ErrorType::TooLong, path, "", format!("may not be more than {max} {bytes}"))
    }

    pub fn too_long_characters(path: &Path<'_>, max: usize) -> Self {
        let characters = if max == 1 { "character" } else { "characters" };
        Self::new(ErrorType::TooLong, path, "", format!("may not be more than {max} {characters}"))
    }

    pub fn too_many(path: &Path<'_>, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::new(ErrorType::TooMany, path, actual, format!("must have at most {max} {items}"))
    }

    pub fn internal(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Internal, path, "", detail)
    }

    /// The text without the field: what a cause's `message` says.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if let Some(value) = self.value.as_ref().filter(|_| self.kind.shows_value()) {
            text.push_str(": ");
            match value {
                Value::String(s) => text.push_str(&go_quote(s)),
                other => text.push_str(&other.to_string()),
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// All errors of one object. Rules take `&mut ErrorList` and add to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ErrorList(Vec<FieldError>);

impl ErrorList {
    pub const fn new() -> Self {
        ErrorList(Vec::new())
    }

    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    pub fn append(&mut self, mut other: ErrorList) {
        self.0.append(&mut other.0);
    }

    pub fn required(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.push(FieldError::required(path, detail));
    }

    pub fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) {
        self.push(FieldError::invalid(path, value, detail));
    }

    pub fn invalid_unshown(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.push(FieldError::invalid_unshown(path, detail));
    }

    /// One `Invalid` for each message, as the name rules give them.
    pub fn invalid_all(&mut self, path: &Path<'_>, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid(path, value, message);
        }
    }

    pub fn not_supported(&mut self, path: &Path<'_>, value: impl Into<Value>, supported: &[&str]) {
        self.push(FieldError::not_supported(path, value, supported));
    }

    pub fn forbidden(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.push(FieldError::forbidden(path, detail));
    }

    pub fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.push(FieldError::duplicate(path, value));
    }

    pub fn not_found(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.push(FieldError::not_found(path, value));
    }

    pub fn too_long(&mut self, path: &Path<'_>, max: usize) {
        self.push(FieldError::too_long(path, max));
    }

    pub fn too_many(&mut self, path: &Path<'_>, actual: usize, max: usize) {
        self.push(FieldError::too_many(path, actual, max));
    }

    /// Upstream's aggregate: one error plainly, several in brackets, repetitions once.
    pub fn message(&self) -> String {
        let mut texts: Vec<String> = Vec::with_capacity(self.0.len());
        for error in &self.0 {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
    }

    /// `Pod "x" is invalid: …` with a cause for each error; `group` and `kind` name the kind (`Deployment.apps`).
    pub fn into_invalid(self, group: &str, kind: &str, name: &str) -> ApiError {
        ApiError::invalid(group, kind, name, &self)
    }
}

impl IntoIterator for ErrorList {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<FieldError> for ErrorList {
    fn from_iter<I: IntoIterator<Item = FieldError>>(iter: I) -> Self {
        ErrorList(iter.into_iter().collect())
    }
}

impl ApiError {
    /// 422: the object breaks the rules of its kind.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &ErrorList) -> ApiError {
        let group_kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut message = format!("{group_kind} {} is invalid", go_quote(name));
        if !errors.is_empty() {
            message.push_str(": ");
            message.push_str(&errors.message());
        }
        let mut error = ApiError::new(Reason::Invalid, message);
        error.group = group.to_owned();
        error.kind = kind.to_owned();
        error.name = name.to_owned();
        error.causes = errors.iter().map(|e| Cause { reason: e.kind.cause().into(), message: e.body(), field: e.field.clone() }).collect();
        error
    }
}

/// A string as Go's `%q` prints it.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let cases = [
            (FieldError::required(&first.child("name"), ""), "spec.containers[0].name: Required value"),
            (
                FieldError::invalid(&first.child("name"), "X", "must be lower"),
                "spec.containers[0].name: Invalid value: \"X\": must be lower",
            ),
            (FieldError::invalid(&spec.child("replicas"), -1, "no"), "spec.replicas: Invalid value: -1: no"),
            (
                FieldError::not_supported(&spec.child("policy"), "x", &["A", "B"]),
                "spec.policy: Unsupported value: \"x\": supported values: \"A\", \"B\"",
            ),
            (FieldError::forbidden(&spec, "may not"), "spec: Forbidden: may not"),
            (FieldError::duplicate(&spec.key("a"), json!({"a": 1})), "spec[a]: Duplicate value: {\"a\":1}"),
            (FieldError::too_long(&spec, 1), "spec: Too long: may not be more than 1 byte"),
            (FieldError::too_many(&spec, 5, 2), "spec: Too many: 5: must have at most 2 items"),
            (FieldError::not_found(&spec, "v"), "spec: Not found: \"v\""),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn invalid_status() {
        let mut errors = ErrorList::new();
        errors.required(&Path::new("metadata").child("name"), "name or generateName is required");
        let one = ApiError::invalid("", "Pod", "", &errors);
        assert_eq!(one.message, "Pod \"\" is invalid: metadata.name: Required value: name or generateName is required");
        errors.forbidden(&Path::new("spec"), "no");
        errors.forbidden(&Path::new("spec"), "no");
        let two = ApiError::invalid("apps", "Deployment", "x", &errors);
        assert_eq!(
            two.message,
            "Deployment.apps \"x\" is invalid: [metadata.name: Required value: name or generateName is required, spec: Forbidden: no]"
        );
        assert_eq!(two.causes.len(), 3);
        assert_eq!(two.causes[1], Cause { reason: "FieldValueForbidden".into(), message: "Forbidden: no".into(), field: "spec".into() });
        assert_eq!(two.code, 422);
    }
}
