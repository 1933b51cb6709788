//! What every object shares: group, version, kind and resource names, `Status` errors, and access to `metadata` in an object tree.

mod gvk;
pub mod object;
mod status;

pub use gvk::{Gvk, Gvr};
pub use status::{ApiError, Cause, Reason};
