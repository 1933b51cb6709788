//! The facts table and its engine: what Kubernetes' API types look like, and everything that follows from that alone.
//!
//! - [`Facts`]: kinds, types, fields, resources, as data generated from the published Go modules (`cargo xtask facts`).
//! - [`codec`]: JSON, protobuf and YAML to and from the canonical tree, in one pass, with upstream's strict field problems.
//! - [`patch`]: the JSON, merge and strategic merge patches.
//! - [`apply`]: server-side apply and the tracking of field managers.
//! - [`structural`]: the schemas of custom resources: pruning, defaults, validation.
//! - [`re2`]: Go's regular expressions, for schemas and expressions.
//! - [`discovery`] and [`openapi`]: the documents that clients read about the API.
//!
//! The **canonical tree** is a `serde_json::Value` that holds exactly what upstream's Go type would print: zero values with `omitempty` are absent,
//! fields that Go always prints are there, `null` where Go prints `null`; quantities, times and durations are in their canonical text.
//! One thing differs on purpose: an always-printed list or map that is empty is `null`, as it is upstream once an object has been through its
//! protobuf storage.
//!
//! Pure: no IO, no clock. Deliberately absent: defaults, validation and columns per kind (`tiphys-kinds`).

pub mod apply;
pub mod codec;
pub mod discovery;
mod facts;
pub mod openapi;
pub mod patch;
pub mod re2;
pub mod structural;

pub use facts::{Facts, FieldType, GroupFacts, Kind, ResourceFacts, Subresource, Type};
