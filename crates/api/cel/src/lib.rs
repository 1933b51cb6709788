//! The Common Expression Language as Kubernetes v1.36 has it: parser, type checker, cost estimates and evaluation, for the rules of custom
//! resources, admission policies and match conditions.
//!
//! - [`Program`]: an expression compiled in an [`Env`], run with an [`Activation`].
//! - [`Schema`]: structural schemas as types; objects are read in place by them.
//! - [`FactTypes`]: the built-in kinds as types.
//! - [`crd_rules`]: the rules of custom resources, `x-kubernetes-validations`.
//! - [`admission`]: the variables of admission.
//! - [`devices`]: what selects devices (dynamic resource allocation).
//!
//! Messages are cel-go's, for clients match on them; costs are counted as cel-go and Kubernetes count them. Nothing recurses without bound: depth
//! is limited when an expression is parsed. Pure: no IO, no clock.
//!
//! Deliberately absent: protocol buffer messages, partial evaluation with unknowns, time zones by name (fixed offsets only), ANTLR's recovery
//! after the first syntax error, number formats of other locales.

mod actual_cost;
pub mod admission;
mod ast;
mod checker;
mod convert;
mod cost;
pub mod crd_rules;
mod decls;
pub mod devices;
mod env;
mod escape;
mod eval;
mod facts;
mod functions;
mod lexer;
mod literal;
mod macros;
mod parser;
mod plan;
mod program;
mod schema;
mod source;
#[cfg(test)]
mod tests;
mod time;
pub mod type_checking;
mod types;
mod value;

pub use cost::Estimate;
pub use env::{Env, Provider};
pub use eval::{Activation, Outcome};
pub use facts::{FactTypes, type_of_kind};
pub use functions::authz::{Authorizer, AuthorizerVal, Decision, Question};
pub use program::{MATCH_CONDITIONS_LIMIT, PER_CALL_LIMIT, Program, REQUEST_LIMIT};
pub use schema::{Schema, SchemaTypes};
pub use source::{Issue, display};
pub use types::Type;
pub use value::{Eval, EvalError, Key, List, Map, StructVal, Text, Val};
