//! Per kind: defaults, validation, what create and update prepare, what can be selected on, and the columns of `kubectl get`.
//!
//! One folder per API group, one folder per kind with rules of its own; a kind without them is one line in its group's `RESOURCES`.
//! Everything here is pure: the tree in, the tree or a list of errors out. Custom resources bring their rules in their schema (not here);
//! they share `Strategy::custom`. Conversion between versions of a kind is not here either.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod events;
mod fields;
mod flowcontrol;
pub mod meta;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod resources;
mod scheduling;
mod selectors;
mod storage;
mod strategy;
pub mod table;
mod tree;
mod workloads;

pub use core::service::validation::addresses as check_service_addresses;
pub use resources::{Entry, entries, strategy};
pub use strategy::{Column, Ctx, Generation, SelectableFields, Strategy, Subresource, User};
