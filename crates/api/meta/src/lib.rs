//! What every object shares: group, version, kind and resource names, `Status` errors, access to `metadata` in an object tree,
//! field paths and validation errors, quantities, names, selectors, times. Pure: no clock, no chance, no IO; both come in by argument.

pub mod base64;
pub mod duration;
pub mod field;
pub mod generate_name;
mod gvk;
pub mod intstr;
pub mod ip;
pub mod names;
pub mod object;
pub mod quantity;
pub mod selector;
mod status;
pub mod time;
mod watch;

pub use field::{ErrorList, ErrorType, FieldError, Path};
pub use gvk::{Gvk, Gvr};
pub use intstr::IntOrString;
pub use quantity::Quantity;
pub use selector::{FieldSelector, LabelSelector};
pub use status::{ApiError, Cause, Reason};
pub use watch::EventType;
