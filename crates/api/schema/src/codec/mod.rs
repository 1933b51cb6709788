//! Between bytes and the canonical tree.
//!
//! [`json`], [`proto`] and [`yaml`] share [`canon`], which knows what Go prints, [`go`], which knows Go's words, and [`budget`], which knows when a tree
//! is too large.

pub mod budget;
pub(crate) mod canon;
pub(crate) mod go;
pub mod json;
pub mod proto;
mod syntax;
pub mod yaml;

use serde_json::Value;

/// What Go says about text that is no JSON; none where it is.
pub fn json_error(text: &[u8]) -> Option<String> {
    syntax::error(text)
}

/// What to do about fields that the type does not know, and fields given twice (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// Drop them in silence.
    Ignore,
    /// Report them; the caller sends them as warnings.
    #[default]
    Warn,
    /// Report them; the caller refuses the request.
    Strict,
}

/// A tree in canonical form, and what was wrong with the input though it could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub object: Value,
    /// In upstream's words: `unknown field "spec.foo"`, `duplicate field "spec.a"`.
    pub problems: Vec<String>,
}

/// Input that cannot be read, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No JSON, YAML or protobuf.
    #[error("{0}")]
    Syntax(String),
    /// A value does not fit its field.
    #[error("{0}")]
    Type(String),
    /// Its tree would be too large ([`budget`]).
    #[error("the object is made of too many small values: it would take more than {} MiB of memory", budget::MOST_BYTES >> 20)]
    TooLarge,
    /// The table has no such kind.
    #[error(
        "no kind \"{kind}\" is registered for version \"{api_version}\" in scheme \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\""
    )]
    UnknownKind { api_version: String, kind: String },
}

/// A tree that does not fit its kind; a canonical tree always does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("no kind \"{kind}\" in version \"{api_version}\" is known to protobuf")]
    UnknownKind { api_version: String, kind: String },
    #[error("field {field}: {found} cannot be written as {wanted}")]
    Shape { field: String, wanted: String, found: String },
}
