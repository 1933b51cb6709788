//! Objects: how they are stored, the watch cache, the verbs, admission. The only crate that reaches the store.
//!
//! A request comes in as a [`RequestInfo`] and leaves as an [`Answer`] ([`Registry::handle`]). Every resource goes the same way: what differs
//! stands in the facts table and in its strategy. `verbs/` is the table of contents; `cache/` is what reads are answered from; `storage/` is the form
//! of what is kept; `admission/` are the plugins in upstream's order; `network/` allocates for Services.
//!
//! A write: one decode of the body into a tree, defaults, admission and validation on it, one encoding to protobuf for the store and one to JSON for
//! all readers; the event that comes back from the store finds that JSON ready (`cache::feed`).
//!
//! `custom/` adds what CustomResourceDefinitions say, on the same ways.

mod admission;
mod answer;
mod cache;
mod chance;
mod computed;
mod conditions;
mod config;
mod convert;
mod custom;
mod describe;
mod devices;
mod hooks;
mod meters;
mod negotiate;
mod network;
mod open;
mod options;
mod registry;
mod removed;
mod render;
mod request;
mod resource;
mod select;
mod storage;
mod subresources;
#[cfg(test)]
mod tests;
mod tokens;
mod trees;
mod verbs;

pub use admission::{Connect, Operation, PodSecuritySettings};
pub use answer::{Answer, Body, Document};
pub use cache::{EventType, WatchEvent, WatchStream};
pub use chance::uuid;
pub use computed::{Computed, Presentation};
pub use conditions::{Conditions, Review, requested_kind};
pub use config::{About, Authorizer, Cidr, Question, RegistryConfig, Webhooks, Write};
pub use custom::Extensions;
pub use describe::{Description, describe};
pub use negotiate::{Clause, clauses, only_accepted};
pub use registry::{Cached, Change, Registry, Subscription, error_document};
pub use request::{AuditNotes, RequestInfo, UserInfo, Verb};
pub use storage::Entry;
pub use storage::encryption::{Encryption, EncryptionError};
