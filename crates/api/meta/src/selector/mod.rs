//! Label and field selectors as they stand in a query (`a in (b,c),!d`, `spec.nodeName=x`): parse, match, print.

mod field;
mod label;

pub use field::{FieldSelector, FieldTerm};
pub use label::{LabelSelector, Operator, Requirement};

/// What upstream says of a selector that it cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);
