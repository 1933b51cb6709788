//! Objects: storage form, watch cache, verbs and admission. The only crate that reaches the store.

mod answer;
mod cache;
mod config;
mod registry;
mod request;

pub use answer::{Answer, Body, Document};
pub use cache::{EventType, WatchEvent, WatchStream};
pub use config::{Authorizer, Cidr, Question, RegistryConfig};
pub use registry::{Registry, error_document};
pub use request::{RequestInfo, UserInfo, Verb};
