//! How everyone but the API server itself talks to the API server.
//!
//! A [`Client`] speaks through a [`Backend`]: TLS ([`https`]), or function calls in the API server's own process. Above it stand the shared
//! informers (one `Arc` per object for all readers, deletes delivered, indexes), the work queue, the runner of controllers, the executor of
//! plans, events and leader election.
//!
//! Objects travel as JSON bytes. Absent on purpose: protobuf on the wire, retries hidden inside verbs (a caller sees every error), polling.

mod backend;
mod client;
mod decode;
mod error;
mod events;
mod executor;
pub mod https;
mod informer;
mod informers;
mod leader;
mod object;
mod options;
mod plan;
mod queue;
pub mod random;
mod reflector;
mod runner;

pub use backend::{Backend, Request, Response, WatchStream};
pub use client::{Client, retry_on_conflict};
pub use error::ClientError;
pub use events::{EventRecorder, EventType as RecordedType};
pub use executor::{Cache, Executor};
pub use informer::{Delta, Index, Informer, Subscription};
pub use informers::Informers;
pub use leader::{LeaderConfig, LeaderElection};
pub use object::{Kube, ListMeta, ObjectKey, ObjectList, Partial, Stored, gvr_of, is_leaving, reference_to};
pub use options::{DeleteOptions, ListOptions, Patch, Propagation};
pub use plan::{Action, AfterFailure, Note, Plan, Step, Verb};
pub use queue::{QueueKey, WorkQueue};
pub use runner::{Planned, Planner, Reconcile, ReconcileError, run_controller};
pub use tiphys_meta::EventType;
pub use tiphys_types::owners::controller_of;
